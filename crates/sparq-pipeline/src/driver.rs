use crate::agreement::on_first;
use crate::compressors::Compressors;
use crate::damping_choice::HeldOut;
use crate::dense_stream::{DenseBlock, DenseStream};
use crate::gather::gather;
use crate::plan::batch_tokens;
use crate::stream::{Residence, Stream};
use crate::{Activations, Compress, CompressionReport, Error, LayerReport, Phase, Profile, Progress, Result, Sink};
use serde::{Deserialize, Serialize};
use sparq_core::{Hessian, LayerCompressor, LayerProblem, Ranks, Statistics, relative_output_error};
use sparq_model::{Block, LinearId, Model};
use sparq_quant::RowStep;
use std::sync::Arc;
use std::time::Instant;

impl Compress<'_> {
    /// Walks the blocks and hands everything to `sink`, from where an earlier run with the same sink left off. What leaves a
    /// block with its compressed weights is what enters the next.
    ///
    /// # Errors
    /// [`Error`], before any work where possible; [`Error::Stopped`] if the observer or
    /// [`stop_after`](Self::stop_after) ended it early. What was committed to `sink` before stays good.
    pub fn into_sink(&self, sink: &mut dyn Sink) -> Result<CompressionReport> {
        let (start, mut profile) = (Instant::now(), Profile::begin());
        let (model, observer) = (self.model, self.observer);
        let plan = self.plan()?;
        observer.note(&plan);
        let targets = self.recipe.targets.build()?;
        let compressors = Compressors::new(self.recipe.clone())?;
        let needs = compressors.needs();

        let residence = match (plan.resident_bytes, &self.waiting_in) {
            (None, _) => None,
            (Some(bytes), Some(directory)) => Some(Residence {
                bytes,
                per_token: model.memory_estimate().kept_per_token,
                directory: directory.clone(),
            }),
            (Some(_), None) => {
                let what =
                    "activations do not fit into the memory budget, and no directory is named for them to wait in";
                return Err(Error::Activations { what: what.into() });
            }
        };
        let ranks = &self.ranks;
        let mut stream = Stream::new(self.recipe.forward, residence, ranks.clone());
        let (resumed, activations) = resume(sink, ranks)?;
        let of_vocabulary = profile.time(Phase::Solve, 0, || self.solve_vocabulary(resumed.is_none(), sink))?;
        let embedding = of_vocabulary.as_ref().map_or(model, |(model, _)| model);
        if let Some(calibration) = self.calibration.filter(|_| needs > Statistics::Nothing) {
            stream.embed(embedding, calibration, batch_tokens(&self.recipe, calibration))?;
        }
        let held_out = HeldOut::of(&self.recipe, stream.batches())?;
        let (mut layers, mut first, mut before) = (Vec::with_capacity(plan.layers), 0, 0.0);
        // Correcting drift needs the dense model beside the compressed one.
        let start_of_dense = match (compressors.correct_drift(), &of_vocabulary, self.calibration) {
            (false, _, _) => None,
            (true, Some(_), Some(calibration)) => {
                let mut dense = stream.empty();
                dense.embed(model, calibration, batch_tokens(&self.recipe, calibration))?;
                Some(dense)
            }
            (true, _, _) => Some(stream.copy()?),
        };
        if let Some((_, reports)) = of_vocabulary {
            layers.extend(reports);
        }
        if let Some(resumed) = resumed {
            if resumed.blocks > plan.blocks {
                return Err(Error::Activations { what: "the saved state is of a model with more blocks".into() });
            }
            (layers, first, before) = (resumed.layers, resumed.blocks, resumed.seconds);
            if first < plan.blocks {
                stream.replace(activations.as_deref(), model.config().hidden_size)?;
            }
            observer.note(&format_args!("continuing an earlier run: {first} of {} blocks are done", plan.blocks));
            observer.progress(layers.len(), plan.layers, &"layers");
        }
        let mut dense = match start_of_dense.filter(|_| first < plan.blocks) {
            Some(start) => Some(DenseStream::new(model, first, start)?),
            None => None,
        };
        let stopped = |done: usize| Error::Stopped { done, of: plan.blocks };
        for index in first..plan.blocks {
            let whole = profile.time(Phase::Read, 0, || model.block(index))?;
            let mut dense_block = dense.take().map(|dense| dense.enter(Arc::clone(&whole)));
            let mut block = Arc::unwrap_or_clone(whole);
            for stage in 0..block.stages() {
                let compressed = |id: &LinearId| {
                    let name = &block.linears()[*id].name;
                    targets.contains(name) && compressors.of(name).is_some()
                };
                let ids: Vec<LinearId> = block.stage_linears(stage).iter().copied().filter(compressed).collect();
                if !ids.is_empty() {
                    let (at, dense) = ((stage, &ids[..]), dense_block.as_mut());
                    let statistics =
                        gather(&compressors, held_out.as_ref(), &mut block, at, &mut stream, dense, &mut profile)?;
                    for (turn, id) in ids.into_iter().enumerate() {
                        if ranks.agree(observer.stop())? {
                            return Err(stopped(index));
                        }
                        let linear = block.linear_mut(id);
                        let Some(solver) = compressors.of(&linear.name) else { continue };
                        let carried = compressors.carried(linear, &layers, plan.blocks)?;
                        let solver = carried.as_ref().unwrap_or(solver);
                        let (layer, report) =
                            profile.time(Phase::Solve, 0, || statistics.solve(index, linear, solver, (ranks, turn)))?;
                        self.check_strict(&report)?;
                        profile.time(Phase::Commit, 0, || sink.layer(linear, &layer))?;
                        linear.weight = layer.weight;
                        if !report.fallbacks.is_empty() {
                            observer.note(&report);
                        }
                        observer.progress(layers.len() + 1, plan.layers, &report);
                        layers.push(report);
                    }
                }
                if index + 1 == plan.blocks && stage + 1 == block.stages() {
                    continue; // nobody reads what leaves the model
                }
                let operations = operations(&block, stage, stream.tokens());
                profile.time(Phase::Forward, operations, || {
                    stream.each(&block, |_, state| Ok(block.apply(stage, state)?))
                })?;
                if let Some(dense) = &mut dense_block {
                    profile.time(Phase::Forward, operations, || dense.apply(stage))?;
                }
            }
            dense = dense_block.map(DenseBlock::leave);
            stream.leave(&block);
            sink.block(block)?;
            let done = index + 1;
            let seconds = before + start.elapsed().as_secs_f64();
            let progress = Progress { blocks: done, of: plan.blocks, layers: &layers, activations: &stream, seconds };
            profile.time(Phase::Commit, 0, || stream.served(|| sink.commit(&progress)))?;
            let enough = self.stop_after.is_some_and(|blocks| done - first >= blocks);
            if done < plan.blocks && ranks.agree(enough || observer.stop())? {
                return Err(stopped(done));
            }
        }
        profile.look_at_memory();
        Ok(CompressionReport::new(&self.recipe, plan, layers, before + start.elapsed().as_secs_f64(), profile))
    }

    /// Compresses embedding and output matrix, if the recipe says so: the model that has them, and the reports on them. On
    /// the first run of a job, the sink gets them as layers.
    fn solve_vocabulary(&self, is_first: bool, sink: &mut dyn Sink) -> Result<Option<(Model, Vec<LayerReport>)>> {
        let Some(rate) = self.recipe.embeddings else { return Ok(None) };
        let solver = RowStep::new(rate)?;
        let (mut matrices, mut reports) = (Vec::new(), Vec::new());
        for linear in self.model.vocabulary()? {
            let start = Instant::now();
            let layer = solver.compress(&LayerProblem::uncalibrated(&linear.name, linear.weight.view())?)?;
            let error = relative_output_error(linear.weight.view(), layer.weight.view(), &Hessian::None);
            let mut report = LayerReport::new(&linear.name, self.model.block_count(), &layer, error);
            report.seconds = start.elapsed().as_secs_f64();
            if is_first {
                sink.layer(&linear, &layer)?;
            }
            self.observer.note(&report);
            reports.push(report);
            matrices.push(layer.weight);
        }
        let model = self.model.with_vocabulary(matrices)?;
        sink.vocabulary(&model)?;
        Ok(Some((model, reports)))
    }

    fn check_strict(&self, report: &LayerReport) -> Result<()> {
        match report.fallbacks.iter().find(|fallback| self.strict && fallback.is_degradation()) {
            Some(fallback) => Err(Error::Strict { layer: report.name.clone(), fallback: fallback.clone() }),
            None => Ok(()),
        }
    }
}

/// What the sink of the first process left to go on from, for all of them; that process has the activations.
fn resume(sink: &mut dyn Sink, ranks: &Ranks) -> Result<(Option<Committed>, Waiting)> {
    let mut activations = None;
    let committed = on_first(ranks, || {
        let resumed = sink.resume()?;
        Ok::<_, crate::Error>(resumed.map(|resumed| {
            activations = Some(resumed.activations);
            Committed { blocks: resumed.blocks, layers: resumed.layers, seconds: resumed.seconds }
        }))
    })?;
    Ok((committed, activations))
}

/// What enters the next block, on the first process.
type Waiting = Option<Box<dyn Activations>>;

/// What of a [`Resumed`](crate::Resumed) all processes need.
#[derive(Serialize, Deserialize)]
struct Committed {
    blocks: usize,
    layers: Vec<LayerReport>,
    seconds: f64,
}

/// Floating-point operations of a stage's linears, for all tokens; 0 if the tokens go to experts.
fn operations(block: &Block, stage: usize, tokens: usize) -> u64 {
    if block.plan().is_routed(stage) {
        return 0;
    }
    let weights: usize = block.stage_linears(stage).iter().map(|id| block.linears()[*id].weight.len()).sum();
    2 * (tokens * weights) as u64
}
