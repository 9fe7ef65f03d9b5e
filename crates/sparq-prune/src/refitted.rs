use crate::{Choice, Pruner};
use ndarray::{Array2, CowArray};
use sparq_core::{CompressedLayer, LayerCompressor, LayerProblem, Mask, Result, Sparsity, Statistics};
use sparq_obs::{Damping, Refit};
use std::borrow::Cow;

/// A pruner whose kept weights are refitted together afterwards: its mask, with the best weights for it.
///
/// | parameter | default | meaning |
/// |---|---|---|
/// | pruner | – | chooses the mask; what it does to the weights is not used |
/// | refit | – | steps of conjugate gradients |
/// | [`damping`](Self::damping) | 0.01 | added to the diagonal of H, times its mean; draws weights to the dense ones |
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Hessian, LayerCompressor, LayerProblem, Sparsity};
/// use sparq_obs::Refit;
/// use sparq_prune::{Magnitude, Refitted};
/// let weight = array![[1.0_f32, 0.5]];
/// let hessian = Hessian::Full { matrix: array![[1.0, 1.0], [1.0, 1.0]], tokens: 8 };
/// let problem = LayerProblem::new("demo", weight.view(), &hessian)?;
/// let pruner = Refitted::new(Magnitude::new(Sparsity::n_of_m(1, 2)?), Refit::new(5));
/// assert!((pruner.compress(&problem)?.weight[[0, 0]] - 1.5).abs() < 0.02); // took over what channel 1 did
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Refitted<P> {
    pruner: P,
    refit: Refit,
    damping: Damping,
    rounds: usize,
}

impl<P: Pruner> Refitted<P> {
    /// Refits what `pruner` keeps.
    pub fn new(pruner: P, refit: Refit) -> Self {
        Self { pruner, refit, damping: Damping::default(), rounds: 1 }
    }

    /// Reaches the sparsity in this many rounds (at least 1), each choosing among weights refitted after the one before.
    /// The share kept falls evenly from round to round; patterns lose one weight of a group after the other.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds.max(1);
        self
    }

    /// With this damping.
    pub fn damping(mut self, damping: Damping) -> Self {
        self.damping = damping;
        self
    }
}

impl<P: Pruner> Refitted<P> {
    /// What the pruner leaves in the last round, before the last refit.
    fn chosen(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        problem.require(Statistics::Hessian, "a refit")?;
        let mut current = CowArray::from(problem.weight());
        for sparsity in schedule(self.pruner.sparsity(), self.rounds)? {
            let chosen = self.pruner.at(sparsity).compress(&problem.with_weight(current.view())?)?;
            current = CowArray::from(self.refit(problem, &mask_of(&chosen))?);
        }
        self.pruner.compress(&problem.with_weight(current.view())?)
    }

    fn refit(&self, problem: &LayerProblem<'_>, mask: &Mask) -> Result<Array2<f32>> {
        self.refit.run(problem.weight(), mask, problem.hessian(), self.damping)
    }
}

impl<P: Pruner> LayerCompressor for Refitted<P> {
    fn name(&self) -> Cow<'static, str> {
        format!("{} refitted", self.pruner.name()).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        let mut layer = self.chosen(problem)?;
        let mask = mask_of(&layer);
        layer.weight = self.refit(problem, &mask)?;
        layer.mask = Some(mask);
        Ok(layer)
    }
}

impl<P: Pruner> Pruner for Refitted<P> {
    fn sparsity(&self) -> Sparsity {
        self.pruner.sparsity()
    }

    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Choice<'_>> {
        Ok(Choice::Fixed(mask_of(&self.chosen(problem)?)))
    }

    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner> {
        let pruner = self.pruner.at(sparsity);
        Box::new(Refitted { pruner, refit: self.refit, damping: self.damping, rounds: self.rounds })
    }

    fn refits(&self) -> bool {
        true
    }
}

fn mask_of(layer: &CompressedLayer) -> Mask {
    layer.mask.clone().unwrap_or_else(|| Mask::from_nonzero(layer.weight.view()))
}

/// What is removed in each round but the last.
fn schedule(sparsity: Sparsity, rounds: usize) -> Result<Vec<Sparsity>> {
    match sparsity {
        Sparsity::Unstructured(fraction) => {
            (1..rounds).map(|round| Sparsity::unstructured(fraction * round as f64 / rounds as f64)).collect()
        }
        Sparsity::NOfM { kept, of } if rounds > 1 => {
            ((kept + 1)..of).rev().map(|kept| Sparsity::n_of_m(kept, of)).collect()
        }
        _ => Ok(Vec::new()),
    }
}
