use crate::magnitude::masked;
use crate::select::mask_by_rows;
use sparq_core::{
    CompressedLayer, LayerCompressor, LayerProblem, Mask, Pruner, Result, Selection, SolveReport, Sparsity, Statistics,
};
use std::borrow::Cow;

/// The saliency of optimal brain surgeon: removes the weights of each row with the smallest `w² / [(H + λI)⁻¹]ⱼⱼ`. This is
/// the error that is left when one weight goes and all others make up for it. Other weights stay as they are.
///
/// The score takes in how active a channel is, as Wanda's does, and how well other channels can stand in for it. SparseGPT
/// uses the same formula on the columns that its sweep has not visited yet, and lets all rows of a block compete. Before a
/// [refit](sparq_core::Refit), choosing once, row by row, is better on the models measured (docs/results.md).
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Curvature, Hessian, LayerCompressor, LayerProblem, Sparsity};
/// use sparq_prune::{Obs, Wanda};
/// let weight = array![[1.0_f32, 1.01, 0.9]];
/// // Channels 0 and 1 nearly agree: one of them is the easiest to do without, although channel 2 says the least.
/// let hessian = Hessian::Full { matrix: array![[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 1.0]], tokens: 8 };
/// let curvature = Curvature::new(hessian);
/// let problem = LayerProblem::new("demo", weight.view(), &curvature)?;
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
}

impl Obs {
    /// Removes `sparsity` of every row.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { sparsity }
    }

    fn mask(&self, problem: &LayerProblem<'_>) -> Result<(Mask, SolveReport)> {
        problem.require(Statistics::Hessian, "OBS")?;
        let weight = problem.weight();
        let inverse = problem.curvature().factor().inverse_diagonal();
        let score = |row, column: usize| f32::powi(weight[[row, column]], 2) / inverse[column];
        Ok((mask_by_rows(problem, self.sparsity, score)?, problem.curvature().report()))
    }
}

impl LayerCompressor for Obs {
    fn name(&self) -> Cow<'static, str> {
        format!("obs {}", self.sparsity).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn is_by_row(&self) -> bool {
        true
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

    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Selection<'_>> {
        Ok(Selection::Fixed(Cow::Owned(self.mask(problem)?.0)))
    }

    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner> {
        Box::new(Self { sparsity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;
    use sparq_core::{Curvature, Damping, Refit, Solver, relative_output_error};

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Array2::from_shape_fn((rows, columns), |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
        })
    }

    fn curvature(width: usize, seed: u64) -> Curvature {
        let inputs =
            random(4 * width, 3, seed).dot(&random(3, width, seed + 1)) + 0.3 * random(4 * width, width, seed + 2);
        Curvature::of_inputs(inputs.view()).expect("small")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_weight_that_goes_is_the_easiest_to_make_up_for(width in 2_usize..12, seed in 0_u64..1000) {
            let weight = random(1, width, seed + 9);
            let curvature = curvature(width, seed).with_damping(Damping::new(1e-4).expect("valid"));
            let problem = LayerProblem::new("demo", weight.view(), &curvature).expect("fits");
            let one = Sparsity::unstructured(1.0 / width as f64).expect("valid");
            let mask = Obs::new(one).compress(&problem).expect("solves").mask.expect("a mask");
            prop_assert_eq!(mask.kept(), width - 1);
            let left = |mask: &Mask| {
                let refitted = Refit::new(60).run(weight.view(), mask, &curvature).expect("fits");
                relative_output_error(weight.view(), refitted.view(), curvature.hessian())
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
            let (weight, curvature) = (random(rows, 20, seed + 9), curvature(20, seed));
            let problem = LayerProblem::new("demo", weight.view(), &curvature).expect("fits");
            let pruner = Solver::new().prune(Obs::new(sparsity)).refit(4).mask_rounds(rounds);
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
