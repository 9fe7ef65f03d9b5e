//! Matrices for the tests of this crate.

use crate::{Curvature, Hessian};
use ndarray::Array2;

/// Values from -1 to 1.
pub(crate) fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    Array2::from_shape_fn((rows, columns), |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    })
}

/// `XᵀX` of inputs that share a few directions, as activations do.
pub(crate) fn correlated_hessian(width: usize, seed: u64) -> Hessian {
    let inputs = random(4 * width, width.min(5), seed).dot(&random(width.min(5), width, seed + 1))
        + 0.3 * random(4 * width, width, seed + 2);
    Curvature::of_inputs(inputs.view()).expect("small").into_hessian()
}
