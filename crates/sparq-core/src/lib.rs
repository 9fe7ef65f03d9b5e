//! The layer problem and the second-order engine: what every pruner and quantizer of sparq has in common.
//!
//! A [`LayerProblem`] is one linear layer `Y = X Wᵀ` with the [`Curvature`] of its inputs. A [`LayerCompressor`] turns it
//! into a [`CompressedLayer`]: the new weight, the [`Mask`] of what stayed, the integer codes ([`Quantized`]) if it was
//! quantized, and a [`SolveReport`]. [`Solver`] is the compressor that puts a [`Pruner`] and a [`Quantizer`] together.
//!
//! GPTQ, SparseGPT and one-pass joint compression are one loop over the columns of `W` ([`ColumnSweep`]) with two plugs: which
//! weights of a column stay ([`Selection`]) and how a kept weight is rounded ([`Rounding`]). The loop feeds the combined
//! error `(w - w') / U[j, j]` forward into the columns not yet visited.
//!
//! ```
//! use ndarray::array;
//! use sparq_core::{Curvature, Mask, Rounding, Selection, ColumnSweep};
//!
//! let inputs = array![[1.0_f32, 0.9], [2.0, 2.1], [-1.0, -1.0]]; // [tokens, in]
//! let curvature = Curvature::of_inputs(inputs.view())?;
//!
//! // Remove channel 0 of the only row: channel 1, nearly equal, takes over its part.
//! let mask = Mask::new(array![[false, true]]);
//! let sweep = ColumnSweep::new(curvature.factor());
//! let swept = sweep.run(array![[1.0, 0.0]], &Selection::of_mask(Some(&mask)), &Rounding::None)?;
//! assert_eq!(swept.weight[[0, 0]], 0.0);
//! assert!((swept.weight[[0, 1]] - 1.0).abs() < 0.1);
//! # Ok::<(), sparq_core::CompressError>(())
//! ```
//!
//! # Should I use this crate?
//! To write a pruner or a quantizer of your own, yes: implement [`Pruner`] or [`Quantizer`]. To use the ones there are,
//! take `sparq`.
//!
//! # Contents
//! * The problem: [`LayerProblem`], [`Statistics`], [`Hessian`], [`HessianAccumulator`], [`Curvature`], [`Damping`].
//! * The answer: [`CompressedLayer`], [`Mask`], [`Codes`], [`CodeLayout`], [`Quantized`], [`Grid`], [`Stepped`], [`SolveReport`], [`Fallback`].
//! * Settings: [`Sparsity`], [`Bits`], [`QuantScheme`].
//! * Methods: [`LayerCompressor`], [`Pruner`], [`Quantizer`], [`Solver`], [`Composition`].
//! * The engine: [`InverseFactor`], [`ColumnOrder`], [`ColumnSweep`], [`Selection`], [`BlockRule`], [`RowRule`], [`Rounding`],
//!   [`GridFit`], [`Refit`], [`CoordinateDescent`], [`StepDescent`], [`InputDrift`], [`OutputDrift`].
//! * [`Observer`]: receives the progress of long work.
//! * [`OutputError`]: how far a layer is off, and the least bits at which that is possible.
//! * [`Ranks`]: processes that work on one problem together.
//! * [`relative_output_error`]: `‖X(W - W')ᵀ‖² / ‖XWᵀ‖²` from the Hessian.
//! * [`mod@reference`]: quirks of the reference implementations, for parity.
//!
//! # Shapes
//! Weights are `[out, in]`, row-major; inputs are `[tokens, in]`; Hessians are `[in, in]`; grids are `[out, groups]`. A
//! fraction is a fraction, never a percentage.
#![deny(unsafe_code)]

mod band;
mod curvature;
mod damping;
mod descent;
mod drift;
mod error;
mod error_measure;
mod factor;
mod grid;
mod hessian;
mod layer;
mod mask;
mod observer;
mod order;
mod pruner;
mod quantizer;
mod ranks;
pub mod reference;
mod refit;
mod report;
mod rounding;
mod scheme;
mod selection;
mod solver;
mod sparsity;
mod step_descent;
mod stepped;
mod sweep;
#[cfg(test)]
mod testing;

pub use curvature::Curvature;
pub use damping::Damping;
pub use descent::CoordinateDescent;
pub use drift::{InputDrift, OutputDrift};
pub use error::{CompressError, Result};
pub use error_measure::{OutputError, relative_output_error};
pub use factor::InverseFactor;
pub use grid::{Grid, GridLanes, Quantized};
pub use hessian::{Hessian, HessianAccumulator, Statistics};
pub use layer::{CompressedLayer, LayerCompressor, LayerProblem};
pub use mask::Mask;
pub use observer::Observer;
pub use order::ColumnOrder;
pub use pruner::Pruner;
pub use quantizer::{Quantizer, Rounded};
pub use ranks::{Communicator, PARTS, Ranks, Summand, message};
pub use refit::Refit;
pub use report::{Fallback, SolveReport};
pub use rounding::{GridFit, Rounding};
pub use scheme::{Bits, Granularity, QuantScheme, ScaleType};
pub use selection::{BlockRule, RowRule, Selection};
pub use solver::{Composition, Solver};
pub use sparsity::Sparsity;
pub use step_descent::StepDescent;
pub use stepped::{CodeLayout, Codes, Stepped};
pub use sweep::{ColumnSweep, Swept};
