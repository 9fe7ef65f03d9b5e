//! What differs between model families: one file each.
//!
//! A family says how its config is read, which tensors a block has, and how a block's stages are joined. The default is
//! the pre-norm decoder of Llama ([`decoder`]), whose relatives differ from it by config alone.

mod decoder;
mod llama;
mod mistral;
mod qwen2;

use crate::block::{Block, BlockPlan, BlockState};
use crate::config::Fields;
use crate::{Error, ModelConfig, Result};
use ndarray::Array2;
use std::fmt;

/// All families, in alphabetical order.
const ARCHITECTURES: &[&dyn Architecture] = &[&llama::Llama, &mistral::Mistral, &qwen2::Qwen2];

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
    "rms_norm_eps",
    "max_position_embeddings",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "bos_token_id",
    "eos_token_id",
];

/// A family of models.
pub(crate) trait Architecture: fmt::Debug + Send + Sync {
    /// As config.json spells it.
    fn model_type(&self) -> &'static str;

    /// Reads config.json.
    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig>;

    /// The parts of block `index`.
    fn plan(&self, config: &ModelConfig, index: usize) -> BlockPlan {
        decoder::plan(config, index)
    }

    /// Computes the input of a stage, `[tokens, in]`, from the residual stream and what stages before it left.
    fn input(&self, block: &Block, stage: usize, state: &mut BlockState) -> Array2<f32> {
        decoder::input(block, stage, state)
    }

    /// Takes the outputs of a stage's linears; not called for stages whose output is added to the residual stream.
    fn advance(&self, block: &Block, stage: usize, outputs: Vec<Array2<f32>>, state: &mut BlockState) {
        decoder::advance(block, stage, outputs, state);
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
