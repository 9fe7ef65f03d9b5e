//! GGUF metadata from `config.json`.

use serde_json::Value;
use sparq_tensor::Result;
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, Layout};

use super::rope_scaling::{self, Lengths, Written};
use super::{ALL_LENGTHS, LONG, Relative, SHORT, Window};

/// Adds what Llama and its relatives have in common.
pub(super) fn describe<T: Relative>(fields: &ConfigFields<'_>, entries: &mut Entries<'_>) -> Result<Layout> {
    let (hidden, heads) = (fields.needed("hidden_size")?, fields.needed("num_attention_heads")?);
    let default_head = T::DEFAULT_HEAD.unwrap_or(hidden / heads.max(1));
    let head_dimension = fields.optional("head_dim")?.unwrap_or(default_head);
    entries.u32("block_count", fields.needed("num_hidden_layers")?);
    entries.u32("context_length", fields.needed("max_position_embeddings")?);
    entries.u32("embedding_length", hidden);
    entries.u32("feed_forward_length", fields.needed("intermediate_size")?);
    entries.u32("attention.head_count", heads);
    entries.u32("attention.head_count_kv", fields.optional("num_key_value_heads")?.unwrap_or(heads));
    if head_dimension.checked_mul(heads) != Some(hidden) {
        entries.u32("attention.key_length", head_dimension);
        entries.u32("attention.value_length", head_dimension);
    }
    let epsilon = fields.number("rms_norm_eps").ok_or_else(|| fields.missing("rms_norm_eps"))?;
    entries.f32("attention.layer_norm_rms_epsilon", epsilon as f32);
    let head_dimension = head_dimension as usize;
    let rope_divisors = rope(fields, &T::GGUF, head_dimension, T::DEFAULT_THETA, entries)?;
    if T::WINDOW == Window::Switched && fields.flag("use_sliding_window") == Some(true) {
        let value = format!("llama.cpp computes {} without", T::GGUF.architecture);
        return Err(fields.unsupported("use_sliding_window", value));
    }
    if let (Window::Kept, Some(window)) = (T::WINDOW, fields.optional("sliding_window")?) {
        entries.u32("attention.sliding_window", window);
    }
    let experts = if T::EXPERTS.is_some() { experts(fields, entries)? } else { 0 };
    Ok(Layout { head_dimension, experts, rope_divisors })
}

/// The rotary embedding; returns tensors of divisors that belong to it.
fn rope(
    fields: &ConfigFields<'_>,
    conventions: &Conventions,
    head_dimension: usize,
    default_theta: f64,
    entries: &mut Entries<'_>,
) -> Result<Vec<(&'static str, Vec<f32>)>> {
    // Since transformers 5 the rotary settings are in an object of their own, for Gemma 3 in one for each kind of block.
    let parameters = fields.get("rope_parameters");
    let parameters = parameters.map(|object| object.get("full_attention").unwrap_or(object));
    let number = |key: &str| fields.get(key).or_else(|| parameters?.get(key)).and_then(Value::as_f64);
    let theta = number("rope_theta").unwrap_or(default_theta);
    let part = number("partial_rotary_factor").filter(|_| conventions.may_rotate_partly).unwrap_or(1.0);
    let rotated = (head_dimension as f64 * part) as usize;
    entries.u32("rope.dimension_count", rotated as u32);
    entries.f32("rope.freq_base", theta as f32);
    let now = number("max_position_embeddings").unwrap_or(0.0);
    let before = number("original_max_position_embeddings").unwrap_or(now);
    let scaling = fields.get("rope_scaling").or(parameters);
    let written = rope_scaling::to_gguf(scaling, theta, rotated, Lengths { now, before })
        .map_err(|value| fields.unsupported("rotary scaling", value))?;
    match written {
        Written::Nothing => Ok(Vec::new()),
        Written::Keys(kind, factor, length) => {
            entries.string("rope.scaling.type", kind);
            entries.f32("rope.scaling.factor", factor);
            if let Some(length) = length {
                entries.u32("rope.scaling.original_context_length", length);
            }
            Ok(Vec::new())
        }
        Written::Divisors(divisors) => Ok(vec![(ALL_LENGTHS, divisors)]),
        Written::LongRope(short, long, attention_factor) => {
            if !conventions.rope_factors.contains(&SHORT) {
                return Err(fields.unsupported("rotary scaling", format!("longrope in {}", conventions.architecture)));
            }
            entries.f32("rope.scaling.attn_factor", attention_factor);
            entries.u32("rope.scaling.original_context_length", before as u32);
            Ok(vec![(SHORT, short), (LONG, long)])
        }
    }
}

/// Adds the mixture of experts; returns how many there are.
fn experts(fields: &ConfigFields<'_>, entries: &mut Entries<'_>) -> Result<u64> {
    let count = match fields.optional("num_local_experts")? {
        Some(count) => count,
        None => fields.needed("num_experts")?,
    };
    entries.u32("expert_count", count);
    entries.u32("expert_used_count", fields.needed("num_experts_per_tok")?);
    Ok(count.into())
}
