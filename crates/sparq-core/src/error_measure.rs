use crate::Hessian;
use ndarray::{Array2, ArrayView2, Axis, Zip, s};
use rayon::prelude::*;

/// Rows one task works through.
const ROWS_PER_TASK: usize = 128;
/// Columns of the Hessian looked at at a time; a multiple of what kernels compute at once.
const PANEL: usize = 384;

/// `‖X(W - W')ᵀ‖² / ‖XWᵀ‖²` for `dense` = `W` and `compressed` = `W'`, both `[out, in]`, over the tokens in `hessian`.
///
/// With a diagonal Hessian the channels count as uncorrelated; without any, this is the relative error of the weights.
/// 0 if `W` produces nothing, not a number if sums overflowed. This is the error *on calibration tokens*: a solver that
/// over-fits looks good here (see docs/methods.md).
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::Hessian;
/// let error = sparq_core::relative_output_error(array![[3.0_f32, 4.0]].view(), array![[3.0, 0.0]].view(), &Hessian::None);
/// assert_eq!(error, 16.0 / 25.0);
/// ```
pub fn relative_output_error(dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>, hessian: &Hessian) -> f64 {
    if dense.dim() != compressed.dim() {
        return f64::NAN;
    }
    let difference = &dense - &compressed;
    let whole = energy(dense, hessian);
    if whole == 0.0 { 0.0 } else { energy(difference.view(), hessian) / whole }
}

/// `tr(W H Wᵀ)`.
fn energy(w: ArrayView2<'_, f32>, hessian: &Hessian) -> f64 {
    match hessian {
        Hessian::Full { matrix, .. } if matrix.nrows() == w.ncols() => {
            let bands: Vec<_> = w.axis_chunks_iter(Axis(0), ROWS_PER_TASK).collect();
            let of_bands: Vec<f64> = bands.into_par_iter().map(|band| energy_of_band(band, matrix.view())).collect();
            of_bands.iter().sum()
        }
        Hessian::Diagonal { sums, .. } if sums.len() == w.ncols() => w
            .outer_iter()
            .map(|row| row.iter().zip(sums).map(|(&v, &h)| f64::from(v) * f64::from(v) * f64::from(h)).sum::<f64>())
            .sum(),
        _ => w.iter().map(|&v| f64::from(v) * f64::from(v)).sum(),
    }
}

/// The same for a few rows. `H` is symmetric: what lies above its blocks on the diagonal counts twice, and what lies below
/// is not looked at.
fn energy_of_band(w: ArrayView2<'_, f32>, matrix: ArrayView2<'_, f32>) -> f64 {
    let width = w.ncols();
    let mut sum = 0.0;
    for start in (0..width).step_by(PANEL) {
        let panel = start..width.min(start + PANEL);
        let here = w.slice(s![.., panel.clone()]);
        let mut product = Array2::zeros(here.dim());
        let above = s![..start, panel.clone()];
        sparq_linalg::gemm_sequential(2.0, w.slice(s![.., ..start]), matrix.slice(above), 0.0, product.view_mut());
        let diagonal = matrix.slice(s![panel.clone(), panel]);
        sparq_linalg::gemm_sequential(1.0, here, diagonal, 1.0, product.view_mut());
        Zip::from(&product).and(here).for_each(|&p, &v| sum += f64::from(p) * f64::from(v));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated_hessian, random};

    #[test]
    fn it_is_what_the_whole_matrix_says() {
        // Across the borders of bands and panels.
        for (rows, width) in [(1, 1), (3, 40), (130, 385), (70, 800)] {
            let hessian = correlated_hessian(width, 3);
            let Hessian::Full { matrix, .. } = &hessian else { unreachable!() };
            let (dense, compressed) = (random(rows, width, 1), random(rows, width, 2));
            let whole = |w: &Array2<f32>| -> f64 {
                let product = w.mapv(f64::from).dot(&matrix.mapv(f64::from));
                product.iter().zip(w).map(|(&p, &v)| p * f64::from(v)).sum()
            };
            let expected = whole(&(&dense - &compressed)) / whole(&dense);
            let error = relative_output_error(dense.view(), compressed.view(), &hessian);
            assert!((error / expected - 1.0).abs() < 1e-4, "{rows} x {width}: {error} {expected}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
            assert_eq!(error, pool.install(|| relative_output_error(dense.view(), compressed.view(), &hessian)));
        }
    }
}
