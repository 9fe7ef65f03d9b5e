//! Matrix products and factorizations for sparq, behind one seam.
//!
//! This is the only crate that multiplies or factors large matrices. The kernels come from `faer`; what is added here
//! is **determinism**: work is cut into tiles whose borders depend on shapes alone, and each tile is computed by one
//! thread, so every function returns the same bits for any number of rayon threads.
//!
//! ```
//! use ndarray::array;
//! let x = array![[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0]]; // [tokens, in]
//! let w = array![[1.0_f32, 0.0], [0.5, 0.5]];             // [out, in]
//! assert_eq!(sparq_linalg::linear(x.view(), w.view()), array![[1.0, 1.5], [3.0, 3.5], [5.0, 5.5]]);
//! ```
//!
//! # Should I use this crate?
//! For compressing a model, no: use `sparq`. It is useful alone where reproducible `f32` products over `ndarray` views
//! are wanted.
//!
//! # Contents
//! * [`gemm`], [`gemm_sequential`], [`linear`]: products.
//! * [`linear_bf16`]: the product of a linear layer with both sides rounded to bfloat16, for processors that have it.
//! * [`syrk_lower`], [`mirror_lower`]: one triangle of `XᵀX`, the Hessian of a linear layer.
//! * [`inverse_factor`]: `U` upper triangular with `H⁻¹ = UᵀU`, the factor that GPTQ and SparseGPT sweep with.
#![deny(unsafe_code)] // one instruction in transition.rs and the kernel of bf16/kernel.rs, with their arguments

mod bf16;
mod error;
mod factor;
mod gemm;
mod syrk;
#[cfg(test)]
mod testing;
mod transition;

pub use bf16::linear_bf16;
pub use error::{Error, Result};
pub use factor::inverse_factor;
pub use gemm::{gemm, gemm_sequential, linear};
pub use syrk::{mirror_lower, syrk_lower};
