use crate::InverseFactor;
use crate::hessian::finite_rows;
use ndarray::{Array2, ArrayView2, Axis};
use sparq_core::{CompressError, Result};

/// Sums up how far a layer's inputs have drifted from those of the dense model, to let the layer undo some of it.
///
/// A layer that comes after compressed ones gets inputs `X̃` where the dense model has `X`. Asked to give `X Wᵀ` rather
/// than `X̃ Wᵀ`, it can take back what of the drift its inputs still tell. If its outputs go straight into the residual
/// stream, it can take back some of that stream's drift `R - R̃` as well. The weight to aim at is
///
/// ```text
/// W* = W + share · [W (X - X̃)ᵀX̃ + (R - R̃)ᵀX̃] (H + λI)⁻¹        with H = X̃ᵀX̃
/// ```
///
/// and compressing `W*` on `X̃` is the same problem as matching the dense outputs, up to a constant. So every pruner and
/// quantizer gains from it without knowing. A share below 1 guards against fitting the calibration tokens.
///
/// Cost: `tokens · in · (in + hidden)` multiply-adds and as much memory; same bits for any number of threads.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Hessian, Statistics};
/// use sparq_obs::{Damping, Drift, HessianAccumulator, InverseFactor};
/// let (dense, compressed) = (array![[2.0_f32], [4.0]], array![[1.0_f32], [2.0]]); // inputs came out half as large
/// let mut hessian = HessianAccumulator::new(1, Statistics::Hessian)?;
/// hessian.add(compressed.view())?;
/// let mut drift = Drift::new(1, None);
/// drift.add_inputs(dense.view(), compressed.view())?;
/// let factor = InverseFactor::factorize(&hessian.finish(), 1, Damping::new(0.0)?).factor;
/// let target = drift.target(array![[3.0]].view(), &factor, 1.0)?;
/// assert!((target[[0, 0]] - 6.0).abs() < 1e-4); // so the weight doubles
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// The term of the inputs: GPTAQ (Li et al. 2025, arXiv:2504.02692) and Qronos (Zhang et al. 2025, arXiv:2505.11695),
/// which fold it into the column loop of a quantizer; that of the residual stream is ours.
#[derive(Debug, Clone)]
pub struct Drift {
    /// `(X - X̃)ᵀX̃`, `[in, in]`.
    inputs: Array2<f32>,
    /// `(R - R̃)ᵀX̃`, `[hidden, in]`.
    residual: Option<Array2<f32>>,
}

impl Drift {
    /// Nothing yet, for a layer of `width` input channels; `residual` is the width of the stream its outputs are added
    /// to as they are, if they are.
    pub fn new(width: usize, residual: Option<usize>) -> Self {
        Self { inputs: Array2::zeros((width, width)), residual: residual.map(|hidden| Array2::zeros((hidden, width))) }
    }

    /// Adds tokens by their inputs in the dense model and in the compressed one, both `[tokens, in]`. Tokens that are
    /// not finite in either are left out.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the shapes do not fit.
    pub fn add_inputs(&mut self, dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>) -> Result<()> {
        add(&mut self.inputs, dense, compressed, compressed)
    }

    /// Adds the same tokens by the residual stream before the layer's outputs are added, both `[tokens, hidden]`, and
    /// the layer's inputs in the compressed model, `[tokens, in]`. Nothing happens if no residual stream was announced.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the shapes do not fit.
    pub fn add_residual(
        &mut self,
        dense: ArrayView2<'_, f32>,
        compressed: ArrayView2<'_, f32>,
        inputs: ArrayView2<'_, f32>,
    ) -> Result<()> {
        self.residual.as_mut().map_or(Ok(()), |residual| add(residual, dense, compressed, inputs))
    }

    /// The weight to aim at instead of `weight`, `[out, in]`, for a `share` (0 to 1) of the drift; `factor` is that of
    /// `H + λI`, the same for all layers that read these inputs.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if weight or factor do not fit.
    pub fn target(&self, weight: ArrayView2<'_, f32>, factor: &InverseFactor, share: f32) -> Result<Array2<f32>> {
        let (rows, width) = weight.dim();
        check("weight", (rows, width), (self.residual.as_ref().map_or(rows, Array2::nrows), self.inputs.nrows()))?;
        check("inverse factor", (factor.width(), factor.width()), (width, width))?;
        let mut lacking = self.residual.clone().unwrap_or_else(|| Array2::zeros(weight.dim()));
        sparq_linalg::gemm(share, weight, self.inputs.view(), share, lacking.view_mut());
        let mut target = factor.solve(lacking.view());
        target += &weight;
        Ok(target)
    }
}

