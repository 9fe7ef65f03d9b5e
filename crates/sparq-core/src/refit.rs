use crate::{CompressError, Curvature, Mask, Result};
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, Zip};
use rayon::prelude::*;

/// Refits the weights that a mask keeps, all of them at once, so that together they make up for those it removes:
/// minimises
///
/// ```text
/// tr((W - V) (H + λ·I) (W - V)ᵀ)     over V that is zero where the mask removes
/// ```
///
/// by a few steps of conjugate gradients, preconditioned by the diagonal, all rows together: one product
/// `[out, in] × [in, in]` a step. A column sweep leaves a third of this error on the table, because a column that was
/// visited cannot be changed any more. Few steps regularise: what the calibration tokens say least about changes last.
///
/// Cost: `steps · out · in²` multiply-adds; memory: four copies of the weight. Same bits for any number of threads.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Curvature, Damping, Hessian, Mask, Refit};
/// // Channels 0 and 1 always agree: what is removed from one the other can carry, on either side of it.
/// let hessian = Hessian::Full { matrix: array![[1.0, 1.0], [1.0, 1.0]], tokens: 8 };
/// let mask = Mask::new(array![[true, false]]);
/// let curvature = Curvature::new(hessian).with_damping(Damping::new(1e-9)?);
/// let refitted = Refit::new(4).run(array![[1.0, 0.5]].view(), &mask, &curvature)?;
/// assert_eq!(refitted, array![[1.5, 0.0]]);
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// As the last stage of ALPS (Meng et al. 2024, arXiv:2406.07831) for pruning alone; there to convergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refit {
    steps: usize,
}

impl Refit {
    /// With at most this many steps; 0 only applies the mask.
    pub fn new(steps: usize) -> Self {
        Self { steps }
    }

    /// The refitted weight, `[out, in]`, for `dense` = `W` and a mask of the same shape. Without a
    /// [damped matrix](Curvature::damped) nothing is known of what a weight can take over, and the mask is only applied.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if mask or Hessian do not fit.
    pub fn run(&self, dense: ArrayView2<'_, f32>, mask: &Mask, curvature: &Curvature) -> Result<Array2<f32>> {
        let (rows, width) = dense.dim();
        let shape = |what, got, expected| CompressError::check_shape("refit", what, got, expected);
        shape("mask", mask.dim(), (rows, width))?;
        // Rows are worked through as slices, and everything below takes its layout from here.
        let dense = dense.as_standard_layout();
        let mut weight = dense.to_owned();
        mask.apply(&mut weight);
        let Some((matrix, shift)) = curvature.damped() else { return Ok(weight) };
        shape("Hessian", matrix.dim(), (width, width))?;
        let shift = shift as f32;
        let inverse: Vec<f32> = matrix.diag().iter().map(|&value| reciprocal(value + shift)).collect();
        let kept = mask.view();

        // The gradient, up to sign and a factor, on the support: (W - V)(H + λI).
        let mut product = Array2::zeros((rows, width));
        let mut residual = &dense - &weight;
        sparq_linalg::gemm(1.0, residual.view(), matrix, 0.0, product.view_mut());
        let lines = residual.outer_iter_mut().into_par_iter().zip(product.outer_iter()).zip(kept.outer_iter());
        lines.for_each(|((residual, product), kept)| {
            let rows = Zip::from(residual).and(product).and(kept);
            rows.for_each(|r, &p, &kept| *r = if kept { p + shift * *r } else { 0.0 });
        });
        let mut direction = Array2::zeros((rows, width));
        let mut energy = vec![0.0_f64; rows];
        for _ in 0..self.steps {
            let lines = direction.outer_iter_mut().into_par_iter().zip(residual.outer_iter()).zip(&mut energy);
            lines.for_each(|((direction, residual), energy)| advance_direction(direction, residual, &inverse, energy));
            sparq_linalg::gemm(1.0, direction.view(), matrix, 0.0, product.view_mut());
            let lines = weight.outer_iter_mut().into_par_iter().zip(residual.outer_iter_mut());
            let lines = lines.zip(direction.outer_iter()).zip(product.outer_iter()).zip(kept.outer_iter()).zip(&energy);
            lines.for_each(|(((((weight, residual), direction), product), kept), &energy)| {
                step(weight, residual, direction, (product, shift), kept, energy);
            });
        }
        Ok(weight)
    }
}

