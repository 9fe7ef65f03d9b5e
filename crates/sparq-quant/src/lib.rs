//! Quantizers: rounding the weights of a linear layer, to a grid of 2 to 8 bits or to codes that are entropy-coded.
//!
//! | quantizer | compensates | needs |
//! |---|---|---|
//! | [`Rtn`] | no: round to nearest | nothing |
//! | [`Gptq`] | yes: each column's rounding error goes into the columns after it | Hessian |
//! | [`Step`] | yes, to codes without a width at a given rate | Hessian |
//! | [`RowStep`] | no, to codes without a width at a given rate | nothing |
//!
//! [`Solver`](sparq_core::Solver) improves what either leaves by coordinate descent.
//!
//! The first two take a [`QuantScheme`](sparq_core::QuantScheme) (bits, granularity, symmetric or not, storage type of scales)
//! and a [`Clip`] (how a scale is found), and give integer codes, scales and zero points
//! ([`Quantized`](sparq_core::Quantized)); the dense weight is derived from those.
//!
//! ```
//! use ndarray::array;
//! use sparq_core::{Bits, LayerCompressor, LayerProblem, QuantScheme};
//! use sparq_quant::Rtn;
//!
//! let weight = array![[0.75_f32, -0.3, 0.1, 0.0]];
//! let problem = LayerProblem::uncalibrated("demo", weight.view())?;
//! let layer = Rtn::new(QuantScheme::new(Bits::B4)).compress(&problem)?;
//! let quantized = layer.quantized().expect("a quantizer gives codes");
//! assert_eq!(quantized.codes, array![[15, 5, 9, 8]]);
//! assert_eq!(quantized.dequantize(), layer.weight);
//! # Ok::<(), sparq_core::CompressError>(())
//! ```
//!
//! # Should I use this crate?
//! To quantize one matrix, yes. To quantize a checkpoint, take `sparq`. A new quantizer is one file here that
//! implements [`Quantizer`](sparq_core::Quantizer).
#![deny(unsafe_code)]

mod fit;
mod gptq;
mod row_step;
mod rtn;
mod size_search;
mod step;

pub use fit::{Clip, GridFinder};
pub use gptq::Gptq;
pub use row_step::RowStep;
pub use rtn::Rtn;
pub use step::Step;
