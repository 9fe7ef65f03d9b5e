use crate::{
    Codes, CompressError, CompressedLayer, CoordinateDescent, LayerCompressor, LayerProblem, Mask, Pruner, Quantizer,
    Refit, Result, Rounded, Selection, SolveReport, Sparsity, Statistics,
};
use ndarray::CowArray;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How pruning and rounding are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Composition {
    /// The paper's Case A: prune, then round every weight of the result. Compensation moves some zeros off zero; the
    /// mask of the result is what is left.
    SequentialA,
    /// The paper's Case B: prune, then round the weights that survived. The mask is kept.
    ///
    /// A quantizer that compensates starts from the dense weight, so that one sweep makes up for what was removed as well
    /// as for what was rounded. After SparseGPT this equals starting from its output. After a refit, and with a quantizer
    /// that only rounds, the start is what the pruner left.
    #[default]
    SequentialB,
    /// One column sweep prunes and rounds: both errors are compensated together, with one factor.
    Joint,
}

/// Solves a layer: mask, refit, round, descend.
///
/// | step | setting | default | meaning |
/// |---|---|---|---|
/// | mask | [`prune`](Self::prune) | – | chooses which weights stay |
/// | refit | [`refit`](Self::refit) | 0 | steps of conjugate gradients on the weights that stay |
/// | | [`mask_rounds`](Self::mask_rounds) | 1 | rounds in which a refitted mask is reached |
/// | round | [`quantize`](Self::quantize) | – | rounds what stays to a grid |
/// | | [`composition`](Self::composition) | sequential B | how mask and rounding are put together |
/// | descend | [`descent`](Self::descent) | 0 | rounds of coordinate descent over scales and codes |
///
/// All steps read one [`Curvature`](crate::Curvature), and with it one damping and one factor. The result is the same for
/// any number of threads.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Bits, Curvature, LayerCompressor, LayerProblem, QuantScheme, Solver, Sparsity};
/// use sparq_prune::SparseGpt;
/// use sparq_quant::Gptq;
///
/// let weight = array![[1.0_f32, -0.2, 0.6, 0.1]];
/// let curvature = Curvature::of_inputs(ndarray::Array2::eye(4).view())?;
/// let problem = LayerProblem::new("demo", weight.view(), &curvature)?;
/// let solver = Solver::new()
///     .prune(SparseGpt::new(Sparsity::n_of_m(2, 4)?))
///     .quantize(Gptq::new(QuantScheme::new(Bits::B4)))
///     .refit(5)
///     .descent(3);
/// let layer = solver.compress(&problem)?;
/// assert_eq!(layer.mask.map(|mask| mask.kept()), Some(2));
/// assert!(layer.codes.is_some());
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// Cases A and B: arXiv:2505.07289. Both in one sweep: Frantar & Alistarh 2023, arXiv:2301.00774.
#[derive(Debug, Default)]
pub struct Solver {
    pruner: Option<Box<dyn Pruner>>,
    quantizer: Option<Box<dyn Quantizer>>,
    composition: Composition,
    refit: usize,
    mask_rounds: usize,
    descent: usize,
}

impl Solver {
    /// Leaves the weight as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes what `pruner` chooses.
    #[must_use]
    pub fn prune(self, pruner: impl Pruner + 'static) -> Self {
        Self { pruner: Some(Box::new(pruner)), ..self }
    }

    /// Rounds what stays with `quantizer`.
    #[must_use]
    pub fn quantize(self, quantizer: impl Quantizer + 'static) -> Self {
        Self { quantizer: Some(Box::new(quantizer)), ..self }
    }

    /// Puts pruning and rounding together like this.
    #[must_use]
    pub fn composition(self, composition: Composition) -> Self {
        Self { composition, ..self }
    }

    /// Refits the weights that the pruner keeps, all together, in so many steps; 0 leaves them as the pruner does.
    #[must_use]
    pub fn refit(self, steps: usize) -> Self {
        Self { refit: steps, ..self }
    }

    /// Reaches the sparsity in so many rounds (at least 1). Each round chooses among weights that were refitted after the
    /// one before. The share removed grows evenly from round to round; an N:M pattern loses one weight of a group in
    /// each round. Without a refit there is one round.
    #[must_use]
    pub fn mask_rounds(self, rounds: usize) -> Self {
        Self { mask_rounds: rounds, ..self }
    }

    /// Improves scales and codes in so many rounds of coordinate descent.
    #[must_use]
    pub fn descent(self, rounds: usize) -> Self {
        Self { descent: rounds, ..self }
    }

    /// Refuses settings that cannot be combined.
    ///
    /// # Errors
    /// [`CompressError::Conflict`].
    pub fn check(&self) -> Result<()> {
        let (Some(_), Some(quantizer), Composition::Joint) = (&self.pruner, &self.quantizer, self.composition) else {
            return Ok(());
        };
        let conflict = |second: String, reason: &str| {
            let reason = format!("{reason}; use pipeline=sequential-b");
            Err(CompressError::Conflict { first: "pipeline=joint".into(), second, reason })
        };
        if self.refit > 0 {
            return conflict(
                "refit".into(),
                "one pass chooses and rounds at once and leaves nothing to refit in between",
            );
        }
        if quantizer.needs() < Statistics::Hessian {
            return conflict(quantizer.name().into_owned(), "one pass compensates for rounding, which needs gptq");
        }
        Ok(())
    }