fn reciprocal(value: f32) -> f32 {
    if value > 0.0 { 1.0 / value } else { 0.0 }
}

/// Of one row: `p ← z + β p` with `z` the preconditioned residual and `β` the ratio of the energies `⟨r, z⟩` now and before.
fn advance_direction(
    direction: ArrayViewMut1<'_, f32>,
    residual: ArrayView1<'_, f32>,
    inverse: &[f32],
    energy: &mut f64,
) {
    let (Some(direction), Some(residual)) = (direction.into_slice(), residual.to_slice()) else { return };
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let now = sum(residual.iter().zip(inverse), |(&r, &d)| f64::from(r) * f64::from(r) * f64::from(d));
            let beta = if *energy > 0.0 { (now / *energy) as f32 } else { 0.0 };
            for ((direction, residual), inverse) in direction.iter_mut().zip(residual).zip(inverse) {
                *direction = residual * inverse + beta * *direction;
            }
            *energy = now;
        },
    );
}

/// Of one row: `V ← V + α p`, `r ← r - α q` on the support, with `q = p (H + λI)` and `α` the best step.
fn step(
    weight: ArrayViewMut1<'_, f32>,
    residual: ArrayViewMut1<'_, f32>,
    direction: ArrayView1<'_, f32>,
    (product, shift): (ArrayView1<'_, f32>, f32),
    kept: ArrayView1<'_, bool>,
    energy: f64,
) {
    let (Some(direction), Some(product)) = (direction.to_slice(), product.to_slice()) else { return };
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let terms = direction.iter().zip(product);
            let curvature = sum(terms.clone(), |(&p, &q)| f64::from(p) * f64::from(q + shift * p));
            let alpha = (energy / curvature) as f32;
            // A row that is done, or whose curvature is lost in rounding, stays as it is.
            if curvature > 0.0 && alpha.is_finite() {
                for (((weight, residual), (&p, &q)), &kept) in weight.into_iter().zip(residual).zip(terms).zip(kept) {
                    *weight += alpha * p;
                    *residual = if kept { *residual - alpha * (q + shift * p) } else { 0.0 };
                }
            }
        },
    );
}

