use crate::backend::{self, Real};
use crate::{Error, Result};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, ShapeBuilder, s};
use rayon::prelude::*;

/// Side of the tiles that a triangle is turned around in.
const TILE: usize = 64;
/// From this share of the mean diagonal on, a shift keeps the matrix well enough conditioned to be factored in `f32`.
const SHARE_FOR_F32: f64 = 1.0 / 256.0;

/// `U`, upper triangular with a positive diagonal, such that `(H + shift · I)⁻¹ = UᵀU`, for a symmetric `h` of shape
/// `[n, n]` of which only the **lower triangle** is read.
///
/// `U[j, j]²` is the `j`-th diagonal entry of the inverse once columns before `j` are eliminated, and row `j` of `U`
/// spreads the error made in column `j` over the columns after it: all that a GPTQ or SparseGPT sweep needs.
///
/// Works on the reversed matrix, so that one Cholesky factorization and one triangular inverse are enough and `H⁻¹` is
/// never formed: with `J` the reversal, `J H J = L Lᵀ` gives `U = J L⁻¹ J`. A shift of at least 1/256 of the mean diagonal
/// lets it work in `f32`; with less, or if that fails, it works in `f64`. Needs two `[n, n]` matrices of that type beside the
/// result; cost about `n³/3` multiply-adds. Same bits for any number of threads.
///
/// # Errors
/// [`Error::NotPositiveDefinite`] with the failing pivot, [`Error::NotFinite`] if `h` holds a value that is not finite
/// or the factor overflows, [`Error::NotSquare`].
///
/// # Examples
/// ```
/// use ndarray::array;
/// let h = array![[4.0_f32, 0.0], [2.0, 3.0]]; // lower triangle of [[4, 2], [2, 3]]
/// let u = sparq_linalg::inverse_factor(h.view(), 0.0)?;
/// let inverse = u.t().dot(&u); // 1/8 · [[3, -2], [-2, 4]]
/// assert!((inverse[[0, 0]] - 0.375).abs() < 1e-6 && (inverse[[0, 1]] + 0.25).abs() < 1e-6);
/// assert_eq!(u[[1, 0]], 0.0);
/// # Ok::<(), sparq_linalg::Error>(())
/// ```
pub fn inverse_factor(h: ArrayView2<'_, f32>, shift: f64) -> Result<Array2<f32>> {
    let order = h.nrows();
    if h.ncols() != order {
        return Err(Error::NotSquare { rows: order, columns: h.ncols() });
    }
    let diagonal = h.diag().iter().map(|&value| f64::from(value)).sum::<f64>();
    if shift * order as f64 >= SHARE_FOR_F32 * diagonal
        && let Ok(upper) = factor_in::<f32>(h, shift)
    {
        return Ok(upper);
    }
    factor_in::<f64>(h, shift)
}

/// [`inverse_factor`] of a square matrix in the arithmetic of `T`.
fn factor_in<T: Real>(h: ArrayView2<'_, f32>, shift: f64) -> Result<Array2<f32>> {
    let order = h.nrows();
    let inverse = backend::inverse_of_factor(reversed::<T>(h, shift)?).map_err(|index| Error::NotPositiveDefinite {
        order,
        pivot: order.saturating_sub(1 + index),
        shift,
    })?;
    rounded(inverse.view())
}

/// The lower triangle of `J (H + shift · I) J`, stored column after column, with zeros above it.
fn reversed<T: Real>(h: ArrayView2<'_, f32>, shift: f64) -> Result<Array2<T>> {
    let order = h.nrows();
    let mut lower = Array2::zeros((order, order).f());
    // Column j of it, from the diagonal down, is row n-1-j of H, from the diagonal to the left.
    let columns = lower.axis_iter_mut(Axis(1)).into_par_iter();
    let broken = columns.zip(h.outer_iter().into_par_iter().rev()).enumerate().map(|(column, (mut lower, row))| {
        let length = order - column;
        let values = row.slice(s![..length; -1]);
        for (lower, &value) in lower.iter_mut().skip(column).zip(values) {
            *lower = T::of(f64::from(value));
        }
        lower[column] = T::of(f64::from(row[length - 1]) + shift);
        (!is_finite(values)).then_some(length - 1)
    });
    none_broken(broken.flatten().min(), order)?;
    Ok(lower)
}

/// `J X J` as `f32` for the lower triangle of `X`, which is stored column after column.
fn rounded<T: Real>(inverse: ArrayView2<'_, T>) -> Result<Array2<f32>> {
    let order = inverse.nrows();
    let mut upper = Array2::zeros((order, order));
    let bands = upper.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().enumerate();
    let broken = bands.map(|(band, mut rows)| {
        let first = band * TILE;
        // Tile by tile: one side of the copy runs across memory.
        for start in (first..order).step_by(TILE) {
            for (row, mut values) in (first..).zip(rows.outer_iter_mut()) {
                for column in start.max(row)..order.min(start + TILE) {
                    values[column] = inverse[[order - 1 - row, order - 1 - column]].rounded();
                }
            }
        }
        (first..).zip(rows.outer_iter()).find(|(_, values)| !is_finite(*values)).map(|(row, _)| row)
    });
    none_broken(broken.flatten().min(), order)?;
    Ok(upper)
}

