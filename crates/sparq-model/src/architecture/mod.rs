//! What differs between model families: one file each.
//!
//! A family says how its config is read, what its tensors are called and what a block consists of; how the parts of a
//! block are run is the same for all (`block/walk.rs`). Most are relatives of Llama, put together from its parts
//! ([`decoder`]).

mod decoder;
mod experts;
mod gemma3;
mod gguf;
mod gpt2;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use crate::block::BlockPlan;
use crate::config::Fields;
use crate::{Error, ModelConfig, Result};
use sparq_tensor::gguf::Families;
use std::fmt;

/// All families, in alphabetical order.
const ARCHITECTURES: &[&dyn Architecture] = &[
    &gemma3::Gemma3,
    &gpt2::Gpt2,
    &llama::Llama,
    &mistral::Mistral,
    &mixtral::Mixtral,
    &olmo2::Olmo2,
    &phi3::Phi3,
    &qwen2::Qwen2,
    &qwen3::Qwen3,
    &qwen3_moe::Qwen3Moe,
];

/// Families that GGUF files can be read and written of: a family says itself how, in its own file.
///
/// # Examples
/// ```no_run
/// let checkpoint = sparq_tensor::Checkpoint::open_with("model.gguf", sparq_model::GGUF_FAMILIES)?;
/// # Ok::<(), sparq_tensor::Error>(())
/// ```
pub const GGUF_FAMILIES: Families = &[
    &gguf::Decoder(gemma3::Gemma3),
    &gpt2::Gpt2,
    &gguf::Decoder(llama::Llama),
    &gguf::Decoder(mistral::Mistral),
    &gguf::Decoder(mixtral::Mixtral),
    &gguf::Decoder(olmo2::Olmo2),
    &gguf::Decoder(phi3::Phi3),
    &gguf::Decoder(qwen2::Qwen2),
    &gguf::Decoder(qwen3::Qwen3),
    &gguf::Decoder(qwen3_moe::Qwen3Moe),
];

/// Fields that some family reads, for the message about an unknown one.
const KNOWN_FIELDS: &[&str] = &[
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "rms_norm_eps",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "rope_theta",
    "rope_local_base_freq",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "sliding_window",
    "sliding_window_pattern",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "query_pre_attn_scalar",
    "final_logit_softcapping",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
    "n_embd",
    "n_head",
    "n_layer",
    "n_inner",
    "n_positions",
    "activation_function",
    "layer_norm_epsilon",
    "scale_attn_by_inverse_layer_idx",
    "bos_token_id",
    "eos_token_id",
];

/// Whether the checkpoint has a tensor of this name.
pub(crate) type Has<'a> = &'a dyn Fn(&str) -> bool;

/// Full names of the tensors outside of blocks.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) embedding: String,
    /// Learned embeddings of positions.
    pub(crate) positions: Option<String>,
    /// Module of the last norm.
    pub(crate) final_norm: String,
    pub(crate) head: String,
}

/// A family of models.
pub(crate) trait Architecture: fmt::Debug + Send + Sync {
    /// As config.json spells it.
    fn model_type(&self) -> &'static str;

    /// Reads config.json.
    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig>;

    /// Names outside of blocks. `has` tells layouts apart that one config may have.
    fn names(&self, has: Has<'_>) -> Names {
        let _ = has;
        Names {
            embedding: "model.embed_tokens.weight".to_owned(),
            positions: None,
            final_norm: "model.norm".to_owned(),
            head: "lm_head.weight".to_owned(),
        }
    }

    /// The parts of block `index`.
    fn plan(&self, config: &ModelConfig, index: usize, has: Has<'_>) -> BlockPlan {
        let _ = has;
        decoder::plan(config, index)
    }
}

/// Finds the family that a config names and reads the config.
pub(crate) fn configure(fields: Fields<'_>) -> Result<(ModelConfig, &'static dyn Architecture)> {
    let model_type = fields.text("model_type")?.ok_or_else(|| Error::config("model_type", "missing"))?;
    match ARCHITECTURES.iter().find(|architecture| architecture.model_type() == model_type) {
        Some(architecture) => Ok((architecture.configure(fields)?, *architecture)),
        None => Err(Error::UnsupportedArchitecture {
            model_type: model_type.chars().take(64).collect(),
            supported: join(ARCHITECTURES.iter().map(|architecture| architecture.model_type())),
            understood: join(fields.present(KNOWN_FIELDS).into_iter()),
        }),
    }
}

fn join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
