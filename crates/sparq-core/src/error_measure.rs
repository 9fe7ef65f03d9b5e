use crate::{Curvature, Hessian};
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
    OutputError::new(dense, compressed, hessian).relative()
}

/// How far a layer's outputs are off on its calibration tokens, in squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutputError {
    /// `‖X(W - W')ᵀ‖²`.
    pub missed: f64,
    /// `‖XWᵀ‖²`.
    pub whole: f64,
}

impl OutputError {
    /// Of `dense` = `W` and `compressed` = `W'`, both `[out, in]`, as [`relative_output_error`] says.
    pub fn new(dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>, hessian: &Hessian) -> Self {
        let difference = &dense - &compressed;
        Self { missed: energy(difference.view(), hessian), whole: energy(dense, hessian) }
    }

    /// The one over the other.
    pub fn relative(&self) -> f64 {
        if self.whole == 0.0 { 0.0 } else { self.missed / self.whole }
    }
}

/// The least bits a weight at which any code of this layer could have an error as small as `compressed` has, for `dense` of
/// normally distributed rows; both `[out, in]`. `missed` is `‖X(W - W')ᵀ‖²` over the tokens of `curvature`.
///
/// This is Shannon's lower bound, `½ log₂(σ² · g / d)` with the mean square `σ²` of a row, the geometric mean `g` of the
/// eigenvalues of `H + λI`, and the error `d` of a weight. It is what reverse water-filling gives where no component of
/// the inputs is so weak that its bits are zero; there it is below. None without a [damped matrix](Curvature::damped).
///
/// # Examples
/// ```
/// use ndarray::Array2;
/// use sparq_core::{Curvature, OutputError, shannon_bound};
/// let weight = Array2::from_shape_fn((64, 32), |(row, column)| ((row * 37 + column * 11) % 64) as f32 - 31.5);
/// let rounded = weight.mapv(|value| (value / 4.0).round() * 4.0);
/// let curvature = Curvature::of_inputs(Array2::eye(32).view())?;
/// let missed = OutputError::new(weight.view(), rounded.view(), curvature.hessian()).missed;
/// let bits = shannon_bound(weight.view(), rounded.view(), &curvature, missed).unwrap_or_default();
/// assert!((3.5..4.2).contains(&bits), "{bits}"); // 16 codes that occur alike take 4
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
pub fn shannon_bound(
    dense: ArrayView2<'_, f32>,
    compressed: ArrayView2<'_, f32>,
    curvature: &Curvature,
    missed: f64,
) -> Option<f64> {
    let (_, shift) = curvature.damped().filter(|_| dense.dim() == compressed.dim() && !dense.is_empty())?;
    let square = |value: f32| f64::from(value) * f64::from(value);
    let off: f64 = Zip::from(dense).and(compressed).fold(0.0, |sum, &w, &v| sum + square(w - v));
    let error = (missed + shift * off) / dense.len() as f64;
    let of_row = |row: ndarray::ArrayView1<'_, f32>| row.iter().map(|&w| square(w)).sum::<f64>() / row.len() as f64;
    let spreads: Vec<f64> = dense.outer_iter().map(of_row).filter(|&spread| spread > 0.0).map(f64::log2).collect();
    let spread = spreads.iter().sum::<f64>() / (spreads.len() as f64).max(1.0);
    // `H + λI` is the inverse of `UᵀU`, so the logarithms of `U`'s diagonal are minus half of those of the eigenvalues.
    let diagonal = curvature.factor().conditional_deviations();
    let inputs = diagonal.iter().map(|&u| f64::from(u).log2()).sum::<f64>() / diagonal.len() as f64;
    let bits = 0.5 * (spread - error.log2()) - inputs;
    bits.is_finite().then_some(bits.max(0.0))
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
