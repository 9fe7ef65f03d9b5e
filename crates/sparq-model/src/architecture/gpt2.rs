use super::{Architecture, Has, Names, decoder};
use crate::block::{BlockPlan, Feeds, PlanBuilder, Role};
use crate::config::{Dimensions, Fields, activation, layers, refuse_packed};
use crate::{Activation, Error, ModelConfig, NormKind, Result};

/// GPT-2: learned embeddings of positions, norms with mean and bias, a feed-forward layer without gate, and matrices
/// stored as `[in, out]`, query, key and value projections side by side in one.
#[derive(Debug)]
pub(super) struct Gpt2;

impl Architecture for Gpt2 {
    fn model_type(&self) -> &'static str {
        "gpt2"
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        refuse_packed(fields)?;
        for (field, ordinary) in [("scale_attn_weights", true), ("add_cross_attention", false)] {
            if fields.flag(field, ordinary)? != ordinary {
                return Err(Error::config(field, format!("only {ordinary} is supported")));
            }
        }
        let hidden_size = fields.optional_dimension("n_embd")?.unwrap_or(768);
        let heads = fields.optional_dimension("n_head")?.unwrap_or(12);
        if !hidden_size.is_multiple_of(heads) {
            return Err(Error::config("n_head", format!("{heads} does not divide n_embd {hidden_size}")));
        }
        let layers = if fields.get("n_layer").is_some() { layers(fields, "n_layer")? } else { 12 };
        let dimensions = Dimensions {
            vocab_size: fields.optional_dimension("vocab_size")?.unwrap_or(50257),
            hidden_size,
            intermediate_size: fields.optional_dimension("n_inner")?.unwrap_or(4 * hidden_size),
            layers,
            heads,
            kv_heads: heads,
            head_dim: hidden_size / heads,
            max_positions: fields.optional_dimension("n_positions")?.unwrap_or(1024),
        };
        let config = ModelConfig {
            norm: NormKind::Layer,
            norm_epsilon: fields.optional_positive("layer_norm_epsilon")?.unwrap_or(1e-5) as f32,
            activation: activation(fields, "activation_function")?.unwrap_or(Activation::GeluTanh),
            tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
            qkv_bias: true,
            output_bias: true,
            mlp_bias: true,
            attention_scale_by_depth: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
            learned_positions: true,
            ..ModelConfig::plain(fields, self.model_type(), dimensions)?
        };
        config.check_products()?;
        Ok(config)
    }

    fn names(&self, has: Has<'_>) -> Names {
        let prefix = prefix(has);
        Names {
            embedding: format!("{prefix}wte.weight"),
            positions: Some(format!("{prefix}wpe.weight")),
            final_norm: format!("{prefix}ln_f"),
            head: "lm_head.weight".to_owned(),
        }
    }

    fn plan(&self, config: &ModelConfig, index: usize, has: Has<'_>) -> BlockPlan {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let mut plan = PlanBuilder::new(config, format!("{}h.{index}", prefix(has)));
        plan.norms.before_attention = Some(plan.norm("ln_1", hidden));
        let projections = plan.transposed("attn.c_attn", &[("q", hidden), ("k", hidden), ("v", hidden)], hidden);
        plan.stage(Role::Attention, projections);
        let output = plan.transposed("attn.c_proj", &[("", hidden)], hidden);
        plan.stage(Role::AttentionOutput, output);
        plan.norms.before_feed_forward = Some(plan.norm("ln_2", hidden));
        let up = plan.transposed("mlp.c_fc", &[("", wide)], hidden);
        let down = plan.transposed("mlp.c_proj", &[("", hidden)], wide);
        decoder::feeds(&mut plan, Feeds::AllTokens, up, down);
        plan.build()
    }
}

/// The first checkpoints have no prefix, what transformers saves today does.
fn prefix(has: Has<'_>) -> &'static str {
    if has("wte.weight") { "" } else { "transformer." }
}
