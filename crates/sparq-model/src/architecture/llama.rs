use super::Architecture;
use crate::config::Fields;
use crate::{ModelConfig, Result};

/// Llama 2 and 3, SmolLM2, and what is saved in their form.
#[derive(Debug)]
pub(super) struct Llama;

impl Architecture for Llama {
    fn model_type(&self) -> &'static str {
        "llama"
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        config.qkv_bias = fields.flag("attention_bias", false)?;
        config.output_bias = config.qkv_bias;
        config.mlp_bias = fields.flag("mlp_bias", false)?;
        Ok(config)
    }
}
