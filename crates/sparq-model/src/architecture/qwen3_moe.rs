use super::gguf::{self, Relative, Window};
use super::{Architecture, Has, decoder, experts};
use crate::block::BlockPlan;
use crate::config::{ExpertsConfig, Fields};
use crate::{Error, ModelConfig, Result};
use serde_json::Value;
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, GgufModel, Layout, Role};
use std::collections::BTreeSet;

/// Window of a config that uses windows without saying which.
const DEFAULT_WINDOW: usize = 4096;
/// Experts, and experts for each token, of a config that does not say.
const DEFAULT_EXPERTS: (usize, usize) = (128, 8);
/// Width of an expert of a config that does not say.
const DEFAULT_WIDTH: usize = 768;

/// Qwen3-MoE: Qwen3 with a mixture of experts in the blocks that the config chooses, by default all.
#[derive(Debug)]
pub(super) struct Qwen3Moe;

impl Architecture for Qwen3Moe {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base(fields, self.model_type())?;
        config.qkv_bias = fields.flag("attention_bias", false)?;
        config.output_bias = config.qkv_bias;
        if fields.flag("use_sliding_window", false)? {
            let window = fields.dimension_unless_null("sliding_window", DEFAULT_WINDOW)?;
            config.windows = vec![window; config.layers];
        }
        let width = fields.optional_dimension("moe_intermediate_size")?.unwrap_or(DEFAULT_WIDTH);
        let normalized = fields.flag("norm_topk_prob", false)?;
        let count = if fields.get("num_experts").is_some() { "num_experts" } else { "num_local_experts" };
        let experts = ExpertsConfig::new(fields, count, width, normalized, DEFAULT_EXPERTS)?;
        config.experts = Some(experts);
        let step = fields.optional_dimension("decoder_sparse_step")?.unwrap_or(1);
        let dense = dense_blocks(fields)?;
        config.dense_blocks =
            (0..config.layers).map(|block| (block + 1) % step != 0 || dense.contains(&block)).collect();
        config.check_products()?;
        Ok(config)
    }

    fn plan(&self, config: &ModelConfig, index: usize, has: Has<'_>) -> BlockPlan {
        let mut plan = decoder::builder(config, index);
        plan.norms.before_attention = Some(plan.norm("input_layernorm", config.hidden_size));
        decoder::attention(&mut plan);
        decoder::query_and_key_norms(&mut plan, config.head_dim, config.head_dim);
        plan.norms.before_feed_forward = Some(plan.norm("post_attention_layernorm", config.hidden_size));
        if config.dense_blocks.get(index) == Some(&true) {
            decoder::feed_forward(&mut plan);
        } else {
            experts::feed_forward(&mut plan, index, has, "mlp", ["gate_proj", "up_proj", "down_proj"]);
        }
        plan.build()
    }
}

impl Relative for Qwen3Moe {
    const GGUF: Conventions = Conventions {
        architecture: "qwen3moe",
        model_type: "qwen3_moe",
        modules: &[
            &[
                ("ffn_gate_inp", "mlp.gate", Role::Other),
                ("ffn_gate_exps", "mlp.experts.*.gate_proj", Role::Experts),
                ("ffn_up_exps", "mlp.experts.*.up_proj", Role::Experts),
                ("ffn_down_exps", "mlp.experts.*.down_proj", Role::Experts),
            ],
            gguf::MODULES,
        ],
        may_have_experts: true,
        ..gguf::DECODER
    };
    const CLASS: &'static str = "Qwen3MoeForCausalLM";
    const WINDOW: Window = Window::Switched;
    const EXPERTS: Option<&'static str> = Some("num_experts");

    fn complete_config(model: &GgufModel<'_>, config: &mut Value) -> sparq_tensor::Result<()> {
        config["moe_intermediate_size"] = model.keys.size("expert_feed_forward_length")?.into();
        config["norm_topk_prob"] = true.into(); // as llama.cpp computes it
        Ok(())
    }

    fn complete_metadata(
        fields: &ConfigFields<'_>,
        entries: &mut Entries<'_>,
        _: &mut Layout,
    ) -> sparq_tensor::Result<()> {
        entries.u32("expert_feed_forward_length", fields.needed("moe_intermediate_size")?);
        if fields.flag("norm_topk_prob") != Some(true) {
            return Err(fields.unsupported("norm_topk_prob", "false: llama.cpp always divides by the sum"));
        }
        let has_dense = fields.get("mlp_only_layers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if has_dense || fields.optional("decoder_sparse_step")?.unwrap_or(1) != 1 {
            let value = "some blocks have none, and llama.cpp expects one in each";
            return Err(fields.unsupported("a mixture of experts", value));
        }
        Ok(())
    }
}

/// Blocks that the config lists as having one feed-forward layer.
fn dense_blocks(fields: Fields<'_>) -> Result<BTreeSet<usize>> {
    let Some(value) = fields.get("mlp_only_layers") else { return Ok(BTreeSet::new()) };
    let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
    let list = value.as_array().and_then(|values| values.iter().map(index).collect());
    list.ok_or_else(|| Error::config("mlp_only_layers", format!("a list of block numbers is needed, got {value}")))
}
