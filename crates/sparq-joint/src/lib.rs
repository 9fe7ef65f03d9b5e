//! Joint compression: a pruner and a quantizer composed.
//!
//! | pipeline | what happens |
//! |---|---|
//! | [`SequentialA`] | prune, then quantize **all** weights: compensation may move zeros |
//! | [`SequentialB`] | prune, then quantize the **survivors**: the mask is kept |
//! | [`OnePass`] | one column sweep prunes and rounds, and compensates both errors together |
//!
//! Cases A and B are the paper's (arXiv 2505.07289); the one-pass form is the one its authors approximate.
//!
//! ```
//! use ndarray::array;
//! use sparq_core::{Bits, Hessian, LayerCompressor, LayerProblem, QuantScheme, Sparsity};
//! use sparq_joint::OnePass;
//! use sparq_prune::SparseGpt;
//! use sparq_quant::Gptq;
//!
//! let weight = array![[1.0_f32, -0.2, 0.6, 0.1]];
//! let hessian = Hessian::Full { matrix: ndarray::Array2::eye(4), tokens: 8 };
//! let problem = LayerProblem::new("demo", weight.view(), &hessian)?;
//! let joint = OnePass::new(SparseGpt::new(Sparsity::n_of_m(2, 4)?), Gptq::new(QuantScheme::new(Bits::B4)));
//! let layer = joint.compress(&problem)?;
//! assert_eq!(layer.mask.map(|mask| mask.kept()), Some(2));
//! assert!(layer.quantized.is_some());
//! # Ok::<(), sparq_core::CompressError>(())
//! ```
//!
//! # Should I use this crate?
//! To compress one matrix jointly, yes. To compress a checkpoint, take `sparq`.
#![deny(unsafe_code)]

mod one_pass;
mod sequential;

pub use one_pass::OnePass;
pub use sequential::{SequentialA, SequentialB};
