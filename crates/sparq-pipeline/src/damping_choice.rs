//! Chooses the damping of a stage on calibration tokens that its Hessian has not seen.

use crate::compressors::Compressors;
use crate::dense_stream::DenseBlock;
use crate::stage::StageStatistics;
use crate::stream::Stream;
use crate::{Phase, Profile, Recipe, Result};
use ndarray::{Array2, Zip};
use sparq_core::{Ranks, message};
use sparq_model::{Block, BlockPlan, LinearId};
use sparq_quant::Clip;

/// What the damping of a recipe is multiplied by, in half decades around leaving it as it is; with the largest, solvers come
/// near to plain rounding.
const FACTORS: [f64; 5] = [0.1, 0.3, 1.0, 3.0, 10.0];
const AS_IT_IS: usize = 2;

/// Batches that a choice is judged by, and the solvers of the candidates.
#[derive(Debug)]
pub(crate) struct HeldOut {
    share: f64,
    /// Without what takes most of a solve's time: refit, descent and clip search.
    candidates: Compressors,
}

impl HeldOut {
    /// The share that a recipe asks for; none if there is nothing to choose by.
    pub(crate) fn of(recipe: &Recipe, batches: usize) -> Result<Option<Self>> {
        // There must be others left to fit.
        let held = (0..batches).filter(|&batch| holds(recipe.held_out, batch)).count();
        if held == 0 || held == batches {
            return Ok(None);
        }
        // Without refit and descent a method may do without a Hessian.
        let plain = Recipe { clip: Clip::MinMax, drift: 0.0, held_out: 0.0, ..recipe.sketch() };
        Ok(Some(Self { share: recipe.held_out, candidates: Compressors::new(plain)? }))
    }

    /// Whether there is a choice to make for a stage: one whose outputs go to the residual stream. For gate and up all
    /// dampings are level, for q/k/v the choice does not last (docs/results.md), and most experts see few tokens.
    pub(crate) fn serves(plan: &BlockPlan, stage: usize) -> bool {
        plan.ends_branch(stage) && !plan.is_routed(stage)
    }

    /// Whether a batch is held out: spread evenly, the first is not.
    pub(crate) fn holds(&self, batch: usize) -> bool {
        holds(self.share, batch)
    }
}

fn holds(share: f64, batch: usize) -> bool {
    let until = |batches: usize| (batches as f64 * share).floor();
    until(batch + 1) > until(batch)
}

/// A stage, and what decides about its damping.
pub(crate) struct DampingChoice<'a> {
    pub(crate) held_out: &'a HeldOut,
    pub(crate) stage: usize,
    /// Layers of the stage that are compressed.
    pub(crate) layers: &'a [LinearId],
}

impl DampingChoice<'_> {
    /// The factor on the damping with which the residual stream after the stage is nearest to that of the dense model, on
    /// the held-out batches. Without a dense model beside, the reference is the stage with its dense weights. The error of
    /// each token is relative to its own length. `statistics` are those of the other batches; their damping changes.
    ///
    /// More damping is tried first, then less, each as long as it helps.
    pub(crate) fn factor(
        &self,
        statistics: &mut StageStatistics,
        block: &mut Block,
        stream: &mut Stream,
        mut dense: Option<&mut DenseBlock>,
        profile: &mut Profile,
    ) -> Result<f64> {
        let held: Vec<usize> = stream.own().filter(|&batch| self.held_out.holds(batch)).collect();
        let ranks = stream.ranks().clone();
        let mut references = Vec::with_capacity(held.len());
        for &batch in &held {
            references.push(profile.time(Phase::Forward, 0, || match &mut dense {
                Some(dense) => dense.after(batch, self.stage),
                None => stream.after(batch, block, self.stage),
            })?);
        }
        let least = climb(AS_IT_IS, FACTORS.len(), |step| {
            let solved = profile.time(Phase::Solve, 0, || self.solve(FACTORS[step], statistics, block, &ranks))?;
            let before = swap(block, solved);
            let mut errors = Vec::with_capacity(8 * held.len());
            for (&batch, reference) in held.iter().zip(&references) {
                let found = profile.time(Phase::Forward, 0, || stream.after(batch, block, self.stage))?;
                message::put_number(&mut errors, relative_error(&found, reference));
            }
            swap(block, before);
            // Processes hold batches in their order.
            let errors = ranks.gather(errors)?.concat();
            let (mut rest, mut sum) = (errors.as_slice(), 0.0);
            while !rest.is_empty() {
                sum += message::take_number(&mut rest)?;
            }
            Ok(sum)
        })?;
        Ok(FACTORS[least])
    }

    /// Weights of the stage's layers when its damping is multiplied by `factor`.
    fn solve(
        &self,
        factor: f64,
        statistics: &mut StageStatistics,
        block: &Block,
        ranks: &Ranks,
    ) -> Result<Vec<(LinearId, Array2<f32>)>> {
        let asked = statistics.curvature.damping();
        statistics.curvature.scale_damping(factor);
        let mut solved = Vec::with_capacity(self.layers.len());
        for (turn, &id) in self.layers.iter().enumerate() {
            let linear = &block.linears()[id];
            if let Some(solver) = self.held_out.candidates.of(&linear.name) {
                solved.push((id, statistics.compress(linear, solver, (ranks, turn))?.layer.weight));
            }
        }
        statistics.curvature.set_damping(asked);
        Ok(solved)
    }
}

