use crate::{Curvature, Hessian};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, Zip, s};
use rayon::prelude::*;

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

/// How far a layer's outputs and weights are off, in squares. Of a layer it is the [sum](Self::sum) over bands of rows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OutputError {
    /// `‖X(W - W')ᵀ‖²`.
    pub missed: f64,
    /// `‖XWᵀ‖²`.
    pub whole: f64,
    /// `‖W - W'‖²`.
    pub missed_weights: f64,
    /// `‖W‖²`.
    pub whole_weights: f64,
    /// Sum of `log₂` of the mean square of each row of `W` that is not zero.
    pub log_spreads: f64,
    /// How many rows these are.
    pub spread_rows: f64,
    /// Weights.
    pub weights: f64,
}

impl OutputError {
    /// Rows of a band.
    pub const BAND: usize = 128;

    /// Of `dense` = `W` and `compressed` = `W'`, both `[out, in]`, as [`relative_output_error`] says.
    pub fn new(dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>, hessian: &Hessian) -> Self {
        Self::sum(&Self::of_bands(dense, compressed, hessian))
    }

    /// The same for each band of [`BAND`](Self::BAND) rows.
    pub fn of_bands(dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>, hessian: &Hessian) -> Vec<Self> {
        let bands: Vec<_> = (dense.axis_chunks_iter(Axis(0), Self::BAND))
            .zip(compressed.axis_chunks_iter(Axis(0), Self::BAND))
            .collect();
        bands.into_par_iter().map(|(dense, compressed)| Self::of_band(dense, compressed, hessian)).collect()
    }

    fn of_band(dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>, hessian: &Hessian) -> Self {
        let difference = &dense - &compressed;
        let of_row = |row: ArrayView1<'_, f32>| row.iter().map(|&w| square(w)).sum::<f64>();
        let spreads = dense.outer_iter().map(|row| of_row(row) / row.len() as f64).filter(|&spread| spread > 0.0);
        let spreads: Vec<f64> = spreads.map(f64::log2).collect();
        Self {
            missed: energy(difference.view(), hessian),
            whole: energy(dense, hessian),
            missed_weights: difference.outer_iter().map(of_row).sum(),
            whole_weights: dense.outer_iter().map(of_row).sum(),
            log_spreads: spreads.iter().sum(),
            spread_rows: spreads.len() as f64,
            weights: dense.len() as f64,
        }
    }

    /// Of a layer, from its bands in order.
    pub fn sum(bands: &[Self]) -> Self {
        bands.iter().fold(Self::default(), |sum, band| Self {
            missed: sum.missed + band.missed,
            whole: sum.whole + band.whole,
            missed_weights: sum.missed_weights + band.missed_weights,
            whole_weights: sum.whole_weights + band.whole_weights,
            log_spreads: sum.log_spreads + band.log_spreads,
            spread_rows: sum.spread_rows + band.spread_rows,
            weights: sum.weights + band.weights,
        })
    }

    /// How many numbers it is made of.
    pub const NUMBERS: usize = 7;

    /// All of them, for [`from_array`](Self::from_array).
    pub fn to_array(&self) -> [f64; Self::NUMBERS] {
        let Self { missed, whole, missed_weights, whole_weights, log_spreads, spread_rows, weights } = *self;
        [missed, whole, missed_weights, whole_weights, log_spreads, spread_rows, weights]
    }

    /// From what [`to_array`](Self::to_array) gave.
    pub fn from_array(numbers: [f64; Self::NUMBERS]) -> Self {
        let [missed, whole, missed_weights, whole_weights, log_spreads, spread_rows, weights] = numbers;
        Self { missed, whole, missed_weights, whole_weights, log_spreads, spread_rows, weights }
    }

    /// What is missed over the whole, of outputs.
    pub fn relative(&self) -> f64 {
        if self.whole == 0.0 { 0.0 } else { self.missed / self.whole }
    }

    /// The same of weights.
    pub fn relative_of_weights(&self) -> f64 {
        if self.whole_weights == 0.0 { 0.0 } else { self.missed_weights / self.whole_weights }
    }

    /// The least bits a weight at which any code of this layer could have an error as small as this one, for normally
    /// distributed rows; the error is over the tokens of `curvature`.
    ///
    /// This is Shannon's lower bound, `½ log₂(σ² · g / d)` with the mean square `σ²` of a row, the geometric mean `g` of the
    /// eigenvalues of `H + λI`, and the error `d` of a weight. It is what reverse water-filling gives where no component of
    /// the inputs is so weak that its bits are zero; there it is below. None without a [damped matrix](Curvature::damped).
    ///
    /// # Examples
    /// ```
    /// use ndarray::Array2;
    /// use sparq_core::{Curvature, OutputError};
    /// let weight = Array2::from_shape_fn((64, 32), |(row, column)| ((row * 37 + column * 11) % 64) as f32 - 31.5);
    /// let rounded = weight.mapv(|value| (value / 4.0).round() * 4.0);
    /// let curvature = Curvature::of_inputs(Array2::eye(32).view())?;
    /// let error = OutputError::new(weight.view(), rounded.view(), curvature.hessian());
    /// let bits = error.shannon_bound(&curvature).unwrap_or_default();
    /// assert!((3.5..4.2).contains(&bits), "{bits}"); // 16 codes that occur alike take 4
    /// # Ok::<(), sparq_core::CompressError>(())
    /// ```
    pub fn shannon_bound(&self, curvature: &Curvature) -> Option<f64> {
        let (_, shift) = curvature.damped().filter(|_| self.weights > 0.0)?;
        let error = (self.missed + shift * self.missed_weights) / self.weights;
        let spread = self.log_spreads / self.spread_rows.max(1.0);
        // `H + λI` is the inverse of `UᵀU`, so the logarithms of `U`'s diagonal are minus half of those of the eigenvalues.
        let diagonal = curvature.factor().conditional_deviations();
        let inputs = diagonal.iter().map(|&u| f64::from(u).log2()).sum::<f64>() / diagonal.len() as f64;
        let bits = 0.5 * (spread - error.log2()) - inputs;
        bits.is_finite().then_some(bits.max(0.0))
    }
}

fn square(value: f32) -> f64 {
    f64::from(value) * f64::from(value)
}

/// `tr(W H Wᵀ)`, for a few rows.
fn energy(w: ArrayView2<'_, f32>, hessian: &Hessian) -> f64 {
    match hessian {
        Hessian::Full { matrix, .. } if matrix.nrows() == w.ncols() => energy_of_matrix(w, matrix.view()),
        Hessian::Diagonal { sums, .. } if sums.len() == w.ncols() => w
            .outer_iter()
            .map(|row| row.iter().zip(sums).map(|(&v, &h)| f64::from(v) * f64::from(v) * f64::from(h)).sum::<f64>())
            .sum(),
        _ => w.iter().map(|&v| f64::from(v) * f64::from(v)).sum(),
    }
}

/// The same for a whole matrix. It is symmetric: what lies above its blocks on the diagonal counts twice, and what lies below
/// is not looked at.
fn energy_of_matrix(w: ArrayView2<'_, f32>, matrix: ArrayView2<'_, f32>) -> f64 {
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
