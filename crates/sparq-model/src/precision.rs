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
    /// multiplies bfloat16 (AVX512-BF16), by a sixth where it has AMX, no faster elsewhere. Fewer tokens than 16 at a time are multiplied in
    /// `f32`: reading the weights takes longest then, and rounding them would only add to it.
    Bf16,
    /// Inputs rounded to 8 bits, as llama.cpp rounds them. Each becomes a multiple of a 127th of the largest magnitude in its
    /// block of 32 inputs. With few tokens at a time, weights that [stay as they are stored](crate::Model::run_as_stored) in
    /// ggml's blocks are multiplied as integers, which generates text faster. Elsewhere the rounded inputs are multiplied in
    /// `f32`: the same numbers up to the rounding of sums.
    Int8,
}
