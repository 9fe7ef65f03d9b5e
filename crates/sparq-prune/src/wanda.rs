use crate::magnitude::masked;
use crate::select::mask_by_rows;
use crate::{Choice, Pruner};
use sparq_core::{CompressedLayer, LayerCompressor, LayerProblem, Mask, Result, Sparsity, Statistics};
use std::borrow::Cow;

/// Wanda: removes from each row the weights of smallest `|w| · ‖x‖`, `‖x‖` being the norm of the weight's input channel
/// over the calibration tokens. Updates nothing.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Hessian, LayerCompressor, LayerProblem, Sparsity};
/// let weight = array![[1.0_f32, 2.0]];
/// let norms = Hessian::Diagonal { sums: array![100.0, 1.0], tokens: 8 }; // channel 0 is ten times as loud
/// let problem = LayerProblem::new("demo", weight.view(), &norms)?;
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

    fn mask(&self, problem: &LayerProblem<'_>) -> Result<Mask> {
        problem.require(Statistics::ChannelNorms, "Wanda")?;
        let norms = problem.hessian().diagonal().unwrap_or_default().mapv(|sum| sum.max(0.0).sqrt());
        let weight = problem.weight();
        mask_by_rows(problem, self.sparsity, |row, column| weight[[row, column]].abs() * norms[column])
    }
}

impl LayerCompressor for Wanda {
    fn name(&self) -> Cow<'static, str> {
        format!("wanda {}", self.sparsity).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::ChannelNorms
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        Ok(masked(problem, self.mask(problem)?))
    }
}

impl Pruner for Wanda {
    fn sparsity(&self) -> Sparsity {
        self.sparsity
    }

    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Choice<'_>> {
        Ok(Choice::Fixed(self.mask(problem)?))
    }

    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner> {
        Box::new(Self { sparsity })
    }
}
