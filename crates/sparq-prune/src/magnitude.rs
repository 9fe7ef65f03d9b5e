use crate::select::{mask_by_rows, remove_smallest, share};
use ndarray::Array2;
use sparq_core::{
    CompressedLayer, LayerCompressor, LayerProblem, Mask, Pruner, Result, Selection, SolveReport, Sparsity, Statistics,
};
use std::borrow::Cow;

/// Which weights compete with each other under an unstructured ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Scope {
    /// The weights of one output channel: every row loses the same share.
    Row,
    /// All weights of the layer, as in the baseline of the Wanda authors.
    #[default]
    Layer,
}

/// Removes the weights of smallest magnitude. Needs no data; the baseline to beat.
///
/// | parameter | default | meaning |
/// |---|---|---|
/// | sparsity | – | how much goes, in which pattern |
/// | [`scope`](Self::scope) | layer | who competes (unstructured only) |
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{LayerCompressor, LayerProblem, Sparsity};
/// use sparq_prune::{Magnitude, Scope};
/// let weight = array![[1.0_f32, 2.0], [3.0, 4.0]];
/// let problem = LayerProblem::uncalibrated("demo", weight.view())?;
/// let half = Magnitude::new(Sparsity::unstructured(0.5)?);
/// assert_eq!(half.compress(&problem)?.weight, array![[0.0, 0.0], [3.0, 4.0]]);
/// assert_eq!(half.scope(Scope::Row).compress(&problem)?.weight, array![[0.0, 2.0], [0.0, 4.0]]);
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Magnitude {
    sparsity: Sparsity,
    scope: Scope,
}

impl Magnitude {
    /// Removes `sparsity` of the layer.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { sparsity, scope: Scope::default() }
    }

    /// Lets these weights compete.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    fn mask(&self, problem: &LayerProblem<'_>) -> Result<Mask> {
        let weight = problem.weight();
        match (self.sparsity, self.scope) {
            (Sparsity::Unstructured(_), Scope::Layer) => {
                let scores: Vec<f32> = weight.iter().map(|value| value.abs()).collect();
                let mut kept = Array2::from_elem(weight.dim(), true);
                let count = share(self.sparsity, 0, scores.len());
                remove_smallest(&scores, count, kept.as_slice_mut().unwrap_or_default());
                Ok(Mask::new(kept))
            }
            _ => mask_by_rows(problem, self.sparsity, |row, column| weight[[row, column]].abs()),
        }
    }
}

impl LayerCompressor for Magnitude {
    fn name(&self) -> Cow<'static, str> {
        format!("magnitude {}", self.sparsity).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Nothing
    }

    fn is_by_row(&self) -> bool {
        self.scope == Scope::Row || matches!(self.sparsity, Sparsity::NOfM { .. })
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        Ok(masked(problem, self.mask(problem)?))
    }
}

impl Pruner for Magnitude {
    fn sparsity(&self) -> Sparsity {
        self.sparsity
    }

    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Selection<'_>> {
        Ok(Selection::Fixed(Cow::Owned(self.mask(problem)?)))
    }

    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner> {
        Box::new(Self { sparsity, ..self.clone() })
    }
}

/// The dense weight with what `mask` removes set to zero.
pub(crate) fn masked(problem: &LayerProblem<'_>, mask: Mask) -> CompressedLayer {
    let mut weight = problem.weight().to_owned();
    mask.apply(&mut weight);
    CompressedLayer { weight, mask: Some(mask), codes: None, report: SolveReport::default() }
}
