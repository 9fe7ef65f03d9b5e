use super::Architecture;
use super::gguf::{self, Relative, Window};
use crate::config::Fields;
use crate::{ModelConfig, Result};
use sparq_tensor::gguf::{Conventions, Keys};

/// Window of a config that does not mention any; `null` means none.
const DEFAULT_WINDOW: usize = 4096;

/// Mistral: Llama without biases and, up to version 0.1, with a sliding window in every block.
#[derive(Debug)]
pub(super) struct Mistral;

impl Architecture for Mistral {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        let window = fields.dimension_unless_null("sliding_window", DEFAULT_WINDOW)?;
        config.windows = vec![window; config.layers];
        Ok(config)
    }
}

impl Relative for Mistral {
    const GGUF: Conventions =
        Conventions { architecture: "llama", model_type: "mistral", interleaves_heads: true, ..gguf::DECODER };
    const CLASS: &'static str = "MistralForCausalLM";
    const WINDOW: Window = Window::Kept;

    fn is_in(keys: &Keys<'_>) -> sparq_tensor::Result<bool> {
        Ok(keys.integer("expert_count")?.unwrap_or(0) == 0 && gguf::window(keys)?.is_some())
    }
}
