use super::gguf::{self, Relative, Window};
use super::{Architecture, Has, decoder};
use crate::block::BlockPlan;
use crate::config::Fields;
use crate::{ModelConfig, Result};
use sparq_tensor::gguf::{Conventions, Role};

/// OLMo 2: no norm before attention and feed-forward layer but one after each, and norms over all query heads and over
/// all key heads together.
#[derive(Debug)]
pub(super) struct Olmo2;

impl Architecture for Olmo2 {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        config.norm_epsilon = fields.optional_positive("rms_norm_eps")?.unwrap_or(1e-5) as f32;
        config.qkv_bias = fields.flag("attention_bias", false)?;
        config.output_bias = config.qkv_bias;
        Ok(config)
    }

    fn plan(&self, config: &ModelConfig, index: usize, _: Has<'_>) -> BlockPlan {
        let mut plan = decoder::builder(config, index);
        decoder::attention(&mut plan);
        decoder::query_and_key_norms(&mut plan, config.query_width(), config.kv_width());
        plan.norms.after_attention = Some(plan.norm("post_attention_layernorm", config.hidden_size));
        decoder::feed_forward(&mut plan);
        plan.norms.after_feed_forward = Some(plan.norm("post_feedforward_layernorm", config.hidden_size));
        plan.build()
    }
}

impl Relative for Olmo2 {
    const GGUF: Conventions = Conventions {
        architecture: "olmo2",
        model_type: "olmo2",
        modules: &[
            &[
                ("post_attention_norm", "post_attention_layernorm", Role::Norm),
                ("post_ffw_norm", "post_feedforward_layernorm", Role::Norm),
            ],
            gguf::MODULES,
        ],
        ..gguf::DECODER
    };
    const CLASS: &'static str = "Olmo2ForCausalLM";
    const WINDOW: Window = Window::Switched;
}
