use super::Architecture;
use super::gguf::{self, Relative, Window};
use crate::config::Fields;
use crate::{ModelConfig, Result};
use sparq_tensor::gguf::{Conventions, Keys};

/// Llama 2 and 3, SmolLM2, and what is saved in their form.
#[derive(Debug)]
pub(super) struct Llama;

impl Architecture for Llama {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        config.qkv_bias = fields.flag("attention_bias", false)?;
        config.output_bias = config.qkv_bias;
        config.mlp_bias = fields.flag("mlp_bias", false)?;
        Ok(config)
    }
}

impl Relative for Llama {
    const GGUF: Conventions =
        Conventions { architecture: "llama", model_type: "llama", interleaves_heads: true, ..gguf::DECODER };
    const CLASS: &'static str = "LlamaForCausalLM";
    const WINDOW: Window = Window::Absent;

    fn is_in(keys: &Keys<'_>) -> sparq_tensor::Result<bool> {
        // Mixtral has experts; Mistral is the same model with a window.
        Ok(keys.integer("expert_count")?.unwrap_or(0) == 0 && gguf::window(keys)?.is_none())
    }
}
