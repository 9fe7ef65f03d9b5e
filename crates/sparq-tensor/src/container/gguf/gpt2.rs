//! GPT-2's sizes, which `config.json` and GGUF both name in other words than those of Llama and its relatives.

use serde_json::{Value, json};

use super::architecture::Architecture;
use super::config::{Dimensions, Keys};
use super::key_values::KeyValues;
use super::to_metadata::Fields;
use crate::Result;

/// What llama.cpp computes, GELU by a hyperbolic tangent, in Hugging Face's words; the first is GPT-2's own.
const ACTIVATIONS: [&str; 2] = ["gelu_new", "gelu_pytorch_tanh"];

/// `config.json` of a file, but for what all models have.
pub(super) fn config(keys: &Keys<'_>, dimensions: &Dimensions) -> Result<Value> {
    let Dimensions { hidden, heads, key_value_heads, head_dimension, .. } = *dimensions;
    if key_value_heads != heads || heads.checked_mul(head_dimension as u64) != Some(hidden) {
        let value = format!("{heads} heads of {head_dimension}, {key_value_heads} for keys and values, in {hidden}");
        return Err(keys.metadata.unsupported("the attention of gpt2", value));
    }
    Ok(json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": ACTIVATIONS[0],
        "n_embd": hidden,
        "n_inner": keys.size("feed_forward_length")?,
        "n_layer": dimensions.blocks,
        "n_head": heads,
        "n_positions": keys.size("context_length")?,
        "layer_norm_epsilon": keys.needed_float("attention.layer_norm_epsilon")?,
    }))
}

/// The metadata of a checkpoint. Refuses what llama.cpp does not compute.
pub(super) fn describe(fields: &Fields<'_>, entries: &mut KeyValues) -> Result<()> {
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
    let size = |field: &str, default: u32| Ok::<_, crate::Error>(fields.optional(field)?.unwrap_or(default));
    let hidden = size("n_embd", 768)?;
    for (suffix, value) in [
        ("block_count", size("n_layer", 12)?),
        ("context_length", size("n_positions", 1024)?),
        ("embedding_length", hidden),
        ("feed_forward_length", size("n_inner", hidden.saturating_mul(4))?),
        ("attention.head_count", size("n_head", 12)?),
    ] {
        entries.u32(&Architecture::Gpt2.key(suffix), value);
    }
    let epsilon = fields.get("layer_norm_epsilon").and_then(Value::as_f64).unwrap_or(1e-5);
    entries.f32(&Architecture::Gpt2.key("attention.layer_norm_epsilon"), epsilon as f32);
    Ok(())
}
