//! Products on the tile registers of Intel's AMX, which multiply bfloat16 and sum in `f32` at ten times the rate of `f32` in
//! vector registers.
//!
//! A matrix of `f32` is multiplied as the sum of two of bfloat16, its values rounded and what rounding left: `a · b` becomes
//! `a₁b₁ + a₁b₂ + a₂b₁`. What is left out and the rounding of `a₂` and `b₂` come to some 2·10⁻⁶ of a product.
//!
//! # References
//! Henry, Tang & Heinecke 2019, arXiv:1904.06376.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod pack;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tile;

use ndarray::{ArrayView2, ArrayViewMut2};

/// Which entries of a result are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All.
    Whole,
    /// Those on and below the diagonal; the others are neither read nor written.
    Lower,
}

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
/// does not depend on the number of rows from [`FEW_ROWS`](crate::gemm::FEW_ROWS) on.
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
        let is_large = a.nrows() >= crate::gemm::FEW_ROWS && b.ncols() >= tile::SIDE && a.ncols() >= 2 * pack::TERMS;
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
    use ndarray::{ArrayView2, ArrayViewMut2, Axis};
    use rayon::prelude::*;
    use std::cell::RefCell;

    /// Terms that are summed up before the result is touched.
    const DEPTH: usize = 512;
    /// Lines that one task packs.
    const LINES: usize = 8 * SIDE;
    /// Rows and columns that one task computes: what of the left side they need stays in the second-level cache.
    const ROWS: usize = 8 * SIDE;
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
            work.on(pieces_of(c.view_mut(), part), |((row, column), mut c)| {
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
                            put(tiles, (alpha, beta), &sums, is_cut, c);
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

    /// A part of a result, with its first row and column.
    type Piece<'a> = ((usize, usize), ArrayViewMut2<'a, f32>);

    /// What one task each computes.
    fn pieces_of(c: ArrayViewMut2<'_, f32>, part: Part) -> Vec<Piece<'_>> {
        let (rows, columns) = c.dim();
        let (mut pieces, mut below) = (Vec::new(), c);
        for row in (0..rows).step_by(ROWS) {
            let end = rows.min(row + ROWS);
            let (mut right, rest) = below.split_at(Axis(0), end - row);
            below = rest;
            let columns = if part == Part::Lower { columns.min(end) } else { columns };
            for column in (0..columns).step_by(COLUMNS) {
                let width = COLUMNS.min(right.ncols());
                let (piece, rest) = right.split_at(Axis(1), width);
                right = rest;
                pieces.push(((row, column), piece));
            }
        }
        pieces
    }

    /// `c = alpha · sums + beta · c`; if the square is cut, from its diagonal down.
    fn put(tiles: Tiles, (alpha, beta): (f32, f32), sums: &Sums, is_cut: bool, mut c: ArrayViewMut2<'_, f32>) {
        tiles.run(
            #[inline(always)]
            || {
                for (row, (mut c, sums)) in c.axis_iter_mut(Axis(0)).zip(&sums.0).enumerate() {
                    let sums = if is_cut { &sums[..=row] } else { &sums[..] };
                    match (c.as_slice_mut(), beta == 0.0) {
                        (Some(c), true) => c.iter_mut().zip(sums).for_each(|(c, sum)| *c = alpha * sum),
                        (Some(c), false) => c.iter_mut().zip(sums).for_each(|(c, sum)| *c = alpha * sum + beta * *c),
                        (None, true) => c.iter_mut().zip(sums).for_each(|(c, sum)| *c = alpha * sum),
                        (None, false) => c.iter_mut().zip(sums).for_each(|(c, sum)| *c = alpha * sum + beta * *c),
                    }
                }
            },
        );
    }
}
