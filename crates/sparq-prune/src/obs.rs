use crate::magnitude::masked;
use crate::select::mask_by_rows;
use crate::{Choice, Pruner};
use sparq_core::{CompressedLayer, LayerCompressor, LayerProblem, Mask, Result, SolveReport, Sparsity, Statistics};
use sparq_obs::{Damping, InverseFactor};
use std::borrow::Cow;

/// Optimal brain surgeon's saliency: removes the weights of each row with the smallest `w² / [(H + λI)⁻¹]ⱼⱼ`, the error that
/// is left when a weight goes alone and all others make up for it. Other weights stay as they are.
///
/// Wanda's score knows how active a channel is; this one also knows how well other channels can stand in for it. SparseGPT
/// scores by the same formula, but in what remains of the problem when its sweep gets there, and lets all rows of a block
/// compete. Before a [refit](crate::Refitted) of all that stays, choosing once, row by row, is better on the models
/// measured (docs/results.md).
///
/// | parameter | default | meaning | range |
/// |---|---|---|---|
/// | sparsity | – | how much goes, in which pattern | |
/// | [`damping`](Self::damping) | 0.01 | added to the diagonal of H, times its mean | 0 to 1000 |
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Hessian, LayerCompressor, LayerProblem, Sparsity};
/// use sparq_prune::{Obs, Wanda};
/// let weight = array![[1.0_f32, 1.0, 0.9]];
/// // Channels 0 and 1 nearly agree: one of them is the easiest to do without, although channel 2 says the least.
/// let hessian = Hessian::Full { matrix: array![[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 1.0]], tokens: 8 };
/// let problem = LayerProblem::new("demo", weight.view(), &hessian)?;
/// let kept = |layer: sparq_core::CompressedLayer| layer.mask.map(|mask| mask.view().to_owned());
/// let third = Sparsity::unstructured(1.0 / 3.0)?;
/// assert_eq!(kept(Wanda::new(third).compress(&problem)?), Some(array![[true, true, false]]));
/// assert_eq!(kept(Obs::new(third).compress(&problem)?), Some(array![[false, true, true]]));
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// Hassibi & Stork 1992, "Second order derivatives for network pruning: Optimal Brain Surgeon".
#[derive(Debug, Clone, PartialEq)]
pub struct Obs {
    sparsity: Sparsity,
    damping: Damping,
}

impl Obs {
    /// Removes `sparsity` of every row.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { sparsity, damping: Damping::default() }
    }

    /// With this damping.
    pub fn damping(mut self, damping: Damping) -> Self {
        self.damping = damping;
        self
    }

    fn mask(&self, problem: &LayerProblem<'_>) -> Result<(Mask, SolveReport)> {
        problem.require(Statistics::Hessian, "OBS")?;
        let weight = problem.weight();
        let factored = InverseFactor::of(problem, self.damping);
        let inverse = factored.factor.inverse_diagonal();
        let score = |row, column: usize| f32::powi(weight[[row, column]], 2) / inverse[column];
        let report = SolveReport { damping: Some(factored.damping), fallbacks: factored.fallbacks.clone() };
        Ok((mask_by_rows(problem, self.sparsity, score)?, report))
    }
}

impl LayerCompressor for Obs {
    fn name(&self) -> Cow<'static, str> {
        format!("obs {}", self.sparsity).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        let (mask, report) = self.mask(problem)?;
        Ok(CompressedLayer { report, ..masked(problem, mask) })
    }
}

impl Pruner for Obs {
    fn sparsity(&self) -> Sparsity {
        self.sparsity
    }

    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Choice<'_>> {
        Ok(Choice::Fixed(self.mask(problem)?.0))
    }

    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner> {
        Box::new(Self { sparsity, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;
    use sparq_core::Hessian;
    use sparq_obs::{HessianAccumulator, Refit, relative_output_error};

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Array2::from_shape_fn((rows, columns), |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
        })
    }

    fn hessian(width: usize, seed: u64) -> Hessian {
        let inputs =
            random(4 * width, 3, seed).dot(&random(3, width, seed + 1)) + 0.3 * random(4 * width, width, seed + 2);
        let mut accumulator = HessianAccumulator::new(width, Statistics::Hessian).expect("small");
        accumulator.add(inputs.view()).expect("fits");
        accumulator.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_weight_that_goes_is_the_easiest_to_make_up_for(width in 2_usize..12, seed in 0_u64..1000) {
            let (weight, hessian, tiny) = (random(1, width, seed + 9), hessian(width, seed), Damping::new(1e-4).expect("valid"));
            let problem = LayerProblem::new("demo", weight.view(), &hessian).expect("fits");
            let one = Sparsity::unstructured(1.0 / width as f64).expect("valid");
            let mask = Obs::new(one).damping(tiny).compress(&problem).expect("solves").mask.expect("a mask");
            prop_assert_eq!(mask.kept(), width - 1);
            let left = |mask: &Mask| {
                let refitted = Refit::new(60).run(weight.view(), mask, &hessian, tiny).expect("fits");
                relative_output_error(weight.view(), refitted.view(), &hessian)
            };
            let chosen = left(&mask);
            for column in 0..width {
                let mut other = Array2::from_elem((1, width), true);
                other[[0, column]] = false;
                prop_assert!(chosen <= left(&Mask::new(other)) * 1.01 + 1e-7);
            }
        }

        #[test]
        fn counts_are_exact_and_rounds_keep_them(rows in 1_usize..6, seed in 0_u64..1000, pattern: bool, rounds in 1_usize..5) {
            let sparsity = if pattern { Sparsity::n_of_m(2, 4) } else { Sparsity::unstructured(0.4) }.expect("valid");
            let (weight, hessian) = (random(rows, 20, seed + 9), hessian(20, seed));
            let problem = LayerProblem::new("demo", weight.view(), &hessian).expect("fits");
            let pruner = crate::Refitted::new(Obs::new(sparsity), Refit::new(4)).rounds(rounds);
            let layer = pruner.compress(&problem).expect("solves");
            let mask = layer.mask.expect("a mask");
            for row in mask.view().outer_iter() {
                let removed = |row: ndarray::ArrayView1<'_, bool>| row.iter().filter(|kept| !**kept).count();
                prop_assert_eq!(removed(row), (20.0 * sparsity.fraction()) as usize);
                if pattern {
                    prop_assert!(row.exact_chunks(4).into_iter().all(|group| removed(group) == 2));
                }
            }
            for (place, value) in layer.weight.indexed_iter() {
                prop_assert!(mask.view()[place] || value.to_bits() == 0);
            }
        }
    }
}
