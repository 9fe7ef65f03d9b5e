//! Pruners: which weights of a linear layer go.
//!
//! | pruner | score of a weight | compared within | compensates | needs |
//! |---|---|---|---|---|
//! | [`Magnitude`] | `|w|` | layer or row | no | nothing |
//! | [`Wanda`] | `|w| · ‖x‖` | row | no | channel norms |
//! | [`Obs`] | `w² / [H⁻¹][j, j]` | row | no | Hessian |
//! | [`SparseGpt`] | `w² / U[j, j]²` | block of columns | yes | Hessian |
//!
//! [`Solver`](sparq_core::Solver) refits what any of them keeps, can let it choose in rounds, and rounds the result.
//!
//! All take a [`Sparsity`](sparq_core::Sparsity): a fraction of weights, or `kept:of` in every row. Counts are exact
//! (the fraction is met to the nearest weight over the layer), ties go to the lower index.
//!
//! ```
//! use ndarray::array;
//! use sparq_core::{LayerCompressor, LayerProblem, Sparsity};
//! use sparq_prune::Magnitude;
//!
//! let weight = array![[0.1_f32, -3.0, 2.0, 0.2]];
//! let problem = LayerProblem::uncalibrated("demo", weight.view())?;
//! let pruned = Magnitude::new(Sparsity::n_of_m(2, 4)?).compress(&problem)?;
//! assert_eq!(pruned.weight, array![[0.0, -3.0, 2.0, 0.0]]);
//! # Ok::<(), sparq_core::CompressError>(())
//! ```
//!
//! # Should I use this crate?
//! To prune one matrix, yes. To prune a checkpoint, take `sparq`. A new pruner is one file here that implements
//! [`Pruner`](sparq_core::Pruner).
#![deny(unsafe_code)]

mod magnitude;
mod obs;
mod select;
mod sparsegpt;
mod wanda;

pub use magnitude::{Magnitude, Scope};
pub use obs::Obs;
pub use sparsegpt::SparseGpt;
pub use wanda::Wanda;
