use crate::amx::{self, Work};
use crate::backend;
use crate::bf16::rounded;
use crate::tiles::{Part, cut};
use ndarray::{ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// Side of the square tiles of `H` that one task computes: multiples of the kernel's 96, smaller where few tiles would
/// leave a thread without work (measured from 576 to 4864 on two cores).
fn tile(n: usize) -> usize {
    if n < 768 { 192 } else { 288 }
}

/// Adds `alpha · XᵀX` to the **lower triangle** of `h`, for `x` of shape `[tokens, n]` and `h` of shape `[n, n]`.
///
/// What stands above the diagonal of `h` is neither read nor written. Tasks own tiles of `h` and never share tokens,
/// so the result has the same bits for any number of threads.
///
/// # Panics
/// In debug builds if the shapes do not fit.
///
/// # Examples
/// ```
/// use ndarray::{array, Array2};
/// let x = array![[1.0_f32, 2.0], [3.0, 4.0]];
/// let mut h = Array2::zeros((2, 2));
/// sparq_linalg::syrk_lower(1.0, x.view(), h.view_mut());
/// assert_eq!(h, array![[10.0, 0.0], [14.0, 20.0]]);
/// ```
pub fn syrk_lower(alpha: f32, x: ArrayView2<'_, f32>, mut h: ArrayViewMut2<'_, f32>) {
    if !on_tile_registers::<2>(alpha, x, h.view_mut()) {
        in_vectors(alpha, x, h);
    }
}

/// [`syrk_lower`] with `x` rounded to bfloat16 (to nearest even) and products summed in `f32`. Where the processor has AMX, this is
/// one product of bfloat16 instead of three. Elsewhere the rounded matrix, a copy, is multiplied as `f32`. The two ways agree up to
/// the rounding of sums.
///
/// # Panics
/// In debug builds if the shapes do not fit.
///
/// # Examples
/// ```
/// use ndarray::{array, Array2};
/// // 1.001 has no bfloat16; the nearest is 1.
/// let x = array![[1.001_f32], [3.0]];
/// let mut h = Array2::zeros((1, 1));
/// sparq_linalg::syrk_lower_bf16(1.0, x.view(), h.view_mut());
/// assert_eq!(h, array![[10.0]]);
/// ```
pub fn syrk_lower_bf16(alpha: f32, x: ArrayView2<'_, f32>, mut h: ArrayViewMut2<'_, f32>) {
    if !on_tile_registers::<1>(alpha, x, h.view_mut()) {
        in_vectors(alpha, x.mapv(rounded).view(), h);
    }
}

/// False, and nothing is done, without such registers.
fn on_tile_registers<const PARTS: usize>(alpha: f32, x: ArrayView2<'_, f32>, h: ArrayViewMut2<'_, f32>) -> bool {
    debug_assert_eq!((x.ncols(), x.ncols()), h.dim(), "h must be square of the order of x's columns");
    amx::product::<PARTS>((alpha, 1.0), x.reversed_axes(), x, h, Part::Lower, Work::Shared)
}

fn in_vectors(alpha: f32, x: ArrayView2<'_, f32>, h: ArrayViewMut2<'_, f32>) {
    let n = x.ncols();
    cut(h, (tile(n), tile(n)), Part::Lower).into_par_iter().for_each(|(row, column, tile)| {
        let left = x.slice(s![.., row..row + tile.nrows()]).reversed_axes();
        let right = x.slice(s![.., column..column + tile.ncols()]);
        if row == column {
            backend::product_lower(alpha, left, right, tile);
        } else {
            backend::product(alpha, left, right, true, tile);
        }
    });
}

/// Copies the lower triangle of the square matrix `h` onto its upper triangle.
///
/// # Examples
/// ```
/// use ndarray::array;
/// let mut h = array![[1.0_f32, 9.0], [2.0, 3.0]];
/// sparq_linalg::mirror_lower(h.view_mut());
/// assert_eq!(h, array![[1.0, 2.0], [2.0, 3.0]]);
/// ```
pub fn mirror_lower(mut h: ArrayViewMut2<'_, f32>) {
    for row in 0..h.nrows() {
        for column in 0..row.min(h.ncols()) {
            h[[column, row]] = h[[row, column]];
        }
    }
}

/// Adds `later` to `sum`, element by element.
///
/// # Panics
/// If the shapes differ.
///
/// # Examples
/// ```
/// use ndarray::array;
/// let mut sum = array![[1.0_f32, 2.0]];
/// sparq_linalg::add(sum.view_mut(), array![[0.5, 0.25]].view());
/// assert_eq!(sum, array![[1.5, 2.25]]);
/// ```
pub fn add(sum: ArrayViewMut2<'_, f32>, later: ArrayView2<'_, f32>) {
    ndarray::Zip::from(sum).and(later).par_for_each(|sum, later| *sum += later);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_any_threads, random};
    use ndarray::Array2;

    /// Checks `0.5 + 2 · xᵀx` below the diagonal, and that nothing is written above it.
    fn check(
        syrk: impl Fn(f32, ArrayView2<'_, f32>, ArrayViewMut2<'_, f32>) + Sync,
        x: &Array2<f32>,
        of: &Array2<f32>,
    ) {
        let n = x.ncols();
        let lower = on_any_threads(|| {
            let mut h = Array2::from_elem((n, n), 0.5_f32);
            syrk(2.0, x.view(), h.view_mut());
            h
        });
        let full = of.t().dot(of);
        for ((i, j), value) in lower.indexed_iter() {
            let expected = if j <= i { 0.5 + 2.0 * full[[i, j]] } else { 0.5 };
            assert!((value - expected).abs() <= 1e-4, "{i},{j}: {value} {expected}");
        }
    }

    #[test]
    fn in_bfloat16_it_is_that_of_the_rounded_inputs() {
        for (tokens, n) in [(7, 3), (150, 300)] {
            let x = random(tokens, n, 5);
            check(syrk_lower_bf16, &x, &x.mapv(rounded));
        }
    }

    #[test]
    fn lower_triangle_agrees_with_the_product_for_any_thread_count() {
        for (tokens, n) in [(7, 3), (50, 300), (33, 520), (20, 800)] {
            let x = random(tokens, n, 3);
            check(syrk_lower, &x, &x);
        }
    }
}
