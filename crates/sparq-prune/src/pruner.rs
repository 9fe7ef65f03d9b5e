use sparq_core::{LayerCompressor, LayerProblem, Mask, Result, Sparsity};
use sparq_obs::{BlockRule, RowRule, Selection};

/// A method that chooses which weights go, alone or as the first half of a joint method.
pub trait Pruner: LayerCompressor {
    /// How much is removed, in which pattern.
    fn sparsity(&self) -> Sparsity;

    /// The choice, in the form a column sweep takes: made beforehand, or while it sweeps.
    ///
    /// # Errors
    /// As [`LayerCompressor::compress`].
    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Choice<'_>>;

    /// The same method removing `sparsity` instead.
    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner>;

    /// Whether the weights it leaves already make up for those it removed, as well as weights on its mask can, so that
    /// a quantizer should start from them and not from the dense ones.
    fn refits(&self) -> bool {
        false
    }
}

/// Where the choice of a pruner stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Choice<'a> {
    /// Made beforehand.
    Fixed(Mask),
    /// Made by the sweep, across all rows of a block.
    PerBlock(&'a dyn BlockRule),
    /// Made by the sweep, inside each row.
    PerRow(&'a dyn RowRule),
}

impl Choice<'_> {
    /// The choice as the sweep takes it.
    pub fn selection(&self) -> Selection<'_> {
        match self {
            Self::Fixed(mask) => Selection::Fixed(mask),
            Self::PerBlock(rule) => Selection::PerBlock(*rule),
            Self::PerRow(rule) => Selection::PerRow(*rule),
        }
    }
}

impl<T: Pruner + ?Sized> Pruner for Box<T> {
    fn sparsity(&self) -> Sparsity {
        (**self).sparsity()
    }

    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Choice<'_>> {
        (**self).choose(problem)
    }

    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner> {
        (**self).at(sparsity)
    }

    fn refits(&self) -> bool {
        (**self).refits()
    }
}
