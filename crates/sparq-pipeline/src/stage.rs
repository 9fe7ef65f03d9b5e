//! One stage of a block: what its layers have in common, and how each of them is solved.

use crate::stage_drift::StageDrift;
use crate::{LayerReport, Recipe, Result};
use ndarray::{Array1, Array2};
use sparq_core::{
    CompressError, CompressedLayer, Fallback, Hessian, LayerCompressor, LayerProblem, SharedHessian, Statistics,
};
use sparq_model::Linear;
use sparq_obs::InverseFactor;
use std::time::Instant;

/// What is known of a stage's inputs.
pub(crate) struct StageStatistics {
    pub(crate) hessian: SharedHessian,
    /// How far they are from the dense model's, if a layer is to make up for it.
    pub(crate) drift: Option<StageDrift>,
    /// Tokens left out because their inputs are not finite.
    pub(crate) skipped: u64,
}

impl StageStatistics {
    /// Tokens that were summed up.
    pub(crate) fn tokens(&self) -> u64 {
        self.hessian.hessian().tokens()
    }

    /// Solves a layer of `block` that reads these inputs, and reports on it.
    pub(crate) fn solve(
        &self,
        recipe: &Recipe,
        block: usize,
        linear: &Linear,
        compressor: &dyn LayerCompressor,
    ) -> Result<(CompressedLayer, LayerReport)> {
        let start = Instant::now();
        let (layer, target) = self.compress(recipe, linear, compressor)?;
        let seconds = start.elapsed().as_secs_f64();
        let weight = target.as_ref().map_or(linear.weight.view(), |target| target.view());
        let hessian = if self.says_nothing(compressor) { &Hessian::None } else { self.hessian.hessian() };
        let (rows, width) = weight.dim();
        let error = |hessian| sparq_obs::relative_output_error(weight, layer.weight.view(), hessian);
        // Where sums overflowed the weights alone tell something.
        let of_outputs = Some(error(hessian)).filter(|error| error.is_finite());
        let report = LayerReport {
            name: linear.name.clone(),
            block,
            shape: [rows, width],
            weights: rows * width,
            zeros: layer.weight.iter().filter(|value| **value == 0.0).count(),
            bits_per_weight: layer
                .quantized
                .as_ref()
                .map_or(16.0, |quantized| quantized.scheme.stored_bits_per_weight(rows, width)),
            relative_output_error: of_outputs.unwrap_or_else(|| error(&Hessian::None)),
            damping: layer.report.damping,
            fallbacks: layer.report.fallbacks.clone(),
            tokens: self.tokens(),
            seconds,
        };
        Ok((layer, report))
    }

    /// A layer that reads these inputs, solved, and the weight that it was to come near to, if that is not its own.
    pub(crate) fn compress(
        &self,
        recipe: &Recipe,
        linear: &Linear,
        compressor: &dyn LayerCompressor,
    ) -> Result<(CompressedLayer, Option<Array2<f32>>)> {
        let (shared, hessian) = (&self.hessian, self.hessian.hessian());
        let target = match &self.drift {
            Some(drift) => {
                let factored = InverseFactor::of_shared(shared, linear.in_features(), recipe.damping()?);
                let target = drift.target(linear, &factored.factor, recipe.drift as f32)?;
                // A target that overflowed says nothing; the dense weight is the next best.
                Some(target).filter(|target| target.iter().all(|value| value.is_finite()))
            }
            None => None,
        };
        let weight = target.as_ref().map_or(linear.weight.view(), |target| target.view());
        let layer = if self.says_nothing(compressor) {
            Err(Fallback::NoTokens)
        } else {
            let layer = compressor.compress(&LayerProblem::sharing(&linear.name, weight, shared)?)?;
            let is_finite = layer.weight.iter().all(|value| value.is_finite());
            if is_finite { Ok(layer) } else { Err(Fallback::NotFinite) }
        };
        let mut layer = layer.or_else(|fallback| without_curvature(linear, hessian, compressor, fallback))?;
        if self.skipped > 0 {
            layer.report.fallbacks.insert(0, Fallback::SkippedTokens { count: self.skipped });
        }
        Ok((layer, target))
    }

    /// Whether a method needs to see tokens and there were none.
    fn says_nothing(&self, compressor: &dyn LayerCompressor) -> bool {
        compressor.needs() > Statistics::Nothing && self.tokens() == 0
    }
}

/// The last step of the ladder, for a solution that overflowed or a layer that saw no token: every weight counts the
/// same and nothing is compensated, so that finite weights give a finite layer.
fn without_curvature(
    linear: &Linear,
    hessian: &Hessian,
    compressor: &dyn LayerCompressor,
    fallback: Fallback,
) -> Result<CompressedLayer> {
    let width = linear.in_features();
    let flat = match hessian {
        Hessian::Full { tokens, .. } => Hessian::Full { matrix: Array2::zeros((width, width)), tokens: *tokens },
        Hessian::Diagonal { tokens, .. } => Hessian::Diagonal { sums: Array1::ones(width), tokens: *tokens },
        other => other.clone(),
    };
    let mut layer = compressor.compress(&LayerProblem::new(&linear.name, linear.weight.view(), &flat)?)?;
    layer.report.fallbacks.push(fallback);
    match layer.weight.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((row, column), &value)) => {
            Err(CompressError::NotFinite { layer: linear.name.clone(), row, column, value }.into())
        }
        None => Ok(layer),
    }
}
