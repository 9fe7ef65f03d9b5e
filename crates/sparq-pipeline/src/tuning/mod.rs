//! Tunes a compressed model as a whole: codes, scales, norms and biases follow the gradient of its divergence from the dense
//! one, on more text than solvers see. Masks stay, and codes without a width, whose number of bits is settled.

mod adam;
mod layer;
mod parameters;
mod plan;
mod state;
mod vector;

pub(crate) use plan::TuningPlan;
pub use plan::TuningReport;

use crate::{Calibration, Error, Result};
use layer::Layer;
use ndarray::Array1;
use parameters::Parameters;
use sparq_core::{Codes, CompressedLayer, Mask, Observer};
use sparq_export::SolvedLayers;
use sparq_model::{Block, Divergence, Model};
use sparq_tensor::DType;
use state::State;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vector::Vector;

/// Tokens of a step, about.
const STEP_TOKENS: usize = 2048;
/// Tokens that judge, about, and the largest share of the text that they are.
const JUDGING_TOKENS: usize = 4096;
const MOST_JUDGING: usize = 8;
/// How often tuning is judged, and how often it is made safe.
const JUDGEMENTS: usize = 10;
const SAVES: usize = 5;

/// Steps until the longest.
const WARM_UP: usize = 5;
/// If nothing is better than the start after the first such part of the steps, the rest begin there and are so much shorter.
const FIRST_LOOK: usize = 4;
const CAUTION: f32 = 0.1;

/// The codes of a layer and what was removed of it.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) codes: Codes,
    pub(crate) mask: Option<Mask>,
}

/// A compressed model to be tuned.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The model with the embedding and output matrix it has now.
    model: Model,
    blocks: Vec<Arc<Block>>,
    codes: BTreeMap<String, Frozen>,
}

impl Subject {
    pub(crate) fn new(model: Model, codes: BTreeMap<String, Frozen>) -> Result<Self> {
        let blocks = (0..model.block_count()).map(|index| model.block(index)).collect::<sparq_model::Result<_>>()?;
        Ok(Self { model: model.without_blocks(), blocks, codes })
    }

    /// What `solved` makes of `dense`.
    pub(crate) fn of_solution(dense: &Model, solved: &dyn SolvedLayers) -> Result<Self> {
        let mut codes = BTreeMap::new();
        let mut take = |name: &str| -> Result<Option<ndarray::Array2<f32>>> {
            if !solved.layers().iter().any(|layer| layer.name == name) {
                return Ok(None);
            }
            let CompressedLayer { weight, mask, codes: of_layer, .. } = solved.layer(name)?;
            if let Some(of_layer) = of_layer {
                codes.insert(name.to_owned(), Frozen { codes: of_layer, mask });
            }
            Ok(Some(weight))
        };
        let mut vocabulary = dense.vocabulary()?;
        let mut changed = false;
        for matrix in &mut vocabulary {
            if let Some(weight) = take(&matrix.name)? {
                (matrix.weight, changed) = (weight, true);
            }
        }
        let matrices = vocabulary.into_iter().map(|matrix| matrix.weight).collect();
        let model = if changed { dense.with_vocabulary(matrices)? } else { dense.clone() };
        let mut blocks = Vec::with_capacity(dense.block_count());
        for index in 0..dense.block_count() {
            let mut block = dense.load_block(index)?;
            for id in 0..block.linears().len() {
                let linear = block.linear_mut(id);
                if let Some(weight) = take(&linear.name)? {
                    linear.weight = weight;
                }
            }
            blocks.push(Arc::new(block));
        }
        Ok(Self { model: model.without_blocks(), blocks, codes })
    }
}

/// A tuned model.
#[derive(Debug)]
pub(crate) struct Tuned {
    model: Model,
    blocks: Vec<Arc<Block>>,
    codes: BTreeMap<String, Codes>,
    /// Norms and biases by the names of their tensors.
    pub(crate) tensors: BTreeMap<String, (DType, Array1<f32>)>,
    pub(crate) report: TuningReport,
}

impl Tuned {
    /// The model, in memory.
    pub(crate) fn into_model(self) -> Result<Model> {
        Ok(self.model.with_blocks(self.blocks)?)
    }

    /// The layer of this name as it is now, where `layer` is what it was.
    pub(crate) fn layer(&self, name: &str, layer: CompressedLayer) -> CompressedLayer {
        match self.codes.get(name) {
            Some(codes) => CompressedLayer { weight: codes.dequantize(), codes: Some(codes.clone()), ..layer },
            None => layer,
        }
    }

    /// The codes of a layer as they are now; none of layers that were not tuned.
    pub(crate) fn codes(&self, name: &str) -> Option<&Codes> {
        self.codes.get(name)
    }
}

/// The texts of a tuning.
#[derive(Debug)]
struct Texts<'a> {
    judging: Vec<&'a [u32]>,
    teaching: Vec<&'a [u32]>,
    /// Sequences of a step.
    of_step: usize,
}

impl<'a> Texts<'a> {
    fn new(calibration: &'a Calibration) -> Self {
        let mut teaching: Vec<&[u32]> = calibration.all().collect();
        let length = calibration.longest().max(1);
        let judging = JUDGING_TOKENS.div_ceil(length).min(teaching.len() / MOST_JUDGING);
        let judging = teaching.drain(..judging).collect();
        Self { judging, teaching, of_step: (STEP_TOKENS / length).max(1) }
    }