fn is_finite(values: ArrayView1<'_, f32>) -> bool {
    values.iter().all(|value| value.is_finite())
}

fn none_broken(first: Option<usize>, order: usize) -> Result<()> {
    first.map_or(Ok(()), |row| Err(Error::NotFinite { order, row }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_any_threads, random};
    use crate::{mirror_lower, syrk_lower};

    fn gram(n: usize, tokens: usize) -> Array2<f32> {
        let x = random(tokens, n, 11);
        let mut h = Array2::zeros((n, n));
        syrk_lower(1.0, x.view(), h.view_mut());
        h
    }

    #[test]
    fn the_factor_inverts_the_shifted_matrix() {
        for n in [1, 2, 17, 130, 400] {
            let mut h = gram(n, 2 * n);
            let u = inverse_factor(h.view(), 0.3).expect("positive definite");
            mirror_lower(h.view_mut());
            for i in 0..n {
                h[[i, i]] += 0.3;
            }
            let identity = u.dot(&h).dot(&u.t());
            for ((i, j), value) in identity.indexed_iter() {
                let expected = f32::from(u8::from(i == j));
                assert!((value - expected).abs() < 1e-3, "{i},{j}: {value}");
            }
            for ((i, j), value) in u.indexed_iter() {
                assert!(if i > j { *value == 0.0 } else { i != j || *value > 0.0 });
            }
        }
    }

    #[test]
    fn same_bits_for_any_number_of_threads() {
        let h = gram(700, 900);
        for shift in [0.01, 30.0] {
            on_any_threads(|| inverse_factor(h.view(), shift).expect("positive definite"));
        }
    }

    #[test]
    fn what_is_well_conditioned_has_nearly_the_same_factor_in_f32() {
        // Inputs of very different size, and more channels than tokens: only the shift makes it positive definite.
        let mut x = random(200, 300, 5);
        x.column_mut(7).mapv_inplace(|value| 30.0 * value);
        let mut h = Array2::zeros((300, 300));
        syrk_lower(1.0, x.view(), h.view_mut());
        let mean = h.diag().mean().map(f64::from).expect("not empty");
        let [single, double] = [factor_in::<f32>(h.view(), 0.01 * mean), factor_in::<f64>(h.view(), 0.01 * mean)];
        let (single, double) = (single.expect("positive definite"), double.expect("positive definite"));
        assert_ne!(single, double);
        assert_eq!(inverse_factor(h.view(), 0.01 * mean), Ok(single.clone()));
        for (row, (single, double)) in single.outer_iter().zip(double.outer_iter()).enumerate() {
            for (x, y) in single.iter().zip(double) {
                assert!((x - y).abs() <= 1e-4 * double[row], "{row}: {x} {y}");
            }
        }
        // With less of a shift, f64.
        let close = inverse_factor(h.view(), 1e-3 * mean);
        assert_eq!(close, factor_in::<f64>(h.view(), 1e-3 * mean));
        assert!(close.is_ok());
    }

    #[test]
    fn the_failing_pivot_is_named() {
        for pivot in [0, 130, 299] {
            let mut h = gram(300, 600);
            h[[pivot, pivot]] = -1.0;
            let expected = Error::NotPositiveDefinite { order: 300, pivot, shift: 0.5 };
            assert_eq!(inverse_factor(h.view(), 0.5), Err(expected));
        }
    }

    #[test]
    fn indefinite_and_broken_matrices_are_errors() {
        let mut h = Array2::<f32>::eye(4);
        h[[2, 2]] = -1.0;
        assert!(matches!(inverse_factor(h.view(), 0.0), Err(Error::NotPositiveDefinite { pivot: 2, order: 4, .. })));
        for shift in [f64::NAN, f64::INFINITY] {
            let shifted = inverse_factor(h.view(), shift);
            assert!(matches!(shifted, Err(Error::NotPositiveDefinite { pivot: 3, order: 4, .. })));
        }
        h[[3, 1]] = f32::NAN;
        assert_eq!(inverse_factor(h.view(), 0.0), Err(Error::NotFinite { order: 4, row: 3 }));
        assert_eq!(inverse_factor(Array2::zeros((2, 3)).view(), 0.0), Err(Error::NotSquare { rows: 2, columns: 3 }));
        assert_eq!(inverse_factor(Array2::zeros((0, 0)).view(), 0.0).map(|u| u.len()), Ok(0));
    }
}