/// A sum whose terms are taken in turns by eight others: one alone would wait for each addition.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled for the instructions of the loop it is called from")]
fn sum<T>(terms: impl Iterator<Item = T>, value: impl Fn(T) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    for (at, term) in terms.enumerate() {
        sums[at % 8] += value(term);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated_hessian, random};
    use crate::{ColumnSweep, Damping, Hessian, Rounding, Selection, relative_output_error};
    use proptest::prelude::*;

    fn problem(rows: usize, width: usize, seed: u64, damping: f64) -> (Array2<f32>, Mask, Curvature) {
        let mask = Mask::new(random(rows, width, seed + 3).mapv(|value| value > 0.0));
        (random(rows, width, seed + 4), mask, damped(correlated_hessian(width, seed), damping))
    }

    fn damped(hessian: Hessian, damping: f64) -> Curvature {
        Curvature::new(hessian).with_damping(Damping::new(damping).expect("valid"))
    }

    /// The exact minimum for one row, by Gaussian elimination on the support.
    fn exact(dense: &[f32], kept: &[usize], matrix: &Array2<f32>, shift: f64) -> Vec<f64> {
        let h = |i: usize, j: usize| f64::from(matrix[[i, j]]) + if i == j { shift } else { 0.0 };
        let n = kept.len();
        let mut a: Vec<Vec<f64>> = kept
            .iter()
            .map(|&i| {
                let right = (0..dense.len()).map(|j| h(i, j) * f64::from(dense[j])).sum();
                kept.iter().map(|&j| h(i, j)).chain([right]).collect()
            })
            .collect();
        for column in 0..n {
            let pivot = a[column].clone();
            for (_, values) in a.iter_mut().enumerate().filter(|(row, _)| *row != column) {
                let factor = values[column] / pivot[column];
                values.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
        (0..n).map(|i| a[i][n] / a[i][i]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_converges_to_the_exact_minimum_on_the_support(rows in 1_usize..6, width in 1_usize..24, seed in 0_u64..1000) {
            let (dense, mask, curvature) = problem(rows, width, seed, 0.05);
            let Hessian::Full { matrix, .. } = curvature.hessian() else { unreachable!() };
            let refitted = Refit::new(60).run(dense.view(), &mask, &curvature).expect("fits");
            let shift = 0.05 * matrix.diag().iter().map(|&value| f64::from(value)).sum::<f64>() / width as f64;
            for row in 0..rows {
                let kept: Vec<usize> = (0..width).filter(|&column| mask.view()[[row, column]]).collect();
                let best = exact(&dense.row(row).to_vec(), &kept, matrix, shift);
                for (&column, best) in kept.iter().zip(best) {
                    let found = f64::from(refitted[[row, column]]);
                    prop_assert!((found - best).abs() < 1e-3 * (1.0 + best.abs()), "{} is not {}", found, best);
                }
                for column in (0..width).filter(|column| !kept.contains(column)) {
                    prop_assert_eq!(refitted[[row, column]].to_bits(), 0);
                }
            }
        }

        #[test]
        fn every_step_helps_and_threads_change_no_bit(rows in 1_usize..40, width in 1_usize..40, seed in 0_u64..1000) {
            let (dense, mask, curvature) = problem(rows, width, seed, 1e-4);
            let error = |steps| {
                let refitted = Refit::new(steps).run(dense.view(), &mask, &curvature);
                relative_output_error(dense.view(), refitted.expect("fits").view(), curvature.hessian())
            };
            let errors: Vec<f64> = [0, 1, 2, 4, 8].map(error).to_vec();
            for pair in errors.windows(2) {
                prop_assert!(pair[1] <= pair[0] * 1.0001 + 1e-6, "{:?}", errors);
            }
            let columns_first = dense.t().as_standard_layout().into_owned();
            let transposed = Refit::new(5).run(columns_first.t(), &mask, &curvature).expect("fits");
            let run = || Refit::new(5).run(dense.view(), &mask, &curvature).expect("fits");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a thread pool");
            prop_assert_eq!(&transposed, &run(), "the layout of a view changes nothing");
            prop_assert_eq!(run(), pool.install(run));
        }
    }

    #[test]
    fn it_gets_what_a_sweep_leaves() {
        let (dense, mask, curvature) = problem(32, 96, 7, 0.01);
        let selection = Selection::of_mask(Some(&mask));
        let swept = ColumnSweep::new(curvature.factor()).run(dense.clone(), &selection, &Rounding::None).expect("fits");
        let refitted = Refit::new(10).run(dense.view(), &mask, &curvature).expect("fits");
        let error = |weight: &Array2<f32>| relative_output_error(dense.view(), weight.view(), curvature.hessian());
        assert!(error(&refitted) < 0.8 * error(&swept.weight), "{} {}", error(&refitted), error(&swept.weight));
    }

    #[test]
    fn raised_damping_is_the_damping_of_the_refit_too() {
        // H = [[1, 1.05], [1.05, 1]] is indefinite: 0.01 is asked for, 0.1 is used. The minimum for the weight that stays
        // is w0 + w1 · H01 / (H00 + λ) with that λ.
        let indefinite = || Hessian::Full { matrix: ndarray::array![[1.0, 1.05], [1.05, 1.0]], tokens: 8 };
        let (dense, mask) = (ndarray::array![[1.0_f32, 0.5]], Mask::new(ndarray::array![[true, false]]));
        let refitted = Refit::new(4).run(dense.view(), &mask, &damped(indefinite(), 0.01)).expect("fits");
        assert!((refitted[[0, 0]] - (1.0 + 0.5 * 1.05 / 1.1)).abs() < 1e-6, "{refitted}");
        assert_eq!(refitted, Refit::new(4).run(dense.view(), &mask, &damped(indefinite(), 0.1)).expect("fits"));
    }

    #[test]
    fn without_a_damped_matrix_the_mask_is_applied() {
        let (dense, mask, _) = problem(3, 8, 1, 0.01);
        let mut masked = dense.clone();
        mask.apply(&mut masked);
        let hopeless = Array2::from_shape_fn((8, 8), |(i, j)| if i == j { 1.0 } else { 9.0 });
        for matrix in [Array2::zeros((8, 8)), hopeless] {
            let curvature = damped(Hessian::Full { matrix, tokens: 9 }, 0.01);
            assert_eq!(Refit::new(5).run(dense.view(), &mask, &curvature).expect("fits"), masked);
        }
        assert!(Refit::new(1).run(dense.view(), &Mask::all((1, 8)), &Curvature::unknown()).is_err());
    }
}
