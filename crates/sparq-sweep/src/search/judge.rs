//! KL of a whole model to its base on the probe text, for models put together from levels that are solved already.

use super::levels::{Level, Place, assemble};
use super::polish::{Arena, Score};
use crate::Result;
use ndarray::{Array2, Axis};
use sparq_eval::mean_divergence;
use sparq_model::{BatchLayout, Block, Model};
use sparq_pipeline::Calibration;
use std::sync::Arc;

/// Of the probe's tokens, every so many is compared. Denser than for damage curves: what is compared here is chosen by.
const STRIDE: usize = 2;

/// The base model on the probe text, and a model of levels that others are judged next to: theirs is the same up to the
/// first block that differs, so that only the rest is run.
pub(super) struct Judge<'a> {
    model: &'a Model,
    levels: &'a [Level],
    places: &'a [Place],
    sequences: Vec<Sequence>,
    choice: Vec<usize>,
    blocks: Vec<Arc<Block>>,
}

struct Sequence {
    layout: BatchLayout,
    /// The base's scores of the tokens that are compared.
    logits: Array2<f32>,
    /// What enters each block of the model that stands.
    residuals: Vec<Array2<f32>>,
}

impl<'a> Judge<'a> {
    /// Runs the base, and then the model that `choice` names.
    pub(super) fn new(
        model: &'a Model,
        levels: &'a [Level],
        places: &'a [Place],
        probe: &Calibration,
        choice: &[usize],
    ) -> Result<Self> {
        let blocks = (0..model.block_count()).map(|index| Ok(model.block(index)?)).collect::<Result<Vec<_>>>()?;
        let mut sequences = Vec::with_capacity(probe.sequences().len());
        for tokens in probe.sequences() {
            let layout = BatchLayout::new(&[tokens.len()]);
            let embedded = model.embed(tokens, &layout)?;
            let behind = run(&blocks, embedded.clone(), &layout, |_| ())?;
            let logits = scores(model, behind)?;
            sequences.push(Sequence { layout, logits, residuals: vec![embedded] });
        }
        let mut judge = Self { model, levels, places, sequences, choice: Vec::new(), blocks };
        judge.adopt(choice)?;
        Ok(judge)
    }

    /// KL(base ‖ compressed) on the whole probe text.
    pub(super) fn divergence(&self, compressed: &Model) -> Result<f64> {
        let blocks = (0..compressed.block_count()).map(|index| Ok(compressed.block(index)?));
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let mut total = Score::default();
        for sequence in &self.sequences {
            let embedded = sequence.residuals[0].clone();
            total += self.score(sequence, run(&blocks, embedded, &sequence.layout, |_| ())?)?;
        }
        Ok(total.mean())
    }

    /// The blocks of `choice`, and the first of them that is not the standing model's.
    fn blocks(&self, choice: &[usize]) -> Result<(usize, Vec<Arc<Block>>)> {
        let mut blocks = self.blocks.clone();
        let mut first = blocks.len();
        for (index, block) in blocks.iter_mut().enumerate() {
            let mut of_block = (0..self.places.len()).filter(|&unit| self.places[unit].block == index);
            if of_block.any(|unit| self.choice.get(unit) != choice.get(unit)) {
                *block = Arc::new(assemble(&*self.model.block(index)?, self.places, self.levels, choice));
                first = first.min(index);
            }
        }
        Ok((first, blocks))
    }

    fn score(&self, sequence: &Sequence, behind: Array2<f32>) -> Result<Score> {
        let rows = sequence.logits.nrows();
        if rows == 0 {
            return Ok(Score::default());
        }
        let scores = scores(self.model, behind)?;
        let mean = mean_divergence(sequence.logits.view(), scores.view())?;
        Ok(Score { sum: mean * rows as f64, rows })
    }
}

impl Arena for Judge<'_> {
    fn sequences(&self) -> usize {
        self.sequences.len()
    }

    fn judge(&self, choice: &[usize], sequences: &[usize]) -> Result<Vec<Score>> {
        let (first, blocks) = self.blocks(choice)?;
        let judged = sequences.iter().map(|&index| {
            let sequence = &self.sequences[index];
            let residual = sequence.residuals[first].clone();
            self.score(sequence, run(&blocks[first..], residual, &sequence.layout, |_| ())?)
        });
        judged.collect()
    }

    fn adopt(&mut self, choice: &[usize]) -> Result<()> {
        let (first, blocks) = self.blocks(choice)?;
        for sequence in &mut self.sequences {
            sequence.residuals.truncate(first + 1);
            let Some(residual) = sequence.residuals.pop() else { continue };
            let residuals = &mut sequence.residuals;
            let behind =
                run(&blocks[first..], residual, &sequence.layout, |entering| residuals.push(entering.clone()))?;
            sequence.residuals.push(behind);
        }
        self.blocks = blocks;
        self.choice = choice.to_vec();
        Ok(())
    }
}

/// Runs `residual` through `blocks`; `look` sees what enters each.
fn run(
    blocks: &[Arc<Block>],
    mut residual: Array2<f32>,
    layout: &BatchLayout,
    mut look: impl FnMut(&Array2<f32>),
) -> Result<Array2<f32>> {
    for block in blocks {
        look(&residual);
        residual = block.forward(residual, layout.clone())?;
    }
    Ok(residual)
}

fn scores(model: &Model, residual: Array2<f32>) -> Result<Array2<f32>> {
    let rows: Vec<usize> = (STRIDE.min(residual.nrows()).max(1) - 1..residual.nrows()).step_by(STRIDE).collect();
    let hidden = model.finish(residual.select(Axis(0), &rows));
    Ok(model.logits(hidden.view())?)
}
