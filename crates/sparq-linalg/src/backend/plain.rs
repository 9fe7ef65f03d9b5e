//! Products of `ndarray`, and a blocked Cholesky factorization on top of them.

use crate::tiles::{Part, cut};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, NdFloat, ShapeBuilder, s};
use rayon::prelude::*;

/// What a factorization needs of a type.
pub(crate) trait Arithmetic: NdFloat {}

impl Arithmetic for f32 {}
impl Arithmetic for f64 {}

/// Order of the blocks on the diagonal, which are factored and inverted entry by entry. The rest are products.
const BLOCK: usize = 64;
/// Side of the tiles that one task computes while the factorization proceeds.
const TILE: usize = 256;

/// `c = alpha · a · b`, added to what `c` holds if `add`; else `c` is not read.
pub(crate) fn product(
    alpha: f32,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    add: bool,
    mut c: ArrayViewMut2<'_, f32>,
) {
    general_mat_mul(alpha, &a, &b, f32::from(u8::from(add)), &mut c);
}

/// Adds `alpha · a · b` to the lower triangle of the square tile `c`; what stands above is neither read nor written.
pub(crate) fn product_lower(alpha: f32, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, mut c: ArrayViewMut2<'_, f32>) {
    let mut full = Array2::zeros(c.dim());
    general_mat_mul(alpha, &a, &b, 0.0, &mut full);
    for (row, (mut to, from)) in c.outer_iter_mut().zip(full.outer_iter()).enumerate() {
        for (to, from) in to.iter_mut().zip(from).take(row + 1) {
            *to += from;
        }
    }
}

/// `L⁻¹` for the Cholesky factor `L` of the symmetric matrix whose lower triangle is given, with zeros above it.
/// Both are stored column after column. What stands above the diagonal of the result has no meaning.
///
/// # Errors
/// The index of the first pivot that is not positive and finite.
pub(crate) fn inverse_of_factor<T: Arithmetic>(mut lower: Array2<T>) -> Result<Array2<T>, usize> {
    let order = lower.nrows();
    for first in (0..order).step_by(BLOCK) {
        let rest = lower.slice_mut(s![first.., first..]);
        factor_columns(rest).map_err(|index| first + index)?;
    }
    let mut inverse = Array2::zeros((order, order).f());
    let columns = inverse.axis_chunks_iter_mut(Axis(1), BLOCK).into_par_iter().enumerate();
    columns.for_each(|(block, columns)| invert_columns(lower.view(), block * BLOCK, columns));
    Ok(inverse)
}

/// Turns the first `BLOCK` columns of `rest` into those of its Cholesky factor and takes their share from the columns
/// after them. The block on the diagonal becomes the inverse of the factor's: that is all that later steps need of it.
fn factor_columns<T: Arithmetic>(rest: ArrayViewMut2<'_, T>) -> Result<(), usize> {
    let width = BLOCK.min(rest.nrows());
    let (columns, rest) = rest.split_at(Axis(1), width);
    let (mut diagonal, mut below) = columns.split_at(Axis(0), width);
    let inverse = inverse_of_small_factor(diagonal.view())?;
    diagonal.assign(&inverse);
    below.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().for_each(|mut rows| {
        let solved = rows.dot(&inverse.t());
        rows.assign(&solved);
    });
    // Tiles on the diagonal are computed in full: nobody reads what this leaves above it.
    cut(rest.slice_move(s![width.., ..]), (TILE, TILE), Part::Lower).into_par_iter().for_each(
        |(row, column, mut tile)| {
            let left = below.slice(s![row..row + tile.nrows(), ..]);
            let right = below.slice(s![column..column + tile.ncols(), ..]);
            general_mat_mul(-T::one(), &left, &right.t(), T::one(), &mut tile);
        },
    );
    Ok(())
}

/// Columns of `L⁻¹` from column `first` on, from above to below, for `lower` as [`factor_columns`] leaves it.
fn invert_columns<T: Arithmetic>(lower: ArrayView2<'_, T>, first: usize, mut columns: ArrayViewMut2<'_, T>) {
    let order = lower.nrows();
    for row in (first..order).step_by(BLOCK) {
        let end = order.min(row + BLOCK);
        let diagonal = lower.slice(s![row..end, row..end]);
        let (above, mut below) = columns.multi_slice_mut((s![first..row, ..], s![row..end, ..]));
        if row == first {
            below.assign(&diagonal);
        } else {
            let sum = lower.slice(s![row..end, first..row]).dot(&above);
            general_mat_mul(-T::one(), &diagonal, &sum, T::zero(), &mut below);
        }
    }
}

/// [`inverse_of_factor`] entry by entry, with zeros above the diagonal of the result.
fn inverse_of_small_factor<T: Arithmetic>(matrix: ArrayView2<'_, T>) -> Result<Array2<T>, usize> {
    let (mut factor, mut inverse) = (Array2::<T>::zeros(matrix.dim()), Array2::<T>::zeros(matrix.dim()));
    for row in 0..matrix.nrows() {
        for column in 0..=row {
            let known = factor.slice(s![row, ..column]).dot(&factor.slice(s![column, ..column]));
            let left = matrix[[row, column]] - known;
            factor[[row, column]] = if column < row {
                left / factor[[column, column]]
            } else if left > T::zero() && left.is_finite() {
                left.sqrt()
            } else {
                return Err(row);
            };
        }
        let (above, mut here) = inverse.multi_slice_mut((s![..row, ..], s![row, ..]));
        for (column, above) in above.outer_iter().enumerate() {
            here.scaled_add(-factor[[row, column]], &above);
        }
        here[row] = T::one();
        here /= factor[[row, row]];
    }
    Ok(inverse)
}
