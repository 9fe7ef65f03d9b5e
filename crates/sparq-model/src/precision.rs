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
}
