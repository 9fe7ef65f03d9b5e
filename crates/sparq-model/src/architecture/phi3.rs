use super::gguf::{self, Relative, Window};
use super::{Architecture, Has, decoder};
use crate::block::{BlockPlan, Feeds, Role};
use crate::config::{Fields, RopeConfig, RopeContext};
use crate::{ModelConfig, Result};
use serde_json::Value;
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, GgufModel, Layout, Role as GgufRole};

/// Context length before stretching of a config that does not say.
const DEFAULT_POSITIONS: usize = 4096;

/// Phi-3 and Phi-4: Llama with query, key and value projections in one matrix, gate and up in another, and LongRoPE,
/// which may leave a part of each head as it is.
#[derive(Debug)]
pub(super) struct Phi3;

impl Architecture for Phi3 {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base_without_rope(fields, self.model_type(), None)?;
        config.norm_epsilon = fields.optional_positive("rms_norm_eps")?.unwrap_or(1e-5) as f32;
        config.max_positions = fields.optional_dimension("max_position_embeddings")?.unwrap_or(DEFAULT_POSITIONS);
        let original = fields.optional_dimension("original_max_position_embeddings")?.unwrap_or(DEFAULT_POSITIONS);
        let context = RopeContext { partial: true, original_positions: Some(original), ..config.rope_context(1e4) };
        config.rope = Some(RopeConfig::parse(fields, context)?);
        config.windows = vec![fields.optional_dimension("sliding_window")?; config.layers];
        Ok(config)
    }

    fn plan(&self, config: &ModelConfig, index: usize, _: Has<'_>) -> BlockPlan {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let mut plan = decoder::builder(config, index);
        plan.norms.before_attention = Some(plan.norm("input_layernorm", hidden));
        let parts = [("q", config.query_width()), ("k", config.kv_width()), ("v", config.kv_width())];
        let projections = plan.fused("self_attn.qkv_proj", &parts, hidden, false);
        plan.stage(Role::Attention, projections);
        decoder::attention_output(&mut plan);
        plan.norms.before_feed_forward = Some(plan.norm("post_attention_layernorm", hidden));
        let first = plan.fused("mlp.gate_up_proj", &[("gate", wide), ("up", wide)], hidden, false);
        let down = plan.linear("mlp.down_proj", hidden, wide, false);
        decoder::feeds(&mut plan, Feeds::AllTokens, first, vec![down]);
        plan.build()
    }
}

impl Relative for Phi3 {
    const GGUF: Conventions = Conventions {
        architecture: "phi3",
        model_type: "phi3",
        modules: &[
            &[("attn_qkv", "self_attn.qkv_proj", GgufRole::Other), ("ffn_up", "mlp.gate_up_proj", GgufRole::Other)],
            gguf::MODULES,
        ],
        rope_factors: &[gguf::SHORT, gguf::LONG],
        may_rotate_partly: true,
        ..gguf::DECODER
    };
    const CLASS: &'static str = "Phi3ForCausalLM";
    const WINDOW: Window = Window::Kept;

    fn complete_config(model: &GgufModel<'_>, config: &mut Value) -> sparq_tensor::Result<()> {
        let (keys, sizes) = (&model.keys, &model.sizes);
        config["partial_rotary_factor"] = (sizes.rotated as f64 / sizes.head_dimension as f64).into();
        let original = keys.integer("rope.scaling.original_context_length")?;
        config["original_max_position_embeddings"] = original.unwrap_or(keys.size("context_length")?).into();
        Ok(())
    }

    fn complete_metadata(
        fields: &ConfigFields<'_>,
        entries: &mut Entries<'_>,
        _: &mut Layout,
    ) -> sparq_tensor::Result<()> {
        // llama.cpp wants to be told that there is none.
        if fields.optional("sliding_window")?.is_none() {
            entries.u32("attention.sliding_window", 0);
        }
        Ok(())
    }
}
