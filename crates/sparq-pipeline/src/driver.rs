use crate::compressors::Compressors;
use crate::damping_choice::HeldOut;
use crate::dense_stream::{DenseBlock, DenseStream};
use crate::gather::gather;
use crate::plan::batch_tokens;
use crate::stream::{Residence, Stream};
use crate::{
    Activations, Calibration, CompressionReport, Error, LayerReport, Observer, Phase, Plan, Profile, Progress, Recipe,
    Result, Sink,
};
use sparq_core::Statistics;
use sparq_model::{Block, LinearId, Model};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Compresses `model` according to `recipe`, one block after the other, and hands everything to `sink`: a
/// [`Compression`] with no settings of its own.
///
/// # Errors
/// As [`Compression::run`].
///
/// See the [crate example](crate).
pub fn compress(
    model: &Model,
    recipe: &Recipe,
    calibration: Option<&Calibration>,
    sink: &mut dyn Sink,
    observer: &dyn Observer,
) -> Result<CompressionReport> {
    Compression::new(model, recipe).calibration(calibration).run(sink, observer)
}

/// A compression to be run: what to do, to which model, and when to stop.
///
/// # Examples
/// ```no_run
/// # fn run(model: sparq_model::Model, calibration: sparq_pipeline::Calibration) -> sparq_pipeline::Result<()> {
/// use sparq_pipeline::{Compression, MemorySink, Recipe};
/// let recipe: Recipe = "s=2:4,q=4".parse()?;
/// let mut sink = MemorySink::new();
/// let report = Compression::new(&model, &recipe).calibration(Some(&calibration)).strict(true).run(&mut sink, &())?;
/// assert_eq!(report.layers_with_fallbacks, 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Compression<'a> {
    pub(crate) model: &'a Model,
    pub(crate) recipe: &'a Recipe,
    pub(crate) calibration: Option<&'a Calibration>,
    strict: bool,
    stop_after: Option<usize>,
    budget: Option<(u64, &'a Path)>,
}

impl<'a> Compression<'a> {
    /// Of `model` according to `recipe`.
    pub fn new(model: &'a Model, recipe: &'a Recipe) -> Self {
        Self { model, recipe, calibration: None, strict: false, stop_after: None, budget: None }
    }

    /// Calibrated on this text; may be missing if the recipe needs no data.
    pub fn calibration(mut self, calibration: Option<&'a Calibration>) -> Self {
        self.calibration = calibration;
        self
    }

    /// Treats a fallback that may make the result worse
    /// ([`Fallback::is_degradation`](sparq_core::Fallback::is_degradation)) as an error.
    pub fn strict(mut self, on: bool) -> Self {
        self.strict = on;
        self
    }

    /// Stops once this many blocks are done in this run.
    pub fn stop_after(mut self, blocks: Option<usize>) -> Self {
        self.stop_after = blocks;
        self
    }

    /// Keeps the predicted peak of memory within `bytes`: calibration batches that do not fit wait in a file without a name
    /// in `directory`. Costs time, changes no bit of the result.
    pub fn memory_budget(mut self, bytes: u64, directory: &'a Path) -> Self {
        self.budget = Some((bytes, directory));
        self
    }

    /// What will be done, and the memory it takes.
    ///
    /// # Errors
    /// Those of [`Plan::new`] and [`Plan::within`].
    pub fn plan(&self) -> Result<Plan> {
        let plan = Plan::new(self.model, self.recipe, self.calibration)?;
        match self.budget {
            Some((bytes, _)) => plan.within(bytes),
            None => Ok(plan),
        }
    }

    /// Walks the blocks, from where an earlier run with the same `sink` left off.
    ///
    /// What leaves a block with its compressed weights is what enters the next. Same model, recipe and calibration,
    /// same bits, for any number of threads and interruptions.
    ///
    /// # Errors
    /// [`Error`], before any work where possible; [`Error::Stopped`] if the observer or
    /// [`stop_after`](Self::stop_after) ended it early. What was committed to `sink` before stays good.
    pub fn run(&self, sink: &mut dyn Sink, observer: &dyn Observer) -> Result<CompressionReport> {
        let (start, mut profile) = (Instant::now(), Profile::begin());
        let model = self.model;
        let plan = self.plan()?;
        observer.planned(&plan);
        let targets = self.recipe.targets.build()?;
        let compressors = Compressors::new(self.recipe.clone())?;
        let needs = compressors.needs();

        let residence = self.budget.zip(plan.resident_bytes).map(|((_, directory), bytes)| Residence {
            bytes,
            per_token: model.memory_estimate().kept_per_token,
            directory: directory.to_path_buf(),
        });
        let mut stream = Stream::new(self.recipe.forward, residence);
        if let Some(calibration) = self.calibration.filter(|_| needs > Statistics::Nothing) {
            stream.embed(model, calibration, batch_tokens(self.recipe, calibration))?;
        }
        let held_out = HeldOut::of(self.recipe, stream.batches());
        let (mut layers, mut first, mut before) = (Vec::with_capacity(plan.layers), 0, 0.0);
        // Compensating for drift needs the dense model beside the compressed one.
        let start_of_dense = if compressors.undo_drift() { Some(stream.copy()?) } else { None };
        if let Some(resumed) = sink.resume()? {
            if resumed.blocks > plan.blocks {
                return Err(Error::Activations { what: "the saved state is of a model with more blocks".into() });
            }
            (layers, first, before) = (resumed.layers, resumed.blocks, resumed.seconds);
            if first < plan.blocks {
                stream.replace(&*resumed.activations, model.config().hidden_size)?;
            }
            observer.resumed(&layers, first, plan.blocks);
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
                    let (statistics, damped) =
                        gather(&compressors, held_out, &mut block, at, &mut stream, dense, &mut profile)?;
                    let compressors = damped.as_ref().unwrap_or(&compressors);
                    for id in ids {
                        if observer.stop() {
                            return Err(stopped(index));
                        }
                        let linear = block.linear_mut(id);
                        let Some(compressor) = compressors.of(&linear.name) else { continue };
                        let (layer, report) = profile.time(Phase::Solve, 0, || {
                            statistics.solve(compressors.recipe(), index, linear, compressor)
                        })?;
                        self.check_strict(&report)?;
                        profile.time(Phase::Commit, 0, || sink.layer(linear, &layer))?;
                        linear.weight = layer.weight;
                        observer.layer(&report);
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
            profile.time(Phase::Commit, 0, || sink.commit(&progress))?;
            observer.block(done, plan.blocks);
            if done < plan.blocks && (observer.stop() || self.stop_after.is_some_and(|blocks| done - first >= blocks)) {
                return Err(stopped(done));
            }
        }
        profile.look_at_memory();
        Ok(CompressionReport::new(self.recipe, plan, layers, before + start.elapsed().as_secs_f64(), profile))
    }

    fn check_strict(&self, report: &LayerReport) -> Result<()> {
        match report.fallbacks.iter().find(|fallback| self.strict && fallback.is_degradation()) {
            Some(fallback) => Err(Error::Strict { layer: report.name.clone(), fallback: fallback.clone() }),
            None => Ok(()),
        }
    }
}

/// Floating-point operations of a stage's linears, for all tokens; 0 if the tokens go to experts.
fn operations(block: &Block, stage: usize, tokens: usize) -> u64 {
    if block.plan().is_routed(stage) {
        return 0;
    }
    let weights: usize = block.stage_linears(stage).iter().map(|id| block.linears()[*id].weight.len()).sum();
    2 * (tokens * weights) as u64
}
