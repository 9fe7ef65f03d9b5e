use sparq_core::{CompressedLayer, LayerCompressor, LayerProblem, Mask, Result, Statistics};
use sparq_prune::Pruner;
use sparq_quant::Quantizer;
use std::borrow::Cow;

/// The paper's Case A: prune, then quantize every weight of the result.
///
/// Compensation in the second step moves some zeros off zero; the sparsity that is left is in
/// [`CompressedLayer::mask`], which is taken from the final weight.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Bits, Hessian, LayerCompressor, LayerProblem, QuantScheme, Sparsity};
/// let weight = array![[1.0_f32, -0.2, 0.6, 0.1]];
/// let problem = LayerProblem::new("demo", weight.view(), &Hessian::None)?;
/// let method = sparq_joint::SequentialA::new(
///     sparq_prune::Magnitude::new(Sparsity::unstructured(0.5)?),
///     sparq_quant::Rtn::new(QuantScheme::new(Bits::B4)),
/// );
/// assert_eq!(method.compress(&problem)?.mask.map(|mask| mask.kept()), Some(2)); // plain rounding moves no zero
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SequentialA<P, Q> {
    pruner: P,
    quantizer: Q,
}

/// The paper's Case B: prune, then quantize the weights that survived. The mask is kept.
///
/// With a compensating quantizer the second step starts from the *dense* weight and the pruner's mask, so that one
/// sweep makes up for what was removed as well as for what was rounded. After SparseGPT this equals starting from its
/// output (the corrections are the same); after Wanda or magnitude it is what gives them compensation at all. After a
/// pruner that [refits](sparq_prune::Pruner::refits) it starts from the refitted weight.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Bits, Hessian, LayerCompressor, LayerProblem, QuantScheme, Sparsity};
/// let weight = array![[1.0_f32, -0.2, 0.6, 0.1]];
/// let problem = LayerProblem::new("demo", weight.view(), &Hessian::None)?;
/// let method = sparq_joint::SequentialB::new(
///     sparq_prune::Magnitude::new(Sparsity::n_of_m(2, 4)?),
///     sparq_quant::Rtn::new(QuantScheme::new(Bits::B4)),
/// );
/// assert_eq!(method.compress(&problem)?.mask.map(|mask| mask.kept()), Some(2));
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SequentialB<P, Q> {
    pruner: P,
    quantizer: Q,
}

impl<P: Pruner, Q: Quantizer> SequentialA<P, Q> {
    /// Prunes with `pruner`, then quantizes with `quantizer`.
    pub fn new(pruner: P, quantizer: Q) -> Self {
        Self { pruner, quantizer }
    }
}

impl<P: Pruner, Q: Quantizer> SequentialB<P, Q> {
    /// Prunes with `pruner`, then quantizes the survivors with `quantizer`.
    pub fn new(pruner: P, quantizer: Q) -> Self {
        Self { pruner, quantizer }
    }
}

fn needs(pruner: &impl LayerCompressor, quantizer: &impl LayerCompressor) -> Statistics {
    pruner.needs().max(quantizer.needs())
}

impl<P: Pruner, Q: Quantizer> LayerCompressor for SequentialA<P, Q> {
    fn name(&self) -> Cow<'static, str> {
        format!("{} then {}", self.pruner.name(), self.quantizer.name()).into()
    }

    fn needs(&self) -> Statistics {
        needs(&self.pruner, &self.quantizer)
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        let pruned = self.pruner.compress(problem)?;
        let mut layer = self.quantizer.compress(&problem.with_weight(pruned.weight.view())?)?;
        layer.mask = Some(Mask::from_nonzero(layer.weight.view()));
        join_reports(&mut layer, pruned);
        Ok(layer)
    }
}

impl<P: Pruner, Q: Quantizer> LayerCompressor for SequentialB<P, Q> {
    fn name(&self) -> Cow<'static, str> {
        format!("{} then {} of survivors", self.pruner.name(), self.quantizer.name()).into()
    }

    fn needs(&self) -> Statistics {
        needs(&self.pruner, &self.quantizer)
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        let pruned = self.pruner.compress(problem)?;
        // A quantizer that compensates wants the dense weight, to make up for what was removed itself; one that only
        // rounds, and any after a refit, wants what the pruner made of it.
        let compensates = self.quantizer.needs() == Statistics::Hessian && !self.pruner.refits();
        let start = if compensates { problem.weight() } else { pruned.weight.view() };
        let mut layer = self.quantizer.compress_within(&problem.with_weight(start)?, pruned.mask.as_ref())?;
        join_reports(&mut layer, pruned);
        Ok(layer)
    }
}

fn join_reports(layer: &mut CompressedLayer, first: CompressedLayer) {
    let second = std::mem::replace(&mut layer.report, first.report);
    layer.report.damping = second.damping.or(layer.report.damping);
    for fallback in second.fallbacks {
        if !layer.report.fallbacks.contains(&fallback) {
            layer.report.fallbacks.push(fallback);
        }
    }
}
