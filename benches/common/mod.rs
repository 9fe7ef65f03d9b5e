//! What the benchmarks share.

use ndarray::Array2;

/// Reproducible values in -1..1 without structure.
pub(crate) fn noise(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16) as i16) / 32_768.0
    })
}
