use super::{Architecture, Has, Names, decoder, gguf};
use crate::block::{BlockPlan, Feeds, PlanBuilder, Role};
use crate::config::{Dimensions, Fields, activation, layers, refuse_packed};
use crate::{Activation, Error, ModelConfig, NormKind, Result};
use serde_json::{Value, json};
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, Family, GgufModel, Layout, Role as GgufRole, Row, Sizes};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// GPT-2: learned embeddings of positions, norms with mean and bias, a feed-forward layer without gate, and matrices
/// stored as `[in, out]`, query, key and value projections side by side in one.
#[derive(Debug)]
pub(super) struct Gpt2;

impl Architecture for Gpt2 {
    fn model_type(&self) -> &'static str {
        GGUF.model_type
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

const GGUF: Conventions = Conventions {
    architecture: "gpt2",
    model_type: "gpt2",
    top_level: GGUF_TOP_LEVEL,
    blocks: "transformer.h.",
    modules: &[GGUF_MODULES],
    rope_factors: &[],
    ..gguf::DECODER
};

/// Modules of a block in GGUF.
const GGUF_MODULES: &[Row] = &[
    ("attn_norm", "ln_1", GgufRole::Norm),
    ("attn_qkv", "attn.c_attn", GgufRole::Conv1d),
    ("attn_output", "attn.c_proj", GgufRole::Conv1d),
    ("ffn_norm", "ln_2", GgufRole::Norm),
    ("ffn_up", "mlp.c_fc", GgufRole::Conv1d),
    ("ffn_down", "mlp.c_proj", GgufRole::Conv1d),
];

/// Tensors outside of blocks in GGUF.
const GGUF_TOP_LEVEL: &[Row] = &[
    ("token_embd.weight", "transformer.wte.weight", GgufRole::Other),
    ("position_embd.weight", "transformer.wpe.weight", GgufRole::Other),
    ("output_norm.weight", "transformer.ln_f.weight", GgufRole::Norm),
    ("output_norm.bias", "transformer.ln_f.bias", GgufRole::Norm),
    ("output.weight", "lm_head.weight", GgufRole::Other),
];

/// What llama.cpp computes, GELU by a hyperbolic tangent, in Hugging Face's words; the first is GPT-2's own.
const ACTIVATIONS: [&str; 2] = ["gelu_new", "gelu_pytorch_tanh"];

impl Family for Gpt2 {
    fn conventions(&self) -> &'static Conventions {
        &GGUF
    }

    fn todays_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        // The first checkpoints have no prefix.
        let is_short = !name.starts_with("transformer.") && name != "lm_head.weight";
        if is_short { Cow::Owned(format!("transformer.{name}")) } else { Cow::Borrowed(name) }
    }

    fn reads(&self, config: &Value, has: &dyn Fn(&str) -> bool) -> Option<BTreeSet<String>> {
        // Where a checkpoint has names of both fashions, neither is superfluous.
        let both = |name: String| {
            let today = self.todays_name(&name).into_owned();
            [today.strip_prefix("transformer.").unwrap_or(&today).to_owned(), today]
        };
        Some(super::reads(config, has)?.into_iter().flat_map(both).collect())
    }

    fn config(&self, model: &GgufModel<'_>) -> sparq_tensor::Result<Value> {
        let (keys, sizes) = (&model.keys, &model.sizes);
        let Sizes { hidden, heads, key_value_heads, head_dimension, .. } = *sizes;
        if key_value_heads != heads || heads.checked_mul(head_dimension as u64) != Some(hidden) {
            let value =
                format!("{heads} heads of {head_dimension}, {key_value_heads} for keys and values, in {hidden}");
            return Err(keys.unsupported("the attention of gpt2", value));
        }
        Ok(json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "activation_function": ACTIVATIONS[0],
            "n_embd": hidden,
            "n_inner": keys.size("feed_forward_length")?,
            "n_layer": sizes.blocks,
            "n_head": heads,
            "n_positions": keys.size("context_length")?,
            "layer_norm_epsilon": keys.needed_float("attention.layer_norm_epsilon")?,
        }))
    }

    fn describe(&self, fields: &ConfigFields<'_>, entries: &mut Entries<'_>) -> sparq_tensor::Result<Layout> {
        let activation = fields.get("activation_function").and_then(Value::as_str).unwrap_or(ACTIVATIONS[0]);
        if !ACTIVATIONS.contains(&activation) {
            let value = format!("{activation}: llama.cpp computes gpt2 with gelu_new");
            return Err(fields.unsupported("activation_function", value));
        }
        for (flag, ordinary) in
            [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false), ("add_cross_attention", false)]
        {
            if fields.flag(flag).is_some_and(|value| value != ordinary) {
                let value = format!("{}: llama.cpp computes gpt2 with {ordinary}", !ordinary);
                return Err(fields.unsupported(flag, value));
            }
        }
        let size = |field: &str, default: u32| Ok::<_, sparq_tensor::Error>(fields.optional(field)?.unwrap_or(default));
        let hidden = size("n_embd", 768)?;
        for (suffix, value) in [
            ("block_count", size("n_layer", 12)?),
            ("context_length", size("n_positions", 1024)?),
            ("embedding_length", hidden),
            ("feed_forward_length", size("n_inner", hidden.saturating_mul(4))?),
            ("attention.head_count", size("n_head", 12)?),
        ] {
            entries.u32(suffix, value);
        }
        let epsilon = fields.number("layer_norm_epsilon").unwrap_or(1e-5);
        entries.f32("attention.layer_norm_epsilon", epsilon as f32);
        Ok(Layout::default())
    }
}

/// The first checkpoints have no prefix, what transformers saves today does.
fn prefix(has: Has<'_>) -> &'static str {
    if has("wte.weight") { "" } else { "transformer." }
}
