//! The nouns of sparq and the one trait that its methods share. No I/O, no big products, no algorithms.
//!
//! A [`LayerProblem`] is one linear layer `Y = X Wᵀ` with what calibration knows about its inputs. A
//! [`LayerCompressor`] turns it into a [`CompressedLayer`]: the new weight, the [`Mask`] of what stayed, the integer
//! codes ([`Quantized`]) if it was quantized, and a [`SolveReport`] of how the solve went.
//!
//! ```
//! use sparq_core::{Sparsity, Bits};
//! let s = Sparsity::n_of_m(6, 8)?; // keep 6 of 8: the report says 25 % sparse
//! assert_eq!(s.fraction(), 0.25);
//! assert_eq!(Bits::new(4)?.levels(), 16);
//! # Ok::<(), sparq_core::CompressError>(())
//! ```
//!
//! # Should I use this crate?
//! To write a pruner or a quantizer of your own, yes: implement [`LayerCompressor`]. To use the ones there are, take
//! `sparq`.
//!
//! # Shapes
//! Weights are `[out, in]`, row-major; inputs are `[tokens, in]`; Hessians are `[in, in]`; scales and zero points are
//! `[out, groups]`. A fraction is a fraction, never a percentage.
#![deny(unsafe_code)]

mod error;
mod grid;
mod layer;
mod mask;
mod report;
mod shared;
mod sparsity;

pub use error::{CompressError, Result};
pub use grid::{Bits, Granularity, QuantScheme, Quantized, ScaleType};
pub use layer::{CompressedLayer, Hessian, LayerCompressor, LayerProblem, Statistics};
pub use mask::Mask;
pub use report::{Fallback, SolveReport};
pub use shared::SharedHessian;
pub use sparsity::Sparsity;
