use super::Architecture;
use super::gguf::{self, Relative, Window};
use crate::config::{Fields, windows_by_name};
use crate::{ModelConfig, Result};
use sparq_tensor::gguf::Conventions;

/// Window of a config that uses windows without saying which.
const DEFAULT_WINDOW: usize = 4096;
/// First block with a window, of a config that uses windows without saying where.
const DEFAULT_FULL_LAYERS: usize = 28;

/// Qwen2 and 2.5: Llama with biases on queries, keys and values, and windows in later blocks if switched on.
#[derive(Debug)]
pub(super) struct Qwen2;

impl Architecture for Qwen2 {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        config.qkv_bias = true;
        config.windows = windows(fields, config.layers)?;
        Ok(config)
    }
}

impl Relative for Qwen2 {
    const GGUF: Conventions = Conventions { architecture: "qwen2", model_type: "qwen2", ..gguf::DECODER };
    const CLASS: &'static str = "Qwen2ForCausalLM";
    const WINDOW: Window = Window::Switched;
}

/// The windows of Qwen2 and 3: none unless they are switched on.
pub(super) fn windows(fields: Fields<'_>, layers: usize) -> Result<Vec<Option<usize>>> {
    if !fields.flag("use_sliding_window", false)? {
        return Ok(vec![None; layers]);
    }
    let window = fields.dimension_unless_null("sliding_window", DEFAULT_WINDOW)?;
    if let Some(windows) = windows_by_name(fields, layers, window)? {
        return Ok(windows);
    }
    let full = fields.optional_count("max_window_layers")?.unwrap_or(DEFAULT_FULL_LAYERS);
    Ok((0..layers).map(|layer| window.filter(|_| layer >= full)).collect())
}
