//! Matrix products and factorizations for sparq, behind one seam.
//!
//! This is the only crate that multiplies or factors large matrices. The kernels come from other crates; what is added
//! here is **determinism**: work is cut into tiles whose borders depend on shapes alone, and each tile is computed by
//! one thread, so every function returns the same bits for any number of rayon threads.
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
//! # The feature `fast`
//! With it, kernels and factorization are those of `faer`. Crates that run models turn it on. Without it, the default
//! of this crate, tiles are products of `ndarray` and the Cholesky factorization is our own, on top of them: only
//! `ndarray`, `rayon` and `thiserror` have to be compiled. On one thread, with AVX-512 and matrices of order 1024,
//! [`gemm`] then takes about 1.2 times as long, [`syrk_lower`] 1.4 times, [`inverse_factor`] 1.7 times, and a product
//! with a single row 6 times. Functions and errors are the same; results differ by the rounding of sums.
//!
//! # Processors with AMX
//! On Linux, products of at least 32 rows with 128 columns and terms use the tile registers of Intel processors that have
//! them (found at run time). `f32` is then multiplied as the sum of two bfloat16 each, in three products summed in `f32`:
//! the error is 4·10⁻⁶ of a product in the mean, where `f32` alone rounds 3·10⁻⁸. Twice to four times as fast.
//!
//! # Contents
//! * [`gemm`], [`gemm_sequential`], [`linear`]: products.
//! * [`linear_bf16`]: the product of a linear layer with both sides rounded to bfloat16, for processors that have it.
//! * [`syrk_lower`], [`syrk_lower_bf16`], [`mirror_lower`], [`add`]: one triangle of `XᵀX`, the Hessian of a linear layer, and sums of them.
//! * [`inverse_factor`]: `U` upper triangular with `H⁻¹ = UᵀU`, the factor that GPTQ and SparseGPT sweep with.
#![deny(unsafe_code)] // one instruction in backend/transition.rs, the kernels of bf16/kernel.rs and amx/tile.rs, with their arguments

mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
mod bf16;
mod error;
mod factor;
mod gemm;
mod syrk;
#[cfg(test)]
mod testing;
mod tiles;

pub use bf16::linear_bf16;
pub use error::{Error, Result};
pub use factor::inverse_factor;
pub use gemm::{gemm, gemm_sequential, linear};
pub use syrk::{add, mirror_lower, syrk_lower, syrk_lower_bf16};
