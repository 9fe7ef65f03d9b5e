//! `config.json` from GGUF metadata, in the style of transformers 4.

use serde_json::{Value, json};
use sparq_tensor::Result;
use sparq_tensor::gguf::{Conventions, GgufModel, Keys};

use super::rope_scaling;

/// What Llama and its relatives have in common; `class` is transformers' for the family.
pub(in super::super) fn config(model: &GgufModel<'_>, conventions: &Conventions, class: &str) -> Result<Value> {
    let (keys, sizes) = (&model.keys, &model.sizes);
    let epsilon = keys.needed_float("attention.layer_norm_rms_epsilon")?;
    let theta = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
    Ok(json!({
        "architectures": [class],
        "model_type": conventions.model_type,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "intermediate_size": keys.size("feed_forward_length")?,
        "num_hidden_layers": sizes.blocks,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "head_dim": sizes.head_dimension,
        "max_position_embeddings": keys.size("context_length")?,
        "rms_norm_eps": epsilon,
        "rope_theta": theta,
        "rope_scaling": rope_scaling::from_metadata(model, theta)?,
        "attention_bias": model.has("model.layers.0.self_attn.q_proj.bias"),
        "mlp_bias": model.has("model.layers.0.mlp.up_proj.bias"),
    }))
}

/// How far attention reaches back, if not to the beginning: converters write 0 for that too.
pub(in super::super) fn window(keys: &Keys<'_>) -> Result<Option<u64>> {
    Ok(keys.integer("attention.sliding_window")?.filter(|&window| window != 0))
}

/// Adds the window, if there is one, and for families that switch windows on the switch.
pub(in super::super) fn add_window(model: &GgufModel<'_>, has_switch: bool, config: &mut Value) -> Result<()> {
    if let Some(window) = window(&model.keys)? {
        config["sliding_window"] = window.into();
        if has_switch {
            config["use_sliding_window"] = true.into();
        }
    }
    Ok(())
}

/// Adds the number of experts, if there are any, in the field `count`.
pub(in super::super) fn add_experts(model: &GgufModel<'_>, count: &str, config: &mut Value) -> Result<()> {
    if model.sizes.experts > 0 {
        config[count] = model.sizes.experts.into();
        config["num_experts_per_tok"] = model.keys.size("expert_used_count")?.into();
    }
    Ok(())
}
