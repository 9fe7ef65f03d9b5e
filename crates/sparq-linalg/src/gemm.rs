use crate::amx::{self, Work};
use crate::backend;
use crate::tiles::{Part, cut};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// Rows of `c` that one task computes. Large enough that packing `b` once per task costs a few percent,
/// small enough that 512 tokens keep two threads busy.
const TILE_ROWS: usize = 256;
/// Columns of `c` that one task computes when `c` has many rows; a multiple of the kernel's 96.
const TILE_COLUMNS: usize = 1152;
/// Columns of `c` that one task computes when `c` has few rows (decoding one token at a time is bound by reading `b`).
const TILE_COLUMNS_FEW_ROWS: usize = 128;
/// Below this many rows a product counts as having few.
pub(crate) const FEW_ROWS: usize = 32;
/// Products with fewer multiply-adds than this are not worth a task of their own.
const SEQUENTIAL_BELOW: usize = 1 << 18;

/// `c = alpha · a · b + beta · c` for `a` of shape `[m, k]`, `b` of shape `[k, n]` and `c` of shape `[m, n]`, any strides.
///
/// Runs on the current rayon pool over fixed tiles of `c`: the result has the same bits for any number of threads, and rows
/// from a multiple of 256 on have the same bits without those before and behind them (those to the end only if they are at
/// least 32). With `beta == 0.0`, `c` is written without being read.
///
/// # Panics
/// In debug builds if the shapes do not fit; callers check shapes where data enters.
///
/// # Examples
/// ```
/// use ndarray::{array, Array2};
/// let (a, b) = (array![[1.0_f32, 2.0]], array![[3.0_f32], [4.0]]);
/// let mut c = Array2::ones((1, 1));
/// sparq_linalg::gemm(1.0, a.view(), b.view(), 10.0, c.view_mut());
/// assert_eq!(c, array![[21.0]]);
/// ```
pub fn gemm(alpha: f32, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, beta: f32, mut c: ArrayViewMut2<'_, f32>) {
    let (m, k) = a.dim();
    let n = b.ncols();
    debug_assert_eq!(k, b.nrows(), "inner dimensions of a {:?} and b {:?}", a.dim(), b.dim());
    debug_assert_eq!((m, n), c.dim(), "shape of c for a {:?} and b {:?}", a.dim(), b.dim());
    if amx::product::<2>((alpha, beta), a, b, c.view_mut(), Part::Whole, Work::Shared) {
        return;
    }
    let tile_columns = if m < FEW_ROWS { TILE_COLUMNS_FEW_ROWS } else { TILE_COLUMNS };
    let tiles = cut(c, (TILE_ROWS, tile_columns), Part::Whole);
    let work = |(row, column, c): (usize, usize, ArrayViewMut2<'_, f32>)| {
        let (a, b) = (a.slice(s![row..row + c.nrows(), ..]), b.slice(s![.., column..column + c.ncols()]));
        tile(alpha, a, b, beta, c);
    };
    if m.saturating_mul(n).saturating_mul(k) < SEQUENTIAL_BELOW {
        tiles.into_iter().for_each(work);
    } else {
        tiles.into_par_iter().for_each(work);
    }
}

/// As [`gemm`], on the calling thread only: for use inside tasks that are already parallel.
///
/// # Panics
/// In debug builds if the shapes do not fit.
///
/// # Examples
/// ```
/// use ndarray::{array, Array2};
/// let (a, b) = (array![[1.0_f32, 2.0]], array![[3.0_f32], [4.0]]);
/// let mut c = Array2::zeros((1, 1));
/// sparq_linalg::gemm_sequential(2.0, a.view(), b.view(), 0.0, c.view_mut());
/// assert_eq!(c, array![[22.0]]);
/// ```
pub fn gemm_sequential(
    alpha: f32,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    beta: f32,
    mut c: ArrayViewMut2<'_, f32>,
) {
    debug_assert_eq!(a.ncols(), b.nrows(), "inner dimensions of a {:?} and b {:?}", a.dim(), b.dim());
    debug_assert_eq!((a.nrows(), b.ncols()), c.dim(), "shape of c for a {:?} and b {:?}", a.dim(), b.dim());
    if !amx::product::<2>((alpha, beta), a, b, c.view_mut(), Part::Whole, Work::Alone) {
        tile(alpha, a, b, beta, c);
    }
}

/// [`gemm`] on the calling thread, by the kernels of the backend.
fn tile(alpha: f32, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, beta: f32, mut c: ArrayViewMut2<'_, f32>) {
    if beta != 0.0 && beta != 1.0 {
        c.mapv_inplace(|value| value * beta);
    }
    backend::product(alpha, a, b, beta != 0.0, c);
}

/// `x · wᵀ`: a linear layer without bias, for `x` of shape `[tokens, in]` and `w` of shape `[out, in]`; the result is
/// `[tokens, out]`.
///
/// Same bits for any number of threads.
///
/// # Panics
/// In debug builds if the inner dimensions differ.
///
/// # Examples
/// ```
/// use ndarray::array;
/// let y = sparq_linalg::linear(array![[1.0_f32, 2.0]].view(), array![[3.0_f32, 4.0]].view());
/// assert_eq!(y, array![[11.0]]);
/// ```
pub fn linear(x: ArrayView2<'_, f32>, w: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut y = Array2::zeros((x.nrows(), w.nrows()));
    gemm(1.0, x, w.t(), 0.0, y.view_mut());
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, on_any_threads, random};
    use proptest::prelude::*;

    fn naive(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> Array2<f32> {
        Array2::from_shape_fn((a.nrows(), b.ncols()), |(i, j)| {
            (0..a.ncols()).map(|k| f64::from(a[[i, k]]) * f64::from(b[[k, j]])).sum::<f64>() as f32
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_loop_on_any_view(m in 1_usize..40, k in 1_usize..40, n in 1_usize..40, seed in 0_u64..1000) {
            let a = random(2 * m, k, seed);
            let bt = random(n, k + 3, seed + 1);
            let a = a.slice(s![..;2, ..]);
            let b = bt.slice(s![.., 3..]);
            let b = b.t();
            let mut c = random(m, n, seed + 2);
            let expected = naive(a, b) * 0.5 + &c * 2.0;
            gemm(0.5, a, b, 2.0, c.view_mut());
            assert_close(&c, &expected, k);
        }
    }

    #[test]
    fn tiled_products_agree_and_do_not_depend_on_threads() {
        for (m, k, n) in [(300, 65, 1100), (5, 300, 1500), (1, 512, 700)] {
            let (a, w) = (random(m, k, 1), random(n, k, 2));
            assert_close(&on_any_threads(|| linear(a.view(), w.view())), &naive(a.view(), w.t()), k);
        }
    }

    #[test]
    fn zero_beta_overwrites_nan() {
        let (a, b) = (random(3, 4, 1), random(4, 5, 2));
        let mut c = Array2::from_elem((3, 5), f32::NAN);
        gemm(1.0, a.view(), b.view(), 0.0, c.view_mut());
        assert!(c.iter().all(|value| value.is_finite()));
    }
}
