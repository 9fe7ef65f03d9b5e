use crate::hessian::finite_rows;
use crate::{CompressError, Curvature, Result};
use ndarray::{Array2, ArrayView2, Axis, s};

/// Sums up how far a layer's inputs have drifted from those of the dense model, to let layers undo some of it.
///
/// A layer that comes after compressed ones gets inputs `X̃` where the dense model has `X`. Asked to give `X Wᵀ` rather
/// than `X̃ Wᵀ`, it can take back what of the drift its inputs still tell. The weight to aim at is
///
/// ```text
/// W* = W + share · W (X - X̃)ᵀX̃ (H + λI)⁻¹        with H = X̃ᵀX̃
/// ```
///
/// and compressing `W*` on `X̃` is the same problem as matching the dense outputs, up to a constant. So every pruner and
/// quantizer gains from it without knowing. A share below 1 guards against fitting the calibration tokens.
///
/// One sum serves all layers that read these inputs. For a layer with fewer outputs than inputs, or whose outputs go
/// straight into the residual stream, [`OutputDrift`] takes less and does more.
///
/// Cost: `tokens · in²` multiply-adds and `[in, in]` values; same bits for any number of threads.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Curvature, Damping, InputDrift};
/// let (dense, compressed) = (array![[2.0_f32], [4.0]], array![[1.0_f32], [2.0]]); // inputs came out half as large
/// let curvature = Curvature::of_inputs(compressed.view())?.with_damping(Damping::new(0.0)?);
/// let mut drift = InputDrift::new(1);
/// drift.add(dense.view(), compressed.view())?;
/// let target = drift.target(array![[3.0]].view(), &curvature, 1.0)?;
/// assert!((target[[0, 0]] - 6.0).abs() < 1e-4); // so the weight doubles
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// GPTAQ (Li et al. 2025, arXiv:2504.02692) and Qronos (Zhang et al. 2025, arXiv:2505.11695), which fold the term into the
/// column loop of a quantizer.
#[derive(Debug, Clone)]
pub struct InputDrift {
    /// `(X - X̃)ᵀX̃`, `[in, in]`.
    sum: Array2<f32>,
}

impl InputDrift {
    /// Nothing yet, for layers of `width` input channels.
    pub fn new(width: usize) -> Self {
        Self { sum: Array2::zeros((width, width)) }
    }

    /// The sum so far, which is added to that of other tokens.
    pub fn sum_mut(&mut self) -> &mut Array2<f32> {
        &mut self.sum
    }

    /// The sum so far.
    pub fn sum(&self) -> &Array2<f32> {
        &self.sum
    }

    /// Adds tokens by their inputs in the dense model and in the compressed one, both `[tokens, in]`. Tokens that are
    /// not finite in either are left out.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the shapes do not fit.
    pub fn add(&mut self, dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>) -> Result<()> {
        let shape = (compressed.nrows(), self.sum.nrows());
        check("dense inputs", dense.dim(), shape)?;
        check("compressed inputs", compressed.dim(), shape)?;
        add(&mut self.sum, &(&dense - &compressed), compressed);
        Ok(())
    }

    /// The weight to aim at instead of `weight`, `[out, in]`, for a `share` (0 to 1) of the drift; `curvature` is that
    /// of the compressed model's inputs.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if weight or curvature do not fit.
    pub fn target(&self, weight: ArrayView2<'_, f32>, curvature: &Curvature, share: f32) -> Result<Array2<f32>> {
        let (rows, width) = weight.dim();
        check("weight", (rows, width), (rows, self.sum.nrows()))?;
        let mut lacking = Array2::zeros(weight.dim());
        sparq_linalg::gemm(share, weight, self.sum.view(), 0.0, lacking.view_mut());
        target(weight, lacking, curvature)
    }
}

/// Sums up how far one layer's outputs, and the residual stream they go into, have drifted from those of the dense model.
///
/// As [`InputDrift`], for a single layer. If its outputs go straight into the residual stream, it can take back some of
/// that stream's drift `R - R̃` as well:
///
/// ```text
/// W* = W + share · [(X - X̃) Wᵀ + (R - R̃)]ᵀ X̃ (H + λI)⁻¹        with H = X̃ᵀX̃
/// ```
///
/// Cost: `2 · tokens · out · in` multiply-adds and `[out, in]` values; same bits for any number of threads.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Curvature, Damping, OutputDrift};
/// let inputs = array![[1.0_f32], [2.0]]; // the same in both models
/// let (dense, compressed) = (array![[5.0_f32], [10.0]], array![[4.0_f32], [8.0]]); // but the stream lacks a fifth
/// let weight = array![[3.0_f32]];
/// let curvature = Curvature::of_inputs(inputs.view())?.with_damping(Damping::new(0.0)?);
/// let mut drift = OutputDrift::new(1, 1);
/// drift.add(weight.view(), [inputs.view(), inputs.view()], Some([dense.view(), compressed.view()]))?;
/// let target = drift.target(weight.view(), &curvature, 1.0)?;
/// assert!((target[[0, 0]] - 4.0).abs() < 1e-4); // 3 from its own inputs, 1 more to fill the gap
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// The term of the outputs is that of [`InputDrift`]; that of the residual stream is ours.
#[derive(Debug, Clone)]
pub struct OutputDrift {
    /// `[(X - X̃) Wᵀ + (R - R̃)]ᵀ X̃`, `[out, in]`.
    sum: Array2<f32>,
}

