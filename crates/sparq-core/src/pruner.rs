use crate::{LayerCompressor, LayerProblem, Result, Selection, Sparsity};

/// A method that chooses which weights go, alone or as the first half of a [`Solver`](crate::Solver).
pub trait Pruner: LayerCompressor {
    /// How much is removed, in which pattern.
    fn sparsity(&self) -> Sparsity;

    /// The choice, in the form a column sweep takes: a mask made beforehand, or a rule for the sweep to follow.
    ///
    /// # Errors
    /// As [`LayerCompressor::compress`].
    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Selection<'_>>;

    /// The same method removing `sparsity` instead.
    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner>;
}
