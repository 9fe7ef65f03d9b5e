use super::Architecture;
use super::gguf::{self, Defaults};
use crate::config::Fields;
use crate::{ModelConfig, Result};
use serde_json::Value;
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, Family, GgufModel, Keys, Layout};

/// Llama 2 and 3, SmolLM2, and what is saved in their form.
#[derive(Debug)]
pub(super) struct Llama;

impl Architecture for Llama {
    fn model_type(&self) -> &'static str {
        GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        config.qkv_bias = fields.flag("attention_bias", false)?;
        config.output_bias = config.qkv_bias;
        config.mlp_bias = fields.flag("mlp_bias", false)?;
        Ok(config)
    }
}

const GGUF: Conventions =
    Conventions { architecture: "llama", model_type: "llama", interleaves_heads: true, ..gguf::DECODER };

impl Family for Llama {
    fn conventions(&self) -> &'static Conventions {
        &GGUF
    }

    fn is_in(&self, keys: &Keys<'_>) -> sparq_tensor::Result<bool> {
        // Mixtral has experts; Mistral is the same model with a window.
        Ok(keys.integer("expert_count")?.unwrap_or(0) == 0 && gguf::window(keys)?.is_none())
    }

    fn config(&self, model: &GgufModel<'_>) -> sparq_tensor::Result<Value> {
        gguf::config(model, &GGUF, "LlamaForCausalLM")
    }

    fn describe(&self, fields: &ConfigFields<'_>, entries: &mut Entries<'_>) -> sparq_tensor::Result<Layout> {
        gguf::describe(fields, &GGUF, Defaults::LLAMA, entries)
    }
}
