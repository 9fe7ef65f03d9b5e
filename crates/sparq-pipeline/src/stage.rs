//! One stage of a block: what its layers have in common, and how each of them is solved.

use crate::parts::{self, Part};
use crate::stage_drift::StageDrift;
use crate::{LayerReport, Result};
use ndarray::{Array1, Array2, s};
use sparq_core::{
    CompressError, CompressedLayer, Curvature, Fallback, Hessian, LayerCompressor, LayerProblem, OutputError, Ranks,
    Solver, Statistics,
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
    /// Solves a layer of `block` that reads these inputs, and reports on it: the layer at `turn` of its stage.
    pub(crate) fn solve(
        &self,
        block: usize,
        linear: &Linear,
        solver: &Solver,
        (ranks, turn): (&Ranks, usize),
    ) -> Result<(CompressedLayer, LayerReport)> {
        let start = Instant::now();
        let Part { layer, errors } = self.compress(linear, solver, (ranks, turn))?;
        let error = OutputError::sum(&errors);
        // Where sums overflowed the weights alone tell something.
        let relative = Some(error.relative()).filter(|relative| relative.is_finite());
        let relative = relative.unwrap_or_else(|| error.relative_of_weights());
        let report = LayerReport {
            bound_bits_per_weight: layer.codes.as_ref().and_then(|_| error.shannon_bound(&self.curvature)),
            tokens: self.curvature.tokens(),
            seconds: start.elapsed().as_secs_f64(),
            ..LayerReport::new(&linear.name, block, &layer, relative)
        };
        Ok((layer, report))
    }

    /// The solved layer, with its errors. Each process solves its rows of it.
    pub(crate) fn compress(&self, linear: &Linear, solver: &Solver, (ranks, turn): (&Ranks, usize)) -> Result<Part> {
        let rows = parts::rows(ranks, turn, linear.out_features(), solver.is_by_row());
        let dense = linear.weight.slice(s![rows.clone(), ..]);
        let mut target = match &self.drift {
            Some(drift) if !rows.is_empty() => Some(drift.target(linear, rows.clone(), &self.curvature)?),
            _ => None,
        };
        // A target that overflowed is of no use; the dense weight is the next best.
        let overflowed = target.iter().flatten().any(|value| !value.is_finite());
        if self.drift.is_some() && ranks.any(overflowed)? {
            target = None;
        }
        let weight = target.as_ref().map_or(dense, |target| target.view());
        let hessian = self.curvature.hessian();
        let solved = if self.lacks_tokens(solver) {
            None
        } else {
            let mut mine = None;
            if !rows.is_empty() {
                let layer = solver.compress(&LayerProblem::new(&linear.name, weight, &self.curvature)?)?;
                let errors = OutputError::of_bands(weight, layer.weight.view(), hessian);
                mine = Some(Part { layer, errors });
            }
            Part::gather(mine, ranks, turn)?
        };
        let mut part = if let Some(solved) = solved {
            solved
        } else {
            let no_tokens = (Fallback::NoTokens, &Hessian::None);
            let (fallback, hessian) =
                if self.lacks_tokens(solver) { no_tokens } else { (Fallback::NotFinite, hessian) };
            let layer = self.without_curvature(linear, solver, fallback)?;
            let errors = OutputError::of_bands(linear.weight.view(), layer.weight.view(), hessian);
            Part { layer, errors }
        };
        if self.skipped > 0 {
            part.layer.report.fallbacks.insert(0, Fallback::SkippedTokens { count: self.skipped });
        }
        Ok(part)
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
