//! The second-order engine of sparq: what GPTQ, SparseGPT and one-pass joint compression have in common.
//!
//! All of them are one loop over the columns of `W` ([`Sweep`]) with two plugs: which weights of a column stay
//! ([`Selection`]) and how a kept weight is rounded ([`Rounding`]). The loop feeds the combined error
//! `(w - w') / U[j, j]` forward into the columns not yet visited.
//!
//! ```
//! use ndarray::{Array2, array};
//! use sparq_core::Statistics;
//! use sparq_obs::{Damping, HessianAccumulator, InverseFactor, Rounding, Selection, Sweep};
//!
//! let inputs = array![[1.0_f32, 0.9], [2.0, 2.1], [-1.0, -1.0]]; // [tokens, in]
//! let mut accumulator = HessianAccumulator::new(2, Statistics::Hessian)?;
//! accumulator.add(inputs.view())?;
//! let hessian = accumulator.finish();
//! let factor = InverseFactor::factorize(&hessian, 2, Damping::default()).factor;
//!
//! // Remove channel 0 of the only row: channel 1, nearly equal, takes over its part.
//! let mask = sparq_core::Mask::new(array![[false, true]]);
//! let swept = Sweep::new(&factor).run(array![[1.0, 0.0]], &Selection::Fixed(&mask), &Rounding::None)?;
//! assert_eq!(swept.weight[[0, 0]], 0.0);
//! assert!((swept.weight[[0, 1]] - 1.0).abs() < 0.1);
//! # Ok::<(), sparq_core::CompressError>(())
//! ```
//!
//! # Should I use this crate?
//! To write a new second-order pruner or quantizer, yes. To use the ones there are, take `sparq`.
//!
//! # Contents
//! * [`HessianAccumulator`]: `XᵀX` over calibration batches.
//! * [`InverseFactor`], [`Damping`]: the factor of the damped inverse, with a ladder of fallbacks that are reported.
//! * [`Sweep`]: the column loop; [`Selection`], [`BlockRule`], [`RowRule`]; [`Rounding`], [`GridFit`],
//!   [`GroupParameters`].
//! * act-order: [`ColumnOrder`].
//! * [`Refit`]: the kept weights refitted together, before or without rounding.
//! * [`CoordinateDescent`]: scales and codes moved one by one to what is best given all others.
//! * [`mod@reference`]: quirks of the reference implementations, for parity.
//! * [`relative_output_error`]: `‖X(W - W')ᵀ‖² / ‖XWᵀ‖²` from the Hessian.
#![deny(unsafe_code)]

mod descent;
mod drift;
mod error_measure;
mod factor;
mod grid;
mod hessian;
mod order;
pub mod reference;
mod refit;
mod selection;
mod sweep;
#[cfg(test)]
mod testing;

pub use descent::{CoordinateDescent, Rounded};
pub use drift::{InputDrift, OutputDrift};
pub use error_measure::relative_output_error;
pub use factor::{Damping, Factored, InverseFactor};
pub use grid::{GridFit, GridLanes, GroupParameters, Rounding};
pub use hessian::HessianAccumulator;
pub use order::ColumnOrder;
pub use refit::Refit;
pub use selection::{BlockRule, RowRule, Selection};
pub use sweep::{Sweep, Swept};
