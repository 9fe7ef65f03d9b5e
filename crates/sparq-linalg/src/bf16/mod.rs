//! Products of matrices rounded to bfloat16.

mod kernel;
mod pack;

use crate::amx::{self, Work};
use crate::tiles::{Part, cut};
use kernel::{COLUMNS, Kernel, Panel, ROWS, Tile};
use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
pub(crate) use pack::rounded;
use pack::{DEPTH, PAIRS, Row, pack};
use rayon::prelude::*;

/// Rows of `y` that one task computes: packing a panel of weights costs a few per cent of using it.
const TASK_ROWS: usize = 512;
/// Columns of `y` that one task computes.
const TASK_COLUMNS: usize = 20 * COLUMNS;

/// `y = x · wᵀ + beta · y` with `x`, `[tokens, in]`, and `w`, `[out, in]`, rounded to bfloat16 (to nearest even) and
/// their products summed in `f32`; `y` is `[tokens, out]`.
///
/// About half as fast again as [`gemm`](crate::gemm) where the processor multiplies bfloat16 (AVX512-BF16, asked at run
/// time), and by a sixth where it has AMX, which `gemm` uses too; elsewhere the rounded matrices go through `gemm`, at its speed and with a copy of both. The two ways agree up
/// to the rounding of sums in `f32` (subnormal numbers count as zero on the first). Same bits for any number of threads
/// of one machine. With `beta == 0.0`, `y` is written without being read.
///
/// # Panics
/// In debug builds if the shapes do not fit; callers check shapes where data enters.
///
/// # Examples
/// ```
/// use ndarray::{array, Array2};
/// let mut y = Array2::zeros((1, 1));
/// // 1.001 has no bfloat16; the nearest is 1.
/// sparq_linalg::linear_bf16(array![[1.001_f32, 2.0]].view(), array![[3.0_f32, 4.0]].view(), 0.0, y.view_mut());
/// assert_eq!(y, array![[11.0]]);
/// ```
pub fn linear_bf16(x: ArrayView2<'_, f32>, w: ArrayView2<'_, f32>, beta: f32, mut y: ArrayViewMut2<'_, f32>) {
    debug_assert_eq!(x.ncols(), w.ncols(), "inputs of x {:?} and w {:?}", x.dim(), w.dim());
    debug_assert_eq!((x.nrows(), w.nrows()), y.dim(), "shape of y for x {:?} and w {:?}", x.dim(), w.dim());
    if amx::product::<1>((1.0, beta), x, w.t(), y.view_mut(), Part::Whole, Work::Shared) {
        return;
    }
    let Some(kernel) = Kernel::detect() else {
        return crate::gemm(1.0, x.mapv(rounded).view(), w.mapv(rounded).t(), beta, y);
    };
    if beta != 0.0 && beta != 1.0 {
        y.mapv_inplace(|value| value * beta);
    }
    if x.ncols() == 0 && beta == 0.0 {
        y.fill(0.0);
    }
    let tasks = cut(y, (TASK_ROWS, TASK_COLUMNS), Part::Whole);
    tasks.into_par_iter().for_each_init(Buffers::default, |buffers, (row, column, y)| {
        let (x, w) = (x.slice(s![row..row + y.nrows(), ..]), w.slice(s![column..column + y.ncols(), ..]));
        multiply(kernel, buffers, x, w, beta != 0.0, y);
    });
}

/// What a task works with.
struct Buffers {
    inputs: Vec<Row>,
    weights: Vec<Row>,
    panel: Box<Panel>,
    tile: Tile,
}

impl Default for Buffers {
    #[allow(clippy::large_stack_arrays, reason = "48 KiB, on their way to the heap")]
    fn default() -> Self {
        let panel = Box::new([[0; COLUMNS]; PAIRS]);
        Self { inputs: Vec::new(), weights: Vec::new(), panel, tile: Tile::default() }
    }
}

