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
use crate::{Error, ModelConfig, NormKind, Result};
use serde_json::Value;
use sparq_tensor::gguf::Families;
use std::collections::BTreeSet;
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

/// A tensor that a model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

/// Every tensor outside of blocks that a model reads.
pub(crate) fn needed_outside(config: &ModelConfig, names: &Names) -> Vec<Needed> {
    let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
    let one = |name: &str, shape: &[usize]| Needed { name: name.to_owned(), shape: shape.to_vec() };
    let mut needed = vec![one(&names.embedding, &[vocabulary, hidden])];
    needed.extend(names.positions.as_deref().map(|name| one(name, &[config.max_positions, hidden])));
    needed.push(one(&format!("{}.weight", names.final_norm), &[hidden]));
    if config.norm == NormKind::Layer {
        needed.push(one(&format!("{}.bias", names.final_norm), &[hidden]));
    }
    if !config.tie_word_embeddings {
        needed.push(one(&names.head, &[vocabulary, hidden]));
    }
    needed
}

/// Every tensor that a block reads.
pub(crate) fn needed_in(plan: &BlockPlan) -> Vec<Needed> {
    let mut needed = Vec::new();
    for linear in &plan.linears {
        needed.push(Needed { name: linear.stored.tensor.clone(), shape: linear.stored.shape.clone() });
        if linear.bias {
            // That of all linears that are stored with this one.
            let rows = linear.stored.features().map_or(linear.out_features, |[rows, _]| rows);
            needed.push(Needed { name: linear.bias_name(), shape: vec![rows] });
        }
    }
    needed.extend(plan.router.iter().map(|(name, shape)| Needed { name: name.clone(), shape: shape.to_vec() }));
    needed.extend(plan.vectors.iter().map(|vector| Needed { name: vector.name.clone(), shape: vec![vector.length] }));
    needed
}

/// Names of the tensors that a model of this config reads; an output matrix also where it equals the embedding. None if
/// the config cannot be read.
fn reads(config: &Value, has: Has<'_>) -> Option<BTreeSet<String>> {
    let (config, architecture) = configure(Fields::new(config).ok()?).ok()?;
    let names = architecture.names(has);
    let mut read: BTreeSet<String> = needed_outside(&config, &names).into_iter().map(|tensor| tensor.name).collect();
    read.insert(names.head);
    for index in 0..config.layers {
        read.extend(needed_in(&architecture.plan(&config, index, has)).into_iter().map(|tensor| tensor.name));
    }
    Some(read)
}

fn join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
