use ndarray::{Array2, ArrayView2, Zip};
use sparq_core::Hessian;

/// `‖X(W - W')ᵀ‖² / ‖XWᵀ‖²` for `dense` = `W` and `compressed` = `W'`, both `[out, in]`, over the tokens in `hessian`.
///
/// With a diagonal Hessian the channels count as uncorrelated; without any, this is the relative error of the weights.
/// 0 if `W` produces nothing. This is the error *on calibration tokens*: a solver that over-fits looks good here
/// (see docs/method.md).
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::Hessian;
/// let error = sparq_obs::relative_output_error(array![[3.0_f32, 4.0]].view(), array![[3.0, 0.0]].view(), &Hessian::None);
/// assert_eq!(error, 16.0 / 25.0);
/// ```
pub fn relative_output_error(dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>, hessian: &Hessian) -> f64 {
    if dense.dim() != compressed.dim() {
        return f64::NAN;
    }
    let difference = &dense - &compressed;
    let whole = energy(dense, hessian);
    if whole > 0.0 { energy(difference.view(), hessian) / whole } else { 0.0 }
}

/// `tr(W H Wᵀ)`.
fn energy(w: ArrayView2<'_, f32>, hessian: &Hessian) -> f64 {
    match hessian {
        Hessian::Full { matrix, .. } if matrix.nrows() == w.ncols() => {
            let mut product = Array2::zeros(w.dim());
            sparq_linalg::gemm(1.0, w, matrix.view(), 0.0, product.view_mut());
            let mut sum = 0.0;
            Zip::from(&product).and(w).for_each(|&p, &v| sum += f64::from(p) * f64::from(v));
            sum
        }
        Hessian::Diagonal { sums, .. } if sums.len() == w.ncols() => w
            .outer_iter()
            .map(|row| row.iter().zip(sums).map(|(&v, &h)| f64::from(v) * f64::from(v) * f64::from(h)).sum::<f64>())
            .sum(),
        _ => w.iter().map(|&v| f64::from(v) * f64::from(v)).sum(),
    }
}