/// `x · wᵀ`, put in the place of `y` or added to it.
fn multiply(
    kernel: Kernel,
    buffers: &mut Buffers,
    x: ArrayView2<'_, f32>,
    w: ArrayView2<'_, f32>,
    mut accumulate: bool,
    mut y: ArrayViewMut2<'_, f32>,
) {
    let Buffers { inputs, weights, panel, tile } = buffers;
    for (x, w) in x.axis_chunks_iter(Axis(1), DEPTH).zip(w.axis_chunks_iter(Axis(1), DEPTH)) {
        let pairs = x.ncols().div_ceil(2);
        pack(kernel, x, ROWS, inputs);
        for (w, mut y) in w.axis_chunks_iter(Axis(0), COLUMNS).zip(y.axis_chunks_iter_mut(Axis(1), COLUMNS)) {
            pack(kernel, w, COLUMNS, weights);
            for weights in weights.as_chunks().0 {
                kernel.transpose(weights, panel);
            }
            for (inputs, y) in inputs.as_chunks().0.iter().zip(y.axis_chunks_iter_mut(Axis(0), ROWS)) {
                kernel.multiply(inputs, panel, pairs, tile);
                put(kernel, tile, accumulate, y);
            }
        }
        accumulate = true;
    }
}

fn put(kernel: Kernel, tile: &Tile, accumulate: bool, mut y: ArrayViewMut2<'_, f32>) {
    kernel.run(
        #[inline(always)]
        || {
            for (mut y, sums) in y.rows_mut().into_iter().zip(&tile.0) {
                match y.as_slice_mut().map(<&mut [f32; COLUMNS]>::try_from) {
                    Some(Ok(y)) if accumulate => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
                    Some(Ok(y)) => *y = *sums,
                    _ if accumulate => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
                    _ => y.iter_mut().zip(sums).for_each(|(y, sum)| *y = *sum),
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, on_any_threads, random};
    use ndarray::Array2;
    use proptest::prelude::*;

    /// What the function promises, in `f64`.
    fn oracle(x: ArrayView2<'_, f32>, w: ArrayView2<'_, f32>) -> Array2<f32> {
        let (x, w) = (x.mapv(|v| f64::from(rounded(v))), w.mapv(|v| f64::from(rounded(v))));
        x.dot(&w.t()).mapv(|v| v as f32)
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_loop_on_any_view(m in 1_usize..40, k in 1_usize..40, n in 1_usize..120, seed in 0_u64..1000) {
            let x = random(2 * m, k, seed);
            let w = random(n, k + 3, seed + 1);
            let (x, w) = (x.slice(s![..;2, ..]), w.slice(s![.., 3..]));
            let mut y = random(n, m, seed + 2);
            let expected = oracle(x, w) + &y.t() * 2.0;
            linear_bf16(x, w, 2.0, y.view_mut().reversed_axes());
            assert_close(&y.reversed_axes(), &expected, k);
        }
    }

    #[test]
    fn blocks_and_tasks_fit_together_for_any_number_of_threads() {
        for (m, k, n) in [(TASK_ROWS + 9, 2 * DEPTH + 3, 70), (9, 64, 2 * TASK_COLUMNS + 5), (1, 1, 1), (5, 0, 3)] {
            let (x, w) = (random(m, k, 1), random(n, k, 2));
            let product = on_any_threads(|| {
                let mut y = Array2::from_elem((m, n), f32::NAN);
                linear_bf16(x.view(), w.view(), 0.0, y.view_mut());
                y
            });
            assert_close(&product, &oracle(x.view(), w.view()), k);
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let mut x = random(3, 70, 1);
        (x[[0, 3]], x[[1, 69]]) = (f32::NAN, f32::INFINITY);
        let mut y = Array2::zeros((3, 50));
        linear_bf16(x.view(), random(50, 70, 2).view(), 0.0, y.view_mut());
        assert!(y.row(0).iter().all(|value| value.is_nan()));
        assert!(y.row(1).iter().all(|value| value.is_infinite()));
        assert!(y.row(2).iter().all(|value| value.is_finite()));
    }
}
