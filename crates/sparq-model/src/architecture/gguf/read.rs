//! `config.json` from GGUF metadata, in the style of transformers 4.

use serde_json::{Value, json};
use sparq_tensor::Result;
use sparq_tensor::gguf::{GgufModel, Keys};

use super::{Relative, Window, rope_scaling};

/// What Llama and its relatives have in common.
pub(super) fn config<T: Relative>(model: &GgufModel<'_>) -> Result<Value> {
    let (keys, sizes) = (&model.keys, &model.sizes);
    let epsilon = keys.needed_float("attention.layer_norm_rms_epsilon")?;
    let theta = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
    let mut config = json!({
        "architectures": [T::CLASS],
        "model_type": T::GGUF.model_type,
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
    });
    if let Some(window) = window(keys)? {
        config["sliding_window"] = window.into();
        if T::WINDOW == Window::Switched {
            config["use_sliding_window"] = true.into();
        }
    }
    if let (Some(count), true) = (T::EXPERTS, sizes.experts > 0) {
        config[count] = sizes.experts.into();
        config["num_experts_per_tok"] = keys.size("expert_used_count")?.into();
    }
    Ok(config)
}

/// How far attention reaches back, if not to the beginning: converters write 0 for that too.
pub(in super::super) fn window(keys: &Keys<'_>) -> Result<Option<u64>> {
    Ok(keys.integer("attention.sliding_window")?.filter(|&window| window != 0))
}
