use crate::magnitude::masked;
use crate::select::mask_by_rows;
use sparq_core::{
    CompressedLayer, Fallback, LayerCompressor, LayerProblem, Mask, Pruner, Result, Selection, Sparsity, Statistics,
};
use std::borrow::Cow;

/// Wanda: removes from each row the weights of smallest `|w| · ‖x‖`, `‖x‖` being the norm of the weight's input channel
/// over the calibration tokens. Updates nothing.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Curvature, Hessian, LayerCompressor, LayerProblem, Sparsity};
/// let weight = array![[1.0_f32, 2.0]];
/// let norms = Hessian::Diagonal { sums: array![100.0, 1.0], tokens: 8 }; // channel 0 is ten times as active
/// let curvature = Curvature::new(norms);
/// let problem = LayerProblem::new("demo", weight.view(), &curvature)?;
/// let pruned = sparq_prune::Wanda::new(Sparsity::unstructured(0.5)?).compress(&problem)?;
/// assert_eq!(pruned.weight, array![[1.0, 0.0]]);
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// Sun et al. 2023, arXiv:2306.11695.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanda {
    sparsity: Sparsity,
}

impl Wanda {
    /// Removes `sparsity` of every row.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { sparsity }
    }

    /// Chooses by magnitude alone where norms are of no use: no channel was ever active, or sums overflowed.
    fn mask(&self, problem: &LayerProblem<'_>) -> Result<(Mask, Option<Fallback>)> {
        problem.require(Statistics::ChannelNorms, "Wanda")?;
        let sums = problem.hessian().diagonal().unwrap_or_default();
        let usable = sums.is_empty() || (sums.iter().all(|sum| sum.is_finite()) && sums.iter().any(|&sum| sum > 0.0));
        let norms = sums.mapv(|sum| if usable { sum.max(0.0).sqrt() } else { 1.0 });
        let weight = problem.weight();
        let mask = mask_by_rows(problem, self.sparsity, |row, column| weight[[row, column]].abs() * norms[column])?;
        Ok((mask, (!usable).then_some(Fallback::NoCurvature)))
    }
}

impl LayerCompressor for Wanda {
    fn name(&self) -> Cow<'static, str> {
        format!("wanda {}", self.sparsity).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::ChannelNorms
    }

    fn is_by_row(&self) -> bool {
        true
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        let (mask, fallback) = self.mask(problem)?;
        let mut layer = masked(problem, mask);
        layer.report.fallbacks.extend(fallback);
        Ok(layer)
    }
}

impl Pruner for Wanda {
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
    use ndarray::array;
    use sparq_core::{Curvature, Hessian};

    #[test]
    fn without_any_activity_magnitudes_decide_and_the_report_says_so() {
        let weight = array![[4.0_f32, 1.0, 3.0, 2.0]];
        for sums in [array![0.0_f32, 0.0, 0.0, 0.0], array![f32::INFINITY, f32::INFINITY, f32::INFINITY, 1.0]] {
            let curvature = Curvature::new(Hessian::Diagonal { sums, tokens: 3 });
            let problem = LayerProblem::new("idle", weight.view(), &curvature).expect("valid");
            let wanda = Wanda::new(Sparsity::unstructured(0.5).expect("valid"));
            let pruned = wanda.compress(&problem).expect("solved");
            assert_eq!(pruned.weight, array![[4.0, 0.0, 3.0, 0.0]]);
            assert_eq!(pruned.report.fallbacks, [Fallback::NoCurvature]);
        }
    }
}