impl OutputDrift {
    /// Nothing yet, for a layer of this many outputs and inputs.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { sum: Array2::zeros((rows, width)) }
    }

    /// The sum so far, which is added to that of other tokens.
    pub fn sum_mut(&mut self) -> &mut Array2<f32> {
        &mut self.sum
    }

    /// The sum so far.
    pub fn sum(&self) -> &Array2<f32> {
        &self.sum
    }

    /// Adds tokens: the dense `weight`, `[out, in]`; their `inputs` in the dense model and in the compressed one,
    /// `[tokens, in]`; and the residual stream of both before the layer's outputs are added, `[tokens, out]`, if they go
    /// there as they are. Tokens that are not finite in any of these are left out.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the shapes do not fit.
    pub fn add(
        &mut self,
        weight: ArrayView2<'_, f32>,
        inputs: [ArrayView2<'_, f32>; 2],
        residual: Option<[ArrayView2<'_, f32>; 2]>,
    ) -> Result<()> {
        let ([dense, compressed], (rows, width)) = (inputs, self.sum.dim());
        let tokens = compressed.nrows();
        check("weight", weight.dim(), (rows, width))?;
        check("dense inputs", dense.dim(), (tokens, width))?;
        check("compressed inputs", compressed.dim(), (tokens, width))?;
        let mut lacking = match residual {
            Some([dense, compressed]) => {
                check("dense residual stream", dense.dim(), (tokens, rows))?;
                check("compressed residual stream", compressed.dim(), (tokens, rows))?;
                &dense - &compressed
            }
            None => Array2::zeros((tokens, rows)),
        };
        sparq_linalg::gemm(1.0, (&dense - &compressed).view(), weight.t(), 1.0, lacking.view_mut());
        add(&mut self.sum, &lacking, compressed);
        Ok(())
    }

    /// The weight to aim at instead of `weight`, the one tokens were added with, for a `share` (0 to 1) of the drift;
    /// `curvature` is that of the compressed model's inputs.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if weight or curvature do not fit.
    pub fn target(&self, weight: ArrayView2<'_, f32>, curvature: &Curvature, share: f32) -> Result<Array2<f32>> {
        check("weight", weight.dim(), self.sum.dim())?;
        self.target_of_rows(weight, 0, curvature, share)
    }

    /// As [`target`](Self::target), for rows of the weight from `first` on.
    ///
    /// # Errors
    /// Those of [`target`](Self::target).
    pub fn target_of_rows(
        &self,
        weight: ArrayView2<'_, f32>,
        first: usize,
        curvature: &Curvature,
        share: f32,
    ) -> Result<Array2<f32>> {
        let rows = self.sum.nrows().saturating_sub(first).min(weight.nrows());
        check("weight", weight.dim(), (rows, self.sum.ncols()))?;
        target(weight, share * &self.sum.slice(s![first..first + rows, ..]), curvature)
    }
}

/// `sum += lackingᵀ inputs`, over the tokens that are finite in both.
fn add(sum: &mut Array2<f32>, lacking: &Array2<f32>, inputs: ArrayView2<'_, f32>) {
    let tokens = inputs.nrows();
    let (left, right) = (finite_rows(lacking.view()), finite_rows(inputs));
    if left.len() == tokens && right.len() == tokens {
        sparq_linalg::gemm(1.0, lacking.t(), inputs, 1.0, sum.view_mut());
    } else {
        let both: Vec<usize> = left.into_iter().filter(|token| right.binary_search(token).is_ok()).collect();
        let (lacking, inputs) = (lacking.select(Axis(0), &both), inputs.select(Axis(0), &both));
        sparq_linalg::gemm(1.0, lacking.t(), inputs.view(), 1.0, sum.view_mut());
    }
}

/// `weight + lacking · (H + λI)⁻¹`.
fn target(weight: ArrayView2<'_, f32>, lacking: Array2<f32>, curvature: &Curvature) -> Result<Array2<f32>> {
    let mut target = curvature.factor().solve(lacking.view())?;
    target += &weight;
    Ok(target)
}

fn check(what: &'static str, got: (usize, usize), expected: (usize, usize)) -> Result<()> {
    CompressError::check_shape("drift", what, got, expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Damping;
    use crate::testing::random;
    use proptest::prelude::*;

    struct Problem {
        weight: Array2<f32>,
        inputs: [Array2<f32>; 2],
        residuals: [Array2<f32>; 2],
        curvature: Curvature,
        drift: OutputDrift,
    }

    fn problem(rows: usize, width: usize, seed: u64) -> Problem {
        let tokens = 4 * width + 3;
        let dense = random(tokens, width, seed);
        let compressed = &dense + 0.3 * random(tokens, width, seed + 1) - 0.2 * &dense;
        let residuals = [random(tokens, rows, seed + 2), random(tokens, rows, seed + 3)];
        let curvature = Curvature::of_inputs(compressed.view()).expect("small");
        let weight = random(rows, width, seed + 4);
        let mut drift = OutputDrift::new(rows, width);
        let [r, s] = [&residuals[0], &residuals[1]].map(|residual| residual.view());
        drift.add(weight.view(), [dense.view(), compressed.view()], Some([r, s])).expect("fits");
        let curvature = curvature.with_damping(Damping::new(0.0).expect("valid"));
        Problem { weight, inputs: [dense, compressed], residuals, curvature, drift }
    }

    impl Problem {
        fn target(&self, share: f32) -> Array2<f32> {
            self.drift.target(self.weight.view(), &self.curvature, share).expect("fits")
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
            let mut none = InputDrift::new(width);
            none.add(problem.inputs[1].view(), problem.inputs[1].view()).expect("fits");
            let same = none.target(problem.weight.view(), &problem.curvature, 1.0).expect("fits");
            prop_assert_eq!(&same, &problem.weight);
        }
    }

    #[test]
    fn inputs_and_outputs_give_the_same_target_where_no_residual_stream_is() {
        let problem = problem(4, 9, 7);
        let [dense, compressed] = [&problem.inputs[0], &problem.inputs[1]].map(|inputs| inputs.view());
        let (mut inputs, mut outputs) = (InputDrift::new(9), OutputDrift::new(4, 9));
        inputs.add(dense, compressed).expect("fits");
        outputs.add(problem.weight.view(), [dense, compressed], None).expect("fits");
        let one = inputs.target(problem.weight.view(), &problem.curvature, 0.5).expect("fits");
        let other = outputs.target(problem.weight.view(), &problem.curvature, 0.5).expect("fits");
        assert!(one.iter().zip(&other).all(|(one, other)| (one - other).abs() < 1e-4), "{one} {other}");
    }

    #[test]
    fn tokens_that_are_not_finite_are_left_out() {
        let (dense, compressed, weight) = (random(5, 3, 1), random(5, 3, 2), random(2, 3, 3));
        let residual = [random(5, 2, 4), random(5, 2, 5)];
        let kept = |all: &Array2<f32>| all.select(Axis(0), &[0, 2, 4]);
        let (kept_dense, kept_inputs, kept_residual) =
            (kept(&dense), kept(&compressed), [kept(&residual[0]), kept(&residual[1])]);
        let (mut some, mut some_outputs) = (InputDrift::new(3), OutputDrift::new(2, 3));
        some.add(kept_dense.view(), kept_inputs.view()).expect("fits");
        let [r, s] = &kept_residual;
        some_outputs
            .add(weight.view(), [kept_dense.view(), kept_inputs.view()], Some([r.view(), s.view()]))
            .expect("fits");

        let (mut bad_dense, mut bad) = (dense, compressed);
        bad_dense[[1, 0]] = f32::NAN;
        // One side alone is enough.
        let without = |all: &Array2<f32>| all.select(Axis(0), &[0, 2, 3, 4]);
        let (mut one_side, mut four) = (InputDrift::new(3), InputDrift::new(3));
        one_side.add(bad_dense.view(), bad.view()).expect("fits");
        four.add(without(&bad_dense).view(), without(&bad).view()).expect("fits");
        assert_eq!(one_side.sum, four.sum);
        bad[[3, 2]] = f32::INFINITY;
        let (mut all, mut all_outputs) = (InputDrift::new(3), OutputDrift::new(2, 3));
        all.add(bad_dense.view(), bad.view()).expect("fits");
        assert_eq!(all.sum, some.sum);
        let [r, s] = &residual;
        all_outputs.add(weight.view(), [bad_dense.view(), bad.view()], Some([r.view(), s.view()])).expect("fits");
        assert_eq!(all_outputs.sum, some_outputs.sum);
        assert!(all.add(bad_dense.view(), random(4, 3, 1).view()).is_err());
        assert!(all_outputs.add(weight.view(), [bad_dense.view(), random(4, 3, 1).view()], None).is_err());
    }
}
