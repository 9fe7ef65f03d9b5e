use crate::plan::BATCH_TOKENS;
use crate::{Calibration, CompressionReport, LayerReport, Observer, Plan, Recipe, Result, Sink};
use ndarray::Array2;
use sparq_core::{CompressedLayer, Hessian, LayerCompressor, LayerProblem, Statistics};
use sparq_model::{BatchLayout, Block, BlockState, Linear, Model};
use sparq_obs::HessianAccumulator;
use std::time::Instant;

/// Compresses `model` according to `recipe`, one block after the other, and hands everything to `sink`.
///
/// `calibration` may be missing if the recipe needs no data. What leaves a block with its compressed weights is what
/// enters the next. Same model, recipe and calibration, same bits, for any number of threads.
///
/// # Errors
/// [`Error`](crate::Error), before any work where possible. `sink` is then to be dropped: it has not finished.
///
/// See the [crate example](crate).
pub fn compress(
    model: &Model,
    recipe: &Recipe,
    calibration: Option<&Calibration>,
    sink: &mut dyn Sink,
    observer: &dyn Observer,
) -> Result<CompressionReport> {
    let start = Instant::now();
    let plan = Plan::new(model, recipe, calibration)?;
    observer.planned(&plan);
    let targets = recipe.targets.build()?;
    let compressor = recipe.compressor()?;
    let needs = compressor.as_ref().map_or(Statistics::Nothing, sparq_core::LayerCompressor::needs);

    let mut streams = match calibration.filter(|_| needs > Statistics::Nothing) {
        Some(calibration) => batches(model, calibration)?,
        None => Vec::new(),
    };
    let mut layers = Vec::with_capacity(plan.layers);
    for index in 0..model.block_count() {
        let mut block = own_block(model, index)?;
        let mut states = begin(&block, std::mem::take(&mut streams))?;
        for stage in 0..block.stages() {
            let ids = block.stage_linears(stage).to_vec();
            let chosen: Vec<_> = ids.into_iter().filter(|id| targets.contains(&block.linears()[*id].name)).collect();
            if let (Some(compressor), Some(first)) = (&compressor, chosen.first()) {
                let width = block.linears()[*first].in_features();
                let hessian = gather(&block, stage, &mut states, width, needs)?;
                for id in chosen {
                    let linear = block.linear_mut(id);
                    let (layer, report) = solve(index, linear, &hessian, compressor)?;
                    sink.layer(linear, &layer)?;
                    linear.weight = layer.weight;
                    observer.layer(&report);
                    layers.push(report);
                }
            }
            for state in &mut states {
                block.apply(stage, state)?;
            }
        }
        streams = states.into_iter().map(|state| (state.layout().clone(), block.end(state))).collect();
        sink.block(block)?;
        observer.block(index + 1, plan.blocks);
    }
    Ok(CompressionReport::new(recipe, plan, layers, start.elapsed().as_secs_f64()))
}

/// A batch of sequences on its way through the blocks.
type Stream = (BatchLayout, Array2<f32>);

/// Groups the sequences and embeds them.
fn batches(model: &Model, calibration: &Calibration) -> Result<Vec<Stream>> {
    let mut streams = Vec::new();
    let mut pending: Vec<&[u32]> = Vec::new();
    let mut flush = |pending: &mut Vec<&[u32]>| -> Result<()> {
        if !pending.is_empty() {
            let lengths: Vec<usize> = pending.iter().map(|sequence| sequence.len()).collect();
            streams.push((BatchLayout::new(&lengths), model.embed(&pending.concat())?));
            pending.clear();
        }
        Ok(())
    };
    for sequence in calibration.sequences() {
        if pending.iter().map(|sequence| sequence.len()).sum::<usize>() + sequence.len() > BATCH_TOKENS {
            flush(&mut pending)?;
        }
        pending.push(sequence);
    }
    flush(&mut pending)?;
    Ok(streams)
}

fn own_block(model: &Model, index: usize) -> Result<Block> {
    if model.is_resident() {
        return Ok((*model.block(index)?).clone());
    }
    Ok(model.load_block(index)?)
}

fn begin(block: &Block, streams: Vec<Stream>) -> Result<Vec<BlockState>> {
    streams.into_iter().map(|(layout, residual)| Ok(block.begin(residual, layout)?)).collect()
}

/// Sums up the inputs of a stage over all batches, in their order.
fn gather(block: &Block, stage: usize, states: &mut [BlockState], width: usize, needs: Statistics) -> Result<Hessian> {
    let mut accumulator = HessianAccumulator::new(width, needs)?;
    for state in states {
        accumulator.add(block.stage_input(stage, state)?)?;
    }
    Ok(accumulator.finish())
}

fn solve(
    block: usize,
    linear: &Linear,
    hessian: &Hessian,
    compressor: &dyn LayerCompressor,
) -> Result<(CompressedLayer, LayerReport)> {
    let start = Instant::now();
    let weight = linear.weight.view();
    let layer = compressor.compress(&LayerProblem::new(&linear.name, weight, hessian)?)?;
    let seconds = start.elapsed().as_secs_f64();
    let (rows, width) = weight.dim();
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
        relative_output_error: sparq_obs::relative_output_error(weight, layer.weight.view(), hessian),
        damping: layer.report.damping,
        fallbacks: layer.report.fallbacks.clone(),
        tokens: hessian.tokens(),
        seconds,
    };
    Ok((layer, report))
}
