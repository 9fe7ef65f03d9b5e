//! Statistics of a stage, and the damping that goes with them.

use crate::compressors::Compressors;
use crate::damping_choice::{DampingChoice, HeldOut};
use crate::dense_stream::DenseBlock;
use crate::stage::StageStatistics;
use crate::stage_drift::StageDrift;
use crate::stream::Stream;
use crate::{Activations, Phase, Profile, Recipe, Result};
use sparq_core::{Curvature, HessianAccumulator, Ranks, Statistics, Summand};
use sparq_model::{Block, LinearId, Precision};

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
    let wants = Wants { recipe, needs: compressors.needs(), beside_dense: dense.is_some() };
    let Some(held_out) = held_out.filter(|_| HeldOut::serves(block.plan(), stage)) else {
        return wants.sum((block, stage), stream, dense, profile, |_| true)?.finish(recipe, profile);
    };
    let fitted = |batch: usize| !held_out.holds(batch);
    let sums = wants.sum((block, stage), stream, dense.as_deref_mut(), profile, fitted)?;
    let mut so_far = sums.finish(recipe, profile)?;
    let choice = DampingChoice { held_out, stage, layers };
    let factor = choice.factor(&mut so_far, block, stream, dense.as_deref_mut(), profile)?;
    let mut sums = StageSums::resume(so_far);
    sums.join(&wants.sum((block, stage), stream, dense, profile, |batch| held_out.holds(batch))?);
    let mut statistics = sums.finish(recipe, profile)?;
    statistics.curvature.scale_damping(factor);
    Ok(statistics)
}

/// What is to be summed up.
pub(crate) struct Wants<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) needs: Statistics,
    /// Drift is summed up if the dense model is there to drift from.
    pub(crate) beside_dense: bool,
}

impl Wants<'_> {
    /// Sums over the batches of all processes that are `wanted`.
    pub(crate) fn sum(
        &self,
        (block, stage): (&Block, usize),
        stream: &mut Stream,
        mut dense: Option<&mut DenseBlock>,
        profile: &mut Profile,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<StageSums> {
        let (ranks, batches) = (stream.ranks().clone(), stream.batches());
        ranks.sum(
            || self.nothing((block, stage)),
            |part, sums| {
                let mut any = false;
                for batch in Ranks::part(part, batches).filter(|&batch| wanted(batch)) {
                    any = true;
                    self.add(batch, sums, (block, stage), stream, dense.as_deref_mut(), profile)?;
                }
                Ok(any)
            },
        )
    }

    fn nothing(&self, (block, stage): (&Block, usize)) -> Result<StageSums> {
        let width = block.stage_linears(stage).first().map_or(0, |first| block.linears()[*first].in_features());
        let (plan, share) = (block.plan(), self.recipe.drift as f32);
        // The dense model may send other tokens to an expert: there would be no pairs to compare.
        let drift = (self.beside_dense && !plan.is_routed(stage)).then(|| StageDrift::new(plan, stage, share));
        // A model that runs in bfloat16 rounds these inputs before it multiplies them.
        let in_bf16 = self.recipe.forward == Precision::Bf16;
        Ok(StageSums { accumulator: HessianAccumulator::new(width, self.needs)?.in_bf16(in_bf16), drift })
    }

    fn add(
        &self,
        batch: usize,
        sums: &mut StageSums,
        (block, stage): (&Block, usize),
        stream: &mut Stream,
        dense: Option<&mut DenseBlock>,
        profile: &mut Profile,
    ) -> Result<()> {
        stream.with(batch, block, |state| {
            let tokens = self.recipe.expert_tokens;
            let input = profile.time(Phase::Forward, 0, || block.calibration_input(stage, state, tokens))?;
            let width = if self.needs == Statistics::Hessian { input.ncols() } else { 1 };
            let squares = (input.len() * width) as u64;
            profile.time(Phase::Statistics, squares, || sums.accumulator.add(input.view()))?;
            let (Some(drift), Some(dense)) = (&mut sums.drift, dense) else { return Ok(()) };
            let products = StageDrift::operations(block.plan(), stage, input.nrows());
            dense.input(stage, batch, |dense| {
                profile.time(Phase::Statistics, products, || drift.add(block, stage, dense, state))
            })
        })
    }
}

/// Sums over the inputs of a stage.
pub(crate) struct StageSums {
    accumulator: HessianAccumulator,
    drift: Option<StageDrift>,
}

impl StageSums {
    /// What is known of the batches that were added.
    pub(crate) fn finish(self, recipe: &Recipe, profile: &mut Profile) -> Result<StageStatistics> {
        let skipped = self.accumulator.skipped();
        let hessian = profile.time(Phase::Statistics, 0, || self.accumulator.finish());
        let curvature = Curvature::new(hessian).with_damping(recipe.damping()?).act_order(recipe.act_order);
        Ok(StageStatistics { curvature, drift: self.drift, skipped })
    }

    /// Goes on from there.
    fn resume(finished: StageStatistics) -> Self {
        let StageStatistics { curvature, drift, skipped } = finished;
        Self { accumulator: HessianAccumulator::resume(curvature.into_hessian(), skipped), drift }
    }
}

impl Summand for StageSums {
    fn join(&mut self, later: &Self) {
        self.accumulator.join(&later.accumulator);
        if let (Some(drift), Some(later)) = (&mut self.drift, &later.drift) {
            drift.join(later);
        }
    }

    fn write(&self, message: &mut Vec<u8>) {
        self.accumulator.write(message);
        if let Some(drift) = &self.drift {
            drift.write(message);
        }
    }

    fn read(&mut self, message: &mut &[u8]) -> sparq_core::Result<()> {
        self.accumulator.read(message)?;
        self.drift.as_mut().map_or(Ok(()), |drift| drift.read(message))
    }
}