    /// The sequences of a step, counted from 1: one after the other, and from the start again.
    fn batch(&self, number: usize) -> Vec<&'a [u32]> {
        let first = (number - 1) * self.of_step;
        let count = self.of_step.min(self.teaching.len());
        (first..first + count).map(|at| self.teaching[at % self.teaching.len()]).collect()
    }
}

/// How long step `number` is of the longest, the `since`th since the means of gradients were empty; both are counted from 1.
fn share(number: usize, steps: usize, since: usize) -> f32 {
    let left = (steps + 1 - number) as f32 / steps as f32;
    left * (since as f32 / WARM_UP as f32).min(1.0)
}

/// Takes `steps` steps from `subject`. With `safe`, a file, an interrupted tuning goes on from what is there.
///
/// What is returned is the best state by the judging part of the text, the start among them. Same input, same bits, for any
/// number of threads and interruptions.
pub(crate) fn tune(
    dense: &Model,
    subject: Subject,
    calibration: &Calibration,
    steps: usize,
    safe: Option<&Path>,
    observer: &dyn Observer,
) -> Result<Tuned> {
    let start = Instant::now();
    let Subject { model, mut blocks, codes: mut frozen } = subject;
    let texts = Texts::new(calibration);
    let mut teacher = dense.clone();
    teacher.make_resident()?;
    let mut parameters = Parameters { layers: Vec::new(), vectors: Vec::new() };
    for block in &blocks {
        let whole = teacher.block(block.index())?;
        for (id, linear) in block.linears().iter().enumerate() {
            if let Some(frozen) = frozen.remove(&linear.name) {
                parameters.layers.push(Layer::new(block.index(), id, frozen, whole.linears()[id].weight.view()));
            }
        }
        parameters.vectors.extend(Vector::of_block(dense, block));
    }
    let target = Divergence::new(&teacher, teacher.hidden(&texts.judging)?);
    let judge = |blocks: &[Arc<Block>]| -> Result<f64> {
        if texts.judging.is_empty() {
            return Ok(f64::INFINITY); // nothing to tell states apart by: the last is taken
        }
        Ok(model.with_blocks(blocks.to_vec())?.loss(&texts.judging, &target)?)
    };
    let mut state = match safe.filter(|file| file.is_file()) {
        Some(file) => State::read(file, &mut parameters)?,
        None => State::new(judge(&blocks)?, &mut parameters),
    };
    observer.note(&format_args!(
        "tuning: {steps} steps over {} sequences; divergence on {} others before: {:.4} nats",
        texts.teaching.len(),
        texts.judging.len(),
        state.before
    ));
    parameters.apply(&mut blocks);
    for number in state.done + 1..=steps {
        if observer.stop() {
            safe.map_or(Ok(()), |file| state.write(file, &mut parameters))?;
            return Err(Error::Stopped { done: blocks.len(), of: blocks.len() });
        }
        let batch = texts.batch(number);
        let loss = Divergence::new(&teacher, teacher.hidden(&batch)?);
        let student = model.with_blocks(blocks.clone())?;
        let nats = student.backward(&batch, &loss, &mut parameters)?;
        drop(student);
        let since = number - state.since;
        parameters.step(since, share(number, steps, since) * if state.since == 0 { 1.0 } else { CAUTION });
        parameters.apply(&mut blocks);
        state.done = number;
        let every = |times: usize| number.is_multiple_of(steps.div_ceil(times)) || number == steps;
        let is_first_look = number == steps.div_ceil(FIRST_LOOK);
        if every(JUDGEMENTS) || is_first_look {
            let judged = judge(&blocks)?;
            observer.note(&format_args!("tuning: step {number}: {nats:.4} nats, on the others {judged:.4}"));
            state.judge(judged, &mut parameters);
        }
        if is_first_look && state.is_no_better_than_at_the_start() {
            observer.note(&"tuning: nothing is better than at the start; from there again in shorter steps");
            state.restore_best(&mut parameters);
            parameters.forget();
            parameters.apply(&mut blocks);
            state.since = number;
        }
        if every(SAVES) {
            safe.map_or(Ok(()), |file| state.write(file, &mut parameters))?;
        }
        observer.progress(number, steps, &format_args!("tuning: {nats:.4} nats"));
    }
    state.restore_best(&mut parameters);
    parameters.apply(&mut blocks);
    let mut tensors = BTreeMap::new();
    parameters.vectors.iter().try_for_each(|vector| vector.write(dense, &mut tensors))?;
    let name = |layer: &Layer| blocks[layer.block].linears()[layer.id].name.clone();
    let codes = parameters.layers.iter().map(|layer| (name(layer), layer.codes())).collect();
    let report = TuningReport {
        steps,
        sequences: texts.teaching.len(),
        judging_tokens: texts.judging.iter().map(|tokens| tokens.len()).sum(),
        before: Some(state.before).filter(|nats| nats.is_finite()),
        after: Some(state.best).filter(|nats| nats.is_finite()),
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok(Tuned { model, blocks, codes, tensors, report })
}