/// `sum += (dense - compressed)ᵀ inputs`.
fn add(
    sum: &mut Array2<f32>,
    dense: ArrayView2<'_, f32>,
    compressed: ArrayView2<'_, f32>,
    inputs: ArrayView2<'_, f32>,
) -> Result<()> {
    let tokens = inputs.nrows();
    check("dense activations", dense.dim(), (tokens, sum.nrows()))?;
    check("compressed activations", compressed.dim(), (tokens, sum.nrows()))?;
    check("inputs", inputs.dim(), (tokens, sum.ncols()))?;
    let lacking = &dense - &compressed;
    let (left, right) = (finite_rows(lacking.view()), finite_rows(inputs));
    if left.len() == tokens && right.len() == tokens {
        sparq_linalg::gemm(1.0, lacking.t(), inputs, 1.0, sum.view_mut());
    } else {
        let both: Vec<usize> = left.into_iter().filter(|token| right.binary_search(token).is_ok()).collect();
        let (lacking, inputs) = (lacking.select(Axis(0), &both), inputs.select(Axis(0), &both));
        sparq_linalg::gemm(1.0, lacking.t(), inputs.view(), 1.0, sum.view_mut());
    }
    Ok(())
}

fn check(what: &'static str, got: (usize, usize), expected: (usize, usize)) -> Result<()> {
    CompressError::check_shape("drift", what, got, expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use crate::{Damping, HessianAccumulator};
    use proptest::prelude::*;
    use sparq_core::{Hessian, Statistics};

    struct Problem {
        weight: Array2<f32>,
        inputs: [Array2<f32>; 2],
        residuals: [Array2<f32>; 2],
        hessian: Hessian,
        drift: Drift,
    }

    fn problem(rows: usize, width: usize, seed: u64) -> Problem {
        let tokens = 4 * width + 3;
        let dense = random(tokens, width, seed);
        let compressed = &dense + 0.3 * random(tokens, width, seed + 1) - 0.2 * &dense;
        let residuals = [random(tokens, rows, seed + 2), random(tokens, rows, seed + 3)];
        let mut hessian = HessianAccumulator::new(width, Statistics::Hessian).expect("small");
        hessian.add(compressed.view()).expect("fits");
        let mut drift = Drift::new(width, Some(rows));
        drift.add_inputs(dense.view(), compressed.view()).expect("fits");
        drift.add_residual(residuals[0].view(), residuals[1].view(), compressed.view()).expect("fits");
        let weight = random(rows, width, seed + 4);
        Problem { weight, inputs: [dense, compressed], residuals, hessian: hessian.finish(), drift }
    }

    impl Problem {
        fn target(&self, share: f32) -> Array2<f32> {
            let damping = Damping::new(0.0).expect("valid");
            let factor = InverseFactor::factorize(&self.hessian, self.weight.ncols(), damping).factor;
            self.drift.target(self.weight.view(), &factor, share).expect("fits")
        }

        /// What is left of the outputs and the residual stream together.
        fn error(&self, weight: &Array2<f32>) -> f64 {
            let wanted = self.inputs[0].dot(&self.weight.t()) + &self.residuals[0];
            let got = self.inputs[1].dot(&weight.t()) + &self.residuals[1];
            (&wanted - &got).iter().map(|&value| f64::from(value).powi(2)).sum()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_whole_share_is_the_least_squares_weight(rows in 1_usize..6, width in 1_usize..12, seed in 0_u64..1000) {
            let problem = problem(rows, width, seed);
            let best = problem.target(1.0);
            let least = problem.error(&best);
            prop_assert!(least <= problem.error(&problem.weight) * 1.000_01);
            for other in 0..4 {
                let moved = &best + 0.05 * random(rows, width, seed + 10 + other);
                prop_assert!(problem.error(&moved) >= least * 0.999_99, "{} {}", problem.error(&moved), least);
            }
        }

        #[test]
        fn no_share_and_no_drift_leave_the_weight(rows in 1_usize..6, width in 1_usize..12, seed in 0_u64..1000) {
            let problem = problem(rows, width, seed);
            prop_assert_eq!(&problem.target(0.0), &problem.weight);
            let mut none = Drift::new(width, None);
            none.add_inputs(problem.inputs[1].view(), problem.inputs[1].view()).expect("fits");
            let factor = InverseFactor::factorize(&problem.hessian, width, Damping::default()).factor;
            let same = none.target(problem.weight.view(), &factor, 1.0).expect("fits");
            prop_assert_eq!(&same, &problem.weight);
        }
    }

    #[test]
    fn tokens_that_are_not_finite_are_left_out() {
        let (dense, compressed) = (random(5, 3, 1), random(5, 3, 2));
        let mut some = Drift::new(3, None);
        let (kept_dense, kept) = (dense.select(Axis(0), &[0, 2, 4]), compressed.select(Axis(0), &[0, 2, 4]));
        some.add_inputs(kept_dense.view(), kept.view()).expect("fits");
        let (mut bad_dense, mut bad) = (dense, compressed);
        bad_dense[[1, 0]] = f32::NAN;
        bad[[3, 2]] = f32::INFINITY;
        let mut all = Drift::new(3, None);
        all.add_inputs(bad_dense.view(), bad.view()).expect("fits");
        assert_eq!(all.inputs, some.inputs);
        assert!(all.add_inputs(bad_dense.view(), random(4, 3, 1).view()).is_err());
    }
}
