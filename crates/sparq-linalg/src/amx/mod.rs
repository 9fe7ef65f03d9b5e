//! Products on the tile registers of Intel's AMX, which multiply bfloat16 and sum in `f32` at ten times the rate of `f32` in
//! vector registers.
//!
//! A matrix of `f32` is multiplied as the sum of two of bfloat16, its values rounded and what rounding left: `a · b` becomes
//! `a₁b₁ + a₁b₂ + a₂b₁`. What is left out and the rounding of `a₂` and `b₂` come to 4·10⁻⁶ of a product in the mean and
//! 1.5·10⁻⁵ of one of the three at most. Infinities may become not-a-number, subnormal numbers are zero.
//!
//! # References
//! Henry, Tang & Heinecke 2019, arXiv:1904.06376.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod pack;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tile;

use crate::tiles::Part;
use ndarray::{ArrayView2, ArrayViewMut2};

/// Terms and columns from which on a product gains from tile registers.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
const LARGE: usize = 128;

/// Who computes a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The calling thread.
    Alone,
    /// The current rayon pool.
    Shared,
}

/// `c = alpha · a · b + beta · c`, with `a` and `b` as the sum of `PARTS` (1 or 2) matrices of bfloat16. With `beta == 0.0`,
/// `c` is written without being read. Every entry has the same bits wherever the borders of `c` are, for any number of
/// threads.
///
/// False, and nothing is done, if this process has no tile registers or the product is too small to gain from them, which
/// does not depend on the number of rows from [`FEW_ROWS`] on.
pub(crate) fn product<const PARTS: usize>(
    (alpha, beta): (f32, f32),
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    c: ArrayViewMut2<'_, f32>,
    part: Part,
    work: Work,
) -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let is_large = a.nrows() >= crate::gemm::FEW_ROWS && b.ncols().min(a.ncols()) >= LARGE;
        if let Some(tiles) = tile::Tiles::detect().filter(|_| is_large) {
            large::product::<PARTS>(tiles, (alpha, beta), [a, b], c, part, work);
            return true;
        }
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let _ = (alpha, beta, a, b, c, part, work);
    false
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod large {
    use super::pack::{Order, Square, TERMS, pack, squares};
    use super::tile::{SIDE, Sums, Tiles};
    use super::{Part, Work};
    use crate::tiles::cut;
    use ndarray::{ArrayView2, ArrayViewMut2, Axis};
    use rayon::prelude::*;
    use std::cell::RefCell;

    /// Terms that are summed up before the result is touched.
    const DEPTH: usize = 1024;
    /// Lines that one task packs.
    const LINES: usize = 8 * SIDE;
    /// Rows and columns that one task computes: what of the left side they need stays in the second-level cache.
    const ROWS: usize = 4 * SIDE;
    const COLUMNS: usize = 16 * SIDE;

    thread_local! {
        /// Both sides as tile registers take them; here while no product uses them.
        static PACKED: RefCell<[Vec<Square>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
    }

    pub(super) fn product<const PARTS: usize>(
        tiles: Tiles,
        (alpha, mut beta): (f32, f32),
        [a, b]: [ArrayView2<'_, f32>; 2],
        mut c: ArrayViewMut2<'_, f32>,
        part: Part,
        work: Work,
    ) {
        let mut packed = PACKED.take();
        for (a, b) in a.axis_chunks_iter(Axis(1), DEPTH).zip(b.axis_chunks_iter(Axis(0), DEPTH)) {
            let block = 2 * PARTS * a.ncols().div_ceil(TERMS);
            let sides = [(a, Order::Lines), (b.reversed_axes(), Order::Pairs)];
            for ((matrix, order), packed) in sides.into_iter().zip(&mut packed) {
                packed.resize(squares(matrix.nrows(), matrix.ncols(), PARTS), Square::ZERO);
                let pieces = matrix.axis_chunks_iter(Axis(0), LINES).zip(packed.chunks_mut(LINES / SIDE * block));
                work.on(pieces.collect(), |(matrix, packed)| pack::<PARTS>(tiles, matrix, order, packed));
            }
            let [left, right] = &packed;
            work.on(cut(c.view_mut(), (ROWS, COLUMNS), part), |(row, column, mut c)| {
                let mut sums = Sums::default();
                let panels = right[column / SIDE * block..].chunks_exact(block);
                for (column, (right, mut c)) in
                    (column..).step_by(SIDE).zip(panels.zip(c.axis_chunks_iter_mut(Axis(1), SIDE)))
                {
                    let blocks = left[row / SIDE * block..].chunks_exact(block);
                    for (row, (left, c)) in (row..).step_by(SIDE).zip(blocks.zip(c.axis_chunks_iter_mut(Axis(0), SIDE)))
                    {
                        if part == Part::Whole || row >= column {
                            tiles.multiply::<PARTS>(left, right, &mut sums);
                            let is_cut = part == Part::Lower && row == column;
                            store(tiles, (alpha, beta), &sums, is_cut, c);
                        }
                    }
                }
            });
            beta = 1.0;
        }
        PACKED.set(packed);
    }

    impl Work {
        fn on<T: Send>(self, pieces: Vec<T>, task: impl Fn(T) + Sync + Send) {
            match self {
                Self::Alone => pieces.into_iter().for_each(task),
                Self::Shared => pieces.into_par_iter().for_each(task),
            }
        }
    }

    /// `c = alpha · sums + beta · c`; if the square is cut, from its diagonal down.
    fn store(tiles: Tiles, (alpha, beta): (f32, f32), sums: &Sums, is_cut: bool, mut c: ArrayViewMut2<'_, f32>) {
        tiles.run(
            #[inline(always)]
            || {
                for (row, (mut c, sums)) in c.axis_iter_mut(Axis(0)).zip(&sums.0).enumerate() {
                    let value = |sum: f32, c: f32| if beta == 0.0 { alpha * sum } else { alpha * sum + beta * c };
                    match c.as_slice_mut().map(<&mut [f32; SIDE]>::try_from) {
                        Some(Ok(c)) if !is_cut => {
                            // A copy, which nothing else can refer to, stays in registers.
                            let mut values = *c;
                            values.iter_mut().zip(sums).for_each(|(c, &sum)| *c = value(sum, *c));
                            *c = values;
                        }
                        _ => {
                            let count = if is_cut { row + 1 } else { SIDE };
                            c.iter_mut().zip(sums).take(count).for_each(|(c, &sum)| *c = value(sum, *c));
                        }
                    }
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_any_threads, random};
    use ndarray::{Array2, s};
    use std::ops::Range;

    /// `0.5 · a · b + beta · c`; none without tile registers.
    fn run<const PARTS: usize>(
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
        beta: f32,
        mut c: Array2<f32>,
        part: Part,
        work: Work,
    ) -> Option<Array2<f32>> {
        product::<PARTS>((0.5, beta), a, b, c.view_mut(), part, work).then_some(c)
    }

    #[test]
    fn entries_have_the_same_bits_wherever_borders_are_and_whoever_computes() {
        let (a, b) = (random(300, 1100, 1), random(650, 1100, 2));
        let cut = |rows: Range<usize>, columns: Range<usize>, work| {
            let c = Array2::from_elem((rows.len(), columns.len()), f32::NAN);
            run::<2>(a.slice(s![rows, ..]), b.slice(s![columns, ..]).t(), 0.0, c, Part::Whole, work)
        };
        let Some(whole) = on_any_threads(|| cut(0..300, 0..650, Work::Shared)) else { return };
        for (rows, columns) in [(0..300, 0..650), (37..199, 5..640), (268..300, 522..650)] {
            let expected = whole.slice(s![rows.clone(), columns.clone()]);
            assert_eq!(cut(rows, columns, Work::Alone), Some(expected.to_owned()));
        }
        assert_eq!(cut(0..31, 0..650, Work::Alone), None, "few rows are left to others");
    }

    #[test]
    fn two_parts_are_near_f32_and_one_is_bfloat16() {
        for (m, k, n) in [(32, 128, 128), (70, 1500, 197), (129, 200, 513)] {
            let (a, b, c) = (random(m, k, 1), random(k, n, 2), random(m, n, 3));
            for beta in [0.0, 1.0, -0.25] {
                let run = [
                    (run::<1>(a.view(), b.view(), beta, c.clone(), Part::Whole, Work::Alone), 1.0 / 128.0),
                    (run::<2>(a.view(), b.view(), beta, c.clone(), Part::Whole, Work::Alone), 1.5e-5),
                ];
                let exact = |(i, j)| {
                    let terms = a.row(i).into_iter().zip(b.column(j)).map(|(&a, &b)| 0.5 * f64::from(a) * f64::from(b));
                    (terms.clone().sum::<f64>() + f64::from(beta * c[[i, j]]), terms.map(f64::abs).sum::<f64>())
                };
                for (product, bound) in run {
                    let Some(product) = product else { return };
                    for (at, &value) in product.indexed_iter() {
                        let (expected, size) = exact(at);
                        assert!((f64::from(value) - expected).abs() <= bound * size, "{at:?}: {value} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn above_the_diagonal_nothing_is_read_or_written() {
        let x = random(190, 300, 1);
        let marked = Array2::from_elem((300, 300), 7.0);
        let run = |part| run::<2>(x.t(), x.view(), 1.0, marked.clone(), part, Work::Shared);
        let (Some(whole), Some(lower)) = (run(Part::Whole), run(Part::Lower)) else { return };
        for ((i, j), &value) in lower.indexed_iter() {
            assert_eq!(value.to_bits(), if j > i { 7.0_f32 } else { whole[[i, j]] }.to_bits(), "{i}, {j}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let (mut a, b) = (random(40, 128, 1), random(128, 140, 2));
        (a[[0, 3]], a[[1, 5]]) = (f32::NAN, f32::INFINITY);
        let Some(c) = run::<2>(a.view(), b.view(), 0.0, Array2::zeros((40, 140)), Part::Whole, Work::Alone) else {
            return;
        };
        // An infinity meets both parts of a value, which may differ in sign.
        assert!(c.slice(s![..2, ..]).iter().all(|value| !value.is_finite()));
        assert!(c.slice(s![2.., ..]).iter().all(|value| value.is_finite()));
    }
}
