use super::Architecture;
use crate::config::Fields;
use crate::{Error, ModelConfig, Result};
use serde_json::Value;

/// Window of a config that uses windows without saying which.
const DEFAULT_WINDOW: usize = 4096;
/// First block with a window, of a config that uses windows without saying where.
const DEFAULT_FULL_LAYERS: usize = 28;

/// Qwen2 and 2.5: Llama with biases on queries, keys and values, and windows in later blocks if switched on.
#[derive(Debug)]
pub(super) struct Qwen2;

impl Architecture for Qwen2 {
    fn model_type(&self) -> &'static str {
        "qwen2"
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        config.qkv_bias = true;
        if !fields.flag("use_sliding_window", false)? {
            return Ok(config);
        }
        let window = match fields.optional_dimension("sliding_window")? {
            None if !fields.is_written("sliding_window") => Some(DEFAULT_WINDOW),
            window => window,
        };
        config.windows = if let Some(value) = fields.get("layer_types") {
            windows_by_name(value, config.layers, window)?
        } else {
            let full = fields.optional_count("max_window_layers")?.unwrap_or(DEFAULT_FULL_LAYERS);
            (0..config.layers).map(|layer| window.filter(|_| layer >= full)).collect()
        };
        Ok(config)
    }
}

fn windows_by_name(value: &Value, layers: usize, window: Option<usize>) -> Result<Vec<Option<usize>>> {
    let types = value
        .as_array()
        .filter(|types| types.len() == layers)
        .ok_or_else(|| Error::config("layer_types", format!("a list of {layers} names is needed")))?;
    let window_of = |layer_type: &Value| match layer_type.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => Ok(window),
        _ => Err(Error::config(
            "layer_types",
            format!("full_attention and sliding_attention are supported, got {layer_type}"),
        )),
    };
    types.iter().map(window_of).collect()
}
