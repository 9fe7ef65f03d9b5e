//! Matrices as tile registers take them.

use super::tile::Tiles;
use crate::avx512::LANES;
use ndarray::{ArrayView2, Axis};

/// Rows or columns of a matrix that go into one register.
pub(super) const LINES: usize = LANES;
/// Terms of a sum that go into one register, in pairs.
pub(super) const TERMS: usize = 2 * LANES;

/// What one register takes: pairs of bfloat16, the first of a pair in the lower half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Square(pub(super) [[u32; LANES]; LANES]);

impl Square {
    pub(super) const ZERO: Self = Self([[0; LANES]; LANES]);
}

/// What the rows of a square are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Lines of the matrix: for the left side of a product.
    Lines,
    /// Pairs of terms: for the right side.
    Pairs,
}

/// Squares that `parts` of `lines` with so many `terms` take.
pub(super) fn squares(lines: usize, terms: usize, parts: usize) -> usize {
    2 * lines.div_ceil(2 * LINES) * terms.div_ceil(TERMS) * parts
}

/// Splits `matrix`, `[lines, terms]`, into `PARTS` of bfloat16. Squares of two times 16 lines follow each other as the
/// products need them: for each 32 terms of them, first those of the first part. Zeros fill up both sides; there are
/// [`squares`] of them.
pub(super) fn pack<const PARTS: usize>(tiles: Tiles, matrix: ArrayView2<'_, f32>, order: Order, packed: &mut [Square]) {
    let (lines, terms) = matrix.dim();
    let (groups, steps) = (lines.div_ceil(2 * LINES) * 2, terms.div_ceil(TERMS));
    let place = |group: usize, step: usize| ((group / 2 * steps + step) * PARTS) * 2 + group % 2;
    let mut parts = [Square::ZERO; PARTS];
    let mut store = |parts: &[Square; PARTS], is_transposed, place: usize| {
        for (part, square) in parts.iter().enumerate() {
            let to = &mut packed[place + 2 * part];
            if is_transposed { tiles.transpose(square, to) } else { *to = *square }
        }
    };
    if matrix.strides()[0] == 1 && matrix.strides()[1] != 1 {
        for step in 0..steps {
            let rows = slices(matrix.t(), step * TERMS);
            for group in 0..groups {
                tiles.split_terms(&rows, group * LINES, &mut parts);
                store(&parts, order == Order::Lines, place(group, step));
            }
        }
        return;
    }
    let matrix = if matrix.strides()[1] == 1 { matrix.into() } else { matrix.as_standard_layout() };
    for group in 0..groups {
        let rows = slices(matrix.view(), group * LINES);
        for step in 0..steps {
            tiles.split_lines(&rows, step * TERMS, &mut parts);
            store(&parts, order == Order::Pairs, place(group, step));
        }
    }
}

/// Rows from `first` on, which lie in one piece each; none behind the last.
fn slices<const N: usize>(matrix: ArrayView2<'_, f32>, first: usize) -> [&[f32]; N] {
    let row = |at| (at < matrix.nrows()).then(|| matrix.index_axis_move(Axis(0), at).to_slice().unwrap_or_default());
    std::array::from_fn(|at| row(first + at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use ndarray::{Array2, s};

    /// The value at a line and a term, from its parts.
    fn value(packed: &[Square], parts: usize, steps: usize, order: Order, line: usize, term: usize) -> f32 {
        let (group, step) = (line / LINES, term / TERMS);
        let (line, pair) = (line % LINES, term % TERMS / 2);
        let of_part = |part: usize| {
            let square = &packed[((group / 2 * steps + step) * parts + part) * 2 + group % 2].0;
            let pair = if order == Order::Lines { square[line][pair] } else { square[pair][line] };
            f32::from_bits(if term.is_multiple_of(2) { pair << 16 } else { pair & 0xFFFF_0000 })
        };
        (0..parts).map(of_part).sum()
    }

    #[test]
    fn parts_make_up_the_matrix_in_both_orders_from_any_view() {
        let Some(tiles) = Tiles::detect() else { return };
        for (lines, terms) in [(16, 32), (33, 65), (5, 31), (64, 64)] {
            let along_terms = random(lines, terms, 1);
            let along_lines = along_terms.t().as_standard_layout().into_owned().reversed_axes();
            let mut apart = Array2::zeros((2 * lines, 2 * terms));
            apart.slice_mut(s![..;2, ..;2]).assign(&along_terms);
            for view in [along_terms.view(), along_lines.view(), apart.slice(s![..;2, ..;2])] {
                for order in [Order::Lines, Order::Pairs] {
                    let mut packed = vec![Square([[0x7FC0_7FC0; LANES]; LANES]); squares(lines, terms, 2)];
                    pack::<2>(tiles, view, order, &mut packed);
                    let steps = terms.div_ceil(TERMS);
                    for line in 0..lines.div_ceil(32) * 32 {
                        for term in 0..steps * TERMS {
                            let expected = view.get((line, term)).copied().unwrap_or_default();
                            let found = value(&packed, 2, steps, order, line, term);
                            assert!((expected - found).abs() <= expected.abs() * 1.6e-5, "{expected} {found}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_leaves_nothing_for_the_second_part() {
        let Some(tiles) = Tiles::detect() else { return };
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX] {
            let mut packed = [Square::ZERO; 4];
            pack::<2>(tiles, Array2::from_elem((1, 2), value).view(), Order::Lines, &mut packed);
            let [first, second] = [packed[0].0[0][0], packed[2].0[0][0]].map(|pair| f32::from_bits(pair << 16));
            assert!(
                first.is_nan() == value.is_nan() && !first.is_finite() && second == 0.0,
                "{value}: {first} {second}"
            );
        }
    }
}
