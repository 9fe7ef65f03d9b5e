use super::gguf::{self, Relative, Window};
use super::{Architecture, Has, decoder, experts};
use crate::block::BlockPlan;
use crate::config::{ExpertsConfig, Fields};
use crate::{ModelConfig, Result};
use sparq_tensor::gguf::{Conventions, Keys, Role, Row};

/// Experts, and experts for each token, of a config that does not say.
const DEFAULT_EXPERTS: (usize, usize) = (8, 2);
const DEFAULT_THETA: f64 = 1e6;

/// Mixtral: Mistral with a mixture of experts in every block.
#[derive(Debug)]
pub(super) struct Mixtral;

impl Architecture for Mixtral {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base_without_rope(fields, self.model_type(), None)?;
        config.norm_epsilon = fields.optional_positive("rms_norm_eps")?.unwrap_or(1e-5) as f32;
        config.read_rope(fields, DEFAULT_THETA)?;
        config.windows = vec![fields.optional_dimension("sliding_window")?; config.layers];
        let width = config.intermediate_size;
        config.experts = Some(ExpertsConfig::new(fields, "num_local_experts", width, true, DEFAULT_EXPERTS)?);
        config.check_products()?;
        Ok(config)
    }

    fn plan(&self, config: &ModelConfig, index: usize, has: Has<'_>) -> BlockPlan {
        let mut plan = decoder::builder(config, index);
        plan.norms.before_attention = Some(plan.norm("input_layernorm", config.hidden_size));
        decoder::attention(&mut plan);
        plan.norms.before_feed_forward = Some(plan.norm("post_attention_layernorm", config.hidden_size));
        experts::feed_forward(&mut plan, index, has, "block_sparse_moe", ["w1", "w3", "w2"]);
        plan.build()
    }
}

impl Relative for Mixtral {
    const GGUF: Conventions = Conventions {
        architecture: "llama",
        model_type: "mixtral",
        modules: &[EXPERTS, gguf::MODULES],
        interleaves_heads: true,
        may_have_experts: true,
        ..gguf::DECODER
    };
    const CLASS: &'static str = "MixtralForCausalLM";
    const WINDOW: Window = Window::Kept;
    const EXPERTS: Option<&'static str> = Some("num_local_experts");

    fn is_in(keys: &Keys<'_>) -> sparq_tensor::Result<bool> {
        Ok(keys.integer("expert_count")?.unwrap_or(0) > 0)
    }
}

/// The mixture of experts in GGUF.
const EXPERTS: &[Row] = &[
    ("ffn_gate_inp", "block_sparse_moe.gate", Role::Other),
    ("ffn_gate_exps", "block_sparse_moe.experts.*.w1", Role::Experts),
    ("ffn_up_exps", "block_sparse_moe.experts.*.w3", Role::Experts),
    ("ffn_down_exps", "block_sparse_moe.experts.*.w2", Role::Experts),
];
