//! Statistics of a stage, and the damping that goes with them.

use crate::compressors::Compressors;
use crate::damping_choice::{DampingChoice, HeldOut};
use crate::dense_stream::DenseBlock;
use crate::stage::StageStatistics;
use crate::stage_drift::StageDrift;
use crate::stream::Stream;
use crate::{Activations, Phase, Profile, Recipe, Result};
use sparq_core::{Curvature, HessianAccumulator, Statistics};
use sparq_model::{Block, LinearId};

/// Sums up what the compressed `layers` of a stage read, over all batches. Batches that are held out choose the damping
/// first, and are added last.
pub(crate) fn gather(
    compressors: &Compressors,
    held_out: Option<&HeldOut>,
    block: &mut Block,
    (stage, layers): (usize, &[LinearId]),
    stream: &mut Stream,
    mut dense: Option<&mut DenseBlock>,
    profile: &mut Profile,
) -> Result<StageStatistics> {
    let recipe = compressors.recipe();
    let mut sums = StageSums::new(recipe, (block, stage), compressors.needs(), dense.is_some())?;
    let Some(held_out) = held_out.filter(|_| HeldOut::serves(block.plan(), stage)) else {
        sums.add(recipe, (block, stage), stream, dense, profile, |_| true)?;
        return sums.finish(recipe, profile);
    };
    sums.add(recipe, (block, stage), stream, dense.as_deref_mut(), profile, |batch| !held_out.holds(batch))?;
    let mut so_far = sums.finish(recipe, profile)?;
    let choice = DampingChoice { held_out, stage, layers };
    let factor = choice.factor(&mut so_far, block, stream, dense.as_deref_mut(), profile)?;
    let mut sums = StageSums::resume(so_far, compressors.needs());
    sums.add(recipe, (block, stage), stream, dense, profile, |batch| held_out.holds(batch))?;
    let mut statistics = sums.finish(recipe, profile)?;
    statistics.curvature.scale_damping(factor);
    Ok(statistics)
}

/// Sums over the inputs of a stage.
pub(crate) struct StageSums {
    needs: Statistics,
    accumulator: HessianAccumulator,
    drift: Option<StageDrift>,
}

impl StageSums {
    /// Nothing yet. Drift is summed up if the dense model is there to drift from.
    pub(crate) fn new(
        recipe: &Recipe,
        (block, stage): (&Block, usize),
        needs: Statistics,
        beside_dense: bool,
    ) -> Result<Self> {
        let width = block.stage_linears(stage).first().map_or(0, |first| block.linears()[*first].in_features());
        let plan = block.plan();
        // The dense model may send other tokens to an expert: there would be no pairs to compare.
        let drift = (beside_dense && !plan.is_routed(stage)).then(|| StageDrift::new(plan, stage, recipe.drift as f32));
        Ok(Self { needs, accumulator: HessianAccumulator::new(width, needs)?, drift })
    }

    /// Adds the batches that are `wanted`, in their order.
    pub(crate) fn add(
        &mut self,
        recipe: &Recipe,
        (block, stage): (&Block, usize),
        stream: &mut Stream,
        mut dense: Option<&mut DenseBlock>,
        profile: &mut Profile,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<()> {
        (0..stream.batches()).filter(|&batch| wanted(batch)).try_for_each(|batch| {
            stream.with(batch, block, |state| {
                let input =
                    profile.time(Phase::Forward, 0, || block.calibration_input(stage, state, recipe.expert_tokens))?;
                let width = if self.needs == Statistics::Hessian { input.ncols() } else { 1 };
                let squares = (input.len() * width) as u64;
                profile.time(Phase::Statistics, squares, || self.accumulator.add(input.view()))?;
                let (Some(drift), Some(dense)) = (&mut self.drift, &mut dense) else { return Ok(()) };
                let products = StageDrift::operations(block.plan(), stage, input.nrows());
                dense.input(stage, batch, |dense| {
                    profile.time(Phase::Statistics, products, || drift.add(block, stage, dense, state))
                })
            })
        })
    }

    /// What is known of the batches that were added.
    pub(crate) fn finish(self, recipe: &Recipe, profile: &mut Profile) -> Result<StageStatistics> {
        let skipped = self.accumulator.skipped();
        let hessian = profile.time(Phase::Statistics, 0, || self.accumulator.finish());
        let curvature = Curvature::new(hessian).with_damping(recipe.damping()?).act_order(recipe.act_order);
        Ok(StageStatistics { curvature, drift: self.drift, skipped })
    }

    /// Goes on from there.
    fn resume(finished: StageStatistics, needs: Statistics) -> Self {
        let StageStatistics { curvature, drift, skipped } = finished;
        Self { needs, accumulator: HessianAccumulator::resume(curvature.into_hessian(), skipped), drift }
    }
}
