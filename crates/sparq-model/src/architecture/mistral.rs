use super::Architecture;
use super::gguf::{self, Defaults};
use crate::config::Fields;
use crate::{ModelConfig, Result};
use serde_json::Value;
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, Family, GgufModel, Keys, Layout};

/// Window of a config that does not mention any; `null` means none.
const DEFAULT_WINDOW: usize = 4096;

/// Mistral: Llama without biases and, up to version 0.1, with a sliding window in every block.
#[derive(Debug)]
pub(super) struct Mistral;

impl Architecture for Mistral {
    fn model_type(&self) -> &'static str {
        GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        let window = match fields.optional_dimension("sliding_window")? {
            None if !fields.is_written("sliding_window") => Some(DEFAULT_WINDOW),
            window => window,
        };
        config.windows = vec![window; config.layers];
        Ok(config)
    }
}

const GGUF: Conventions =
    Conventions { architecture: "llama", model_type: "mistral", interleaves_heads: true, ..gguf::DECODER };

impl Family for Mistral {
    fn conventions(&self) -> &'static Conventions {
        &GGUF
    }

    fn is_in(&self, keys: &Keys<'_>) -> sparq_tensor::Result<bool> {
        Ok(keys.integer("expert_count")?.unwrap_or(0) == 0 && gguf::window(keys)?.is_some())
    }

    fn config(&self, model: &GgufModel<'_>) -> sparq_tensor::Result<Value> {
        let mut config = gguf::config(model, &GGUF, "MistralForCausalLM")?;
        gguf::add_window(model, false, &mut config)?;
        Ok(config)
    }

    fn describe(&self, fields: &ConfigFields<'_>, entries: &mut Entries<'_>) -> sparq_tensor::Result<Layout> {
        let layout = gguf::describe(fields, &GGUF, Defaults::LLAMA, entries)?;
        if let Some(window) = fields.optional("sliding_window")? {
            entries.u32("attention.sliding_window", window);
        }
        Ok(layout)
    }
}