/// The index below `count` that a descent on `value` from `start` ends at: upwards, or downwards if the first step up does not
/// help.
fn climb(start: usize, count: usize, mut value: impl FnMut(usize) -> Result<f64>) -> Result<usize> {
    let (mut best, mut least) = (start, value(start)?);
    for towards in [1, -1] {
        while let Some(step) = best.checked_add_signed(towards).filter(|&step| step < count) {
            let tried = value(step)?;
            // Any number is better than none.
            if !(tried < least || least.is_nan()) {
                break;
            }
            (best, least) = (step, tried);
        }
        if best != start {
            break;
        }
    }
    Ok(best)
}

/// Gives layers these weights; returns those they had.
fn swap(block: &mut Block, weights: Vec<(LinearId, Array2<f32>)>) -> Vec<(LinearId, Array2<f32>)> {
    let exchange = |(id, weight)| (id, std::mem::replace(&mut block.linear_mut(id).weight, weight));
    weights.into_iter().map(exchange).collect()
}

/// Sum over tokens of `|found - reference|² / |reference|²`, so that a few tokens of enormous length do not decide alone.
/// Tokens of no length, and those whose reference is not finite, say nothing.
fn relative_error(found: &Array2<f32>, reference: &Array2<f32>) -> f64 {
    let mut sum = 0.0;
    for (found, reference) in found.rows().into_iter().zip(reference.rows()) {
        let (mut error, mut length) = (0.0_f64, 0.0_f64);
        Zip::from(found).and(reference).for_each(|&found, &reference| {
            error += f64::from(found - reference).powi(2);
            length += f64::from(reference).powi(2);
        });
        if length > 0.0 && length.is_finite() {
            sum += error / length;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn batches_are_held_out_evenly_and_some_are_left_to_fit() {
        let held = |share, batches| {
            let recipe = Recipe { held_out: share, ..Recipe::default() };
            let held_out = HeldOut::of(&recipe, batches).expect("valid")?;
            Some((0..batches).filter(|&batch| held_out.holds(batch)).collect::<Vec<_>>())
        };
        assert_eq!(held(0.25, 8), Some(vec![3, 7]));
        assert_eq!(held(0.5, 5), Some(vec![1, 3]));
        assert_eq!(held(0.4, 5), Some(vec![2, 4]));
        assert_eq!(held(0.0, 8), None);
        assert_eq!(held(0.25, 3), None);
    }

    #[test]
    fn a_climb_goes_up_or_down_as_long_as_it_helps() {
        let climbed = |values: [f64; 5]| {
            let mut tried = Vec::new();
            let best = climb(2, 5, |index| {
                tried.push(index);
                Ok(values[index])
            });
            (best.expect("no value fails"), tried)
        };
        assert_eq!(climbed([0.0, 3.0, 2.0, 3.0, 0.0]), (2, vec![2, 3, 1]), "what lies behind a rise is not looked at");
        assert_eq!(climbed([0.0, 0.0, 2.0, 1.0, 0.5]), (4, vec![2, 3, 4]));
        assert_eq!(climbed([0.0, 0.0, 2.0, 1.0, 1.5]), (3, vec![2, 3, 4]));
        assert_eq!(climbed([0.5, 1.0, 2.0, 2.0, 0.0]), (0, vec![2, 3, 1, 0]), "a tie is no help");
        assert_eq!(climbed([1.5, 1.0, f64::INFINITY, f64::NAN, 0.0]), (1, vec![2, 3, 1, 0]));
    }

    #[test]
    fn every_token_counts_by_its_own_length() {
        let reference = array![[3.0_f32, 4.0], [300.0, 400.0], [0.0, 0.0], [f32::NAN, 1.0]];
        let found = array![[3.0_f32, 3.0], [300.0, 300.0], [1.0, 1.0], [1.0, 1.0]];
        assert!((relative_error(&found, &reference) - 2.0 / 25.0).abs() < 1e-12);
        // A solution that overflowed is no candidate.
        assert!(relative_error(&array![[f32::INFINITY]], &array![[1.0_f32]]) >= f64::INFINITY);
    }
}
