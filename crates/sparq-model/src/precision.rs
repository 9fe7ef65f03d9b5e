use serde::{Deserialize, Serialize};

/// What linear layers are multiplied in while a model runs. Sums, and all that is not a linear layer, are `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// `f32`: nearly the same numbers on every machine.
    #[default]
    F32,
    /// Weights and inputs rounded to bfloat16 ([`sparq_linalg::linear_bf16`]): about half as fast again where the processor
    /// multiplies bfloat16, no faster elsewhere. Fewer tokens than 16 at a time are multiplied in `f32`: reading the
    /// weights takes longest then, and rounding them would only add to it.
    Bf16,
    /// Inputs rounded to 8 bits: as many steps of a 127th of the largest magnitude of their block, 32 inputs of a token. Weights
    /// that [stay as they are stored](crate::Model::run_as_stored) in ggml's blocks are then multiplied as integers when there are
    /// few tokens at a time, which generates text faster; any other product is the same up to the rounding of sums. llama.cpp
    /// rounds in this way.
    Int8,
}
