use sparq_core::{CompressedLayer, LayerCompressor, LayerProblem, Result, Statistics};
use sparq_prune::Pruner;
use sparq_quant::{Gptq, Quantizer};
use std::borrow::Cow;

/// Pruning and rounding in one column sweep: the error of removing and the error of rounding are compensated together,
/// with one Hessian and one factorization.
///
/// The pruner chooses as the sweep goes (SparseGPT) or beforehand (Wanda, magnitude); the quantizer's grids are fitted
/// on the weights that stay. Removed weights are exactly zero at the end.
///
/// See the [crate example](crate). Settings of the sweep (damping, block size) are the quantizer's.
#[derive(Debug, Clone, PartialEq)]
pub struct OnePass<P> {
    pruner: P,
    quantizer: Gptq,
}

impl<P: Pruner> OnePass<P> {
    /// Chooses with `pruner` and rounds with `quantizer`.
    pub fn new(pruner: P, quantizer: Gptq) -> Self {
        Self { pruner, quantizer }
    }
}

impl<P: Pruner> LayerCompressor for OnePass<P> {
    fn name(&self) -> Cow<'static, str> {
        format!("joint {} + {} bit", self.pruner.name(), self.quantizer.scheme().bits).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        let choice = self.pruner.choose(problem)?;
        self.quantizer.compress_while(problem, &choice.selection())
    }
}