    /// The mask, and the weight that it leaves.
    fn pruned(&self, pruner: &dyn Pruner, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        if self.refit == 0 {
            return pruner.compress(problem);
        }
        let mut refitted = CowArray::from(problem.weight());
        let mut last = None;
        for sparsity in schedule(pruner.sparsity(), self.mask_rounds)? {
            let chosen = pruner.at(sparsity).compress(&problem.with_weight(refitted.view())?)?;
            let mask = chosen.mask.unwrap_or_else(|| Mask::from_nonzero(chosen.weight.view()));
            refitted = Refit::new(self.refit).run(problem.weight(), &mask, problem.curvature())?.into();
            last = Some((mask, chosen.report));
        }
        let (mask, mut report) = last.unwrap_or_else(|| (Mask::all(problem.weight().dim()), SolveReport::default()));
        report.join(problem.curvature().report());
        Ok(CompressedLayer { weight: refitted.into_owned(), mask: Some(mask), codes: None, report })
    }

    /// The codes of a layer that was pruned before.
    fn rounded(
        &self,
        quantizer: &dyn Quantizer,
        problem: &LayerProblem<'_>,
        pruned: CompressedLayer,
    ) -> Result<Rounded> {
        let mut rounded = if self.composition == Composition::SequentialA {
            let mut rounded = quantizer.quantize(&problem.with_weight(pruned.weight.view())?, &Selection::All)?;
            rounded.mask = Some(rounded.codes.nonzero());
            rounded
        } else {
            let compensates = quantizer.needs() == Statistics::Hessian && self.refit == 0;
            let start = if compensates { problem.weight() } else { pruned.weight.view() };
            quantizer.quantize(&problem.with_weight(start)?, &Selection::of_mask(pruned.mask.as_ref()))?
        };
        let of_rounding = std::mem::replace(&mut rounded.report, pruned.report);
        rounded.report.join(of_rounding);
        Ok(rounded)
    }
}

impl LayerCompressor for Solver {
    fn name(&self) -> Cow<'static, str> {
        let mut words = Vec::new();
        if let Some(pruner) = &self.pruner {
            words.push(pruner.name());
            words.extend((self.refit > 0).then_some("refitted".into()));
        }
        if let Some(quantizer) = &self.quantizer {
            words.extend(self.pruner.as_ref().map(|_| match self.composition {
                Composition::SequentialA => "then all weights".into(),
                Composition::SequentialB => "then".into(),
                Composition::Joint => "with".into(),
            }));
            words.push(quantizer.name());
            words.extend((self.descent > 0).then_some("descended".into()));
        }
        if words.is_empty() { "nothing".into() } else { words.join(" ").into() }
    }

    fn needs(&self) -> Statistics {
        let refits = self.refit > 0 && self.pruner.is_some();
        let descends = self.descent > 0 && self.quantizer.is_some();
        let pruner = self.pruner.as_ref().map_or(Statistics::Nothing, LayerCompressor::needs);
        let quantizer = self.quantizer.as_ref().map_or(Statistics::Nothing, LayerCompressor::needs);
        if refits || descends { Statistics::Hessian } else { pruner.max(quantizer) }
    }

    fn is_by_row(&self) -> bool {
        self.pruner.as_ref().is_none_or(LayerCompressor::is_by_row)
            && self.quantizer.as_ref().is_none_or(LayerCompressor::is_by_row)
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        self.check()?;
        problem.require(self.needs(), &self.name())?;

        // 1 and 2: mask and refit.
        let is_joint = self.composition == Composition::Joint && self.quantizer.is_some();
        let pruned = match &self.pruner {
            Some(pruner) if !is_joint => Some(self.pruned(&**pruner, problem)?),
            _ => None,
        };
        let Some(quantizer) = &self.quantizer else {
            let (weight, report) = (problem.weight().to_owned(), SolveReport::default());
            return Ok(pruned.unwrap_or(CompressedLayer { weight, mask: None, codes: None, report }));
        };

        // 3: round.
        let mut rounded = match (pruned, &self.pruner) {
            (Some(pruned), _) => self.rounded(&**quantizer, problem, pruned)?,
            (None, Some(pruner)) => quantizer.quantize(problem, &pruner.choose(problem)?)?,
            (None, None) => quantizer.quantize(problem, &Selection::All)?,
        };

        // 4: descend, towards the weight that was asked for. Codes at a rate descend where their rate is found.
        if let (Codes::Grid(quantized), 1..) = (&mut rounded.codes, self.descent) {
            let descent = CoordinateDescent::new(self.descent);
            descent.run(problem.weight(), rounded.mask.as_ref(), quantized, problem.curvature())?;
            rounded.report.join(problem.curvature().report());
        }
        Ok(rounded.into_layer())
    }
}

/// What is removed after each round.
fn schedule(sparsity: Sparsity, rounds: usize) -> Result<Vec<Sparsity>> {
    let rounds = rounds.max(1);
    match sparsity {
        Sparsity::NOfM { kept, of } if rounds > 1 => (kept..of).rev().map(|kept| Sparsity::n_of_m(kept, of)).collect(),
        Sparsity::Unstructured(fraction) => {
            let mut rounds = (1..rounds)
                .map(|round| Sparsity::unstructured(fraction * round as f64 / rounds as f64))
                .collect::<Result<Vec<_>>>()?;
            rounds.push(sparsity);
            Ok(rounds)
        }
        Sparsity::NOfM { .. } => Ok(vec![sparsity]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_reached_evenly_and_patterns_weight_by_weight() {
        let fractions = |sparsity, rounds| {
            let schedule = schedule(sparsity, rounds).expect("valid");
            schedule.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(fractions(Sparsity::Unstructured(0.5), 0), ["0.5"]);
        assert_eq!(fractions(Sparsity::Unstructured(0.5), 4), ["0.125", "0.25", "0.375", "0.5"]);
        assert_eq!(fractions(Sparsity::NOfM { kept: 2, of: 4 }, 1), ["2:4"]);
        assert_eq!(fractions(Sparsity::NOfM { kept: 1, of: 4 }, 2), ["3:4", "2:4", "1:4"]);
    }
}
