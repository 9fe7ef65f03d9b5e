use super::gguf::{self, Defaults};
use super::{Architecture, Has, decoder, qwen2};
use crate::block::BlockPlan;
use crate::config::Fields;
use crate::{ModelConfig, Result};
use serde_json::Value;
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, Family, GgufModel, Layout};

/// Components of a head of a config that does not say.
const DEFAULT_HEAD_DIM: usize = 128;

/// Qwen3: Llama with norms of each query and key head, and windows as in Qwen2.
#[derive(Debug)]
pub(super) struct Qwen3;

impl Architecture for Qwen3 {
    fn model_type(&self) -> &'static str {
        GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base_with_head_dim(fields, self.model_type(), Some(DEFAULT_HEAD_DIM))?;
        config.qkv_bias = fields.flag("attention_bias", false)?;
        config.output_bias = config.qkv_bias;
        config.windows = qwen2::windows(fields, config.layers)?;
        Ok(config)
    }

    fn plan(&self, config: &ModelConfig, index: usize, _: Has<'_>) -> BlockPlan {
        let mut plan = decoder::builder(config, index);
        plan.norms.before_attention = Some(plan.norm("input_layernorm", config.hidden_size));
        decoder::attention(&mut plan);
        decoder::query_and_key_norms(&mut plan, config.head_dim, config.head_dim);
        plan.norms.before_feed_forward = Some(plan.norm("post_attention_layernorm", config.hidden_size));
        decoder::feed_forward(&mut plan);
        plan.build()
    }
}

const GGUF: Conventions = Conventions { architecture: "qwen3", model_type: "qwen3", ..gguf::DECODER };

impl Family for Qwen3 {
    fn conventions(&self) -> &'static Conventions {
        &GGUF
    }

    fn config(&self, model: &GgufModel<'_>) -> sparq_tensor::Result<Value> {
        let mut config = gguf::config(model, &GGUF, "Qwen3ForCausalLM")?;
        gguf::add_window(model, true, &mut config)?;
        Ok(config)
    }

    fn describe(&self, fields: &ConfigFields<'_>, entries: &mut Entries<'_>) -> sparq_tensor::Result<Layout> {
        let defaults = Defaults { head_dimension: Some(DEFAULT_HEAD_DIM as u32), ..Defaults::LLAMA };
        let layout = gguf::describe(fields, &GGUF, defaults, entries)?;
        gguf::refuse_window(fields, &GGUF)?;
        Ok(layout)
    }
}
