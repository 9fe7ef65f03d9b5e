//! One stage of a block: what its layers have in common, and how each of them is solved.

use crate::stage_drift::StageDrift;
use crate::{LayerReport, Result};
use ndarray::{Array1, Array2};
use sparq_core::{
    CompressError, CompressedLayer, Curvature, Fallback, Hessian, LayerCompressor, LayerProblem, OutputError, Solver,
    Statistics, shannon_bound,
};
use sparq_model::Linear;
use std::time::Instant;

/// What is known of a stage's inputs.
pub(crate) struct StageStatistics {
    pub(crate) curvature: Curvature,
    /// How far they are from the dense model's, if a layer is to make up for it.
    pub(crate) drift: Option<StageDrift>,
    /// Tokens left out because their inputs are not finite.
    pub(crate) skipped: u64,
}

impl StageStatistics {
    /// Solves a layer of `block` that reads these inputs, and reports on it.
    pub(crate) fn solve(
        &self,
        block: usize,
        linear: &Linear,
        solver: &Solver,
    ) -> Result<(CompressedLayer, LayerReport)> {
        let start = Instant::now();
        let (layer, target) = self.compress(linear, solver)?;
        let seconds = start.elapsed().as_secs_f64();
        let weight = target.as_ref().map_or(linear.weight.view(), |target| target.view());
        let hessian = if self.lacks_tokens(solver) { &Hessian::None } else { self.curvature.hessian() };
        let error = |hessian| OutputError::new(weight, layer.weight.view(), hessian);
        let of_outputs = error(hessian);
        let bound = layer
            .codes
            .is_some()
            .then(|| shannon_bound(weight, layer.weight.view(), &self.curvature, of_outputs.missed));
        // Where sums overflowed the weights alone tell something.
        let relative = Some(of_outputs.relative()).filter(|error| error.is_finite());
        let relative = relative.unwrap_or_else(|| error(&Hessian::None).relative());
        let report = LayerReport {
            bound_bits_per_weight: bound.flatten(),
            tokens: self.curvature.tokens(),
            seconds,
            ..LayerReport::new(&linear.name, block, &layer, relative)
        };
        Ok((layer, report))
    }

    /// The solved layer and its target weight, if that is not the dense one.
    pub(crate) fn compress(&self, linear: &Linear, solver: &Solver) -> Result<(CompressedLayer, Option<Array2<f32>>)> {
        let target = self.drift.as_ref().map(|drift| drift.target(linear, &self.curvature)).transpose()?;
        // A target that overflowed is of no use; the dense weight is the next best.
        let target = target.filter(|target| target.iter().all(|value| value.is_finite()));
        let weight = target.as_ref().map_or(linear.weight.view(), |target| target.view());
        let layer = if self.lacks_tokens(solver) {
            Err(Fallback::NoTokens)
        } else {
            let layer = solver.compress(&LayerProblem::new(&linear.name, weight, &self.curvature)?)?;
            let is_finite = layer.weight.iter().all(|value| value.is_finite());
            if is_finite { Ok(layer) } else { Err(Fallback::NotFinite) }
        };
        let mut layer = layer.or_else(|fallback| self.without_curvature(linear, solver, fallback))?;
        if self.skipped > 0 {
            layer.report.fallbacks.insert(0, Fallback::SkippedTokens { count: self.skipped });
        }
        Ok((layer, target))
    }

    /// Whether a solver needs to see tokens and there were none.
    fn lacks_tokens(&self, solver: &Solver) -> bool {
        solver.needs() > Statistics::Nothing && self.curvature.tokens() == 0
    }

    /// The last step of the ladder, for a solution that overflowed or a layer that saw no token: every weight counts the
    /// same and nothing is compensated, so that finite weights give a finite layer.
    fn without_curvature(&self, linear: &Linear, solver: &Solver, fallback: Fallback) -> Result<CompressedLayer> {
        let width = linear.in_features();
        let flat = match self.curvature.hessian() {
            Hessian::Full { tokens, .. } => Hessian::Full { matrix: Array2::zeros((width, width)), tokens: *tokens },
            Hessian::Diagonal { tokens, .. } => Hessian::Diagonal { sums: Array1::ones(width), tokens: *tokens },
            other => other.clone(),
        };
        let flat = self.curvature.with_hessian(flat);
        let mut layer = solver.compress(&LayerProblem::new(&linear.name, linear.weight.view(), &flat)?)?;
        layer.report.fallbacks.push(fallback);
        match layer.weight.indexed_iter().find(|(_, value)| !value.is_finite()) {
            Some(((row, column), &value)) => {
                Err(CompressError::NotFinite { layer: linear.name.clone(), row, column, value }.into())
            }
            None => Ok(layer),
        }
    }
}
