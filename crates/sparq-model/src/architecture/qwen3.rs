use super::gguf::{self, Relative, Window};
use super::{Architecture, Has, decoder, qwen2};
use crate::block::BlockPlan;
use crate::config::Fields;
use crate::{ModelConfig, Result};
use sparq_tensor::gguf::Conventions;

/// Components of a head of a config that does not say.
const DEFAULT_HEAD_DIM: usize = 128;

/// Qwen3: Llama with norms of each query and key head, and windows as in Qwen2.
#[derive(Debug)]
pub(super) struct Qwen3;

impl Architecture for Qwen3 {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
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

impl Relative for Qwen3 {
    const GGUF: Conventions = Conventions { architecture: "qwen3", model_type: "qwen3", ..gguf::DECODER };
    const CLASS: &'static str = "Qwen3ForCausalLM";
    const WINDOW: Window = Window::Switched;
    const DEFAULT_HEAD: Option<u32> = Some(DEFAULT_HEAD_DIM as u32);
}
