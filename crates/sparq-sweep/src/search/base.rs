//! The base model on the probe text: what every other model is compared with.

use crate::Result;
use ndarray::{Array2, Axis};
use sparq_eval::mean_divergence;
use sparq_model::{BatchLayout, Block, Model};
use sparq_pipeline::Calibration;
use std::ops::AddAssign;
use std::sync::Arc;

/// Of the probe's tokens, every so many is compared: logits are large, and neighbours tell much the same.
const STRIDE: usize = 2;

/// A sum of divergences over tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Score {
    pub(super) sum: f64,
    pub(super) rows: usize,
}

impl Score {
    /// Nats a token.
    pub(super) fn mean(self) -> f64 {
        self.sum / self.rows.max(1) as f64
    }
}

impl AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.rows += other.rows;
    }
}

/// A model's scores of the tokens that are compared, sequence by sequence.
pub(super) struct Base<'a> {
    pub(super) model: &'a Model,
    sequences: Vec<Sequence>,
}

struct Sequence {
    layout: BatchLayout,
    embedded: Array2<f32>,
    logits: Array2<f32>,
}

impl<'a> Base<'a> {
    pub(super) fn new(model: &'a Model, probe: &Calibration) -> Result<Self> {
        let blocks = blocks(model)?;
        let sequence = |tokens: &Vec<u32>| {
            let layout = BatchLayout::new(&[tokens.len()]);
            let embedded = model.embed(tokens, &layout)?;
            let logits = scores(model, run(&blocks, embedded.clone(), &layout, |_| ())?)?;
            Ok(Sequence { layout, embedded, logits })
        };
        Ok(Self { model, sequences: probe.sequences().iter().map(sequence).collect::<Result<_>>()? })
    }

    /// Number of sequences.
    pub(super) fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// What enters the first block.
    pub(super) fn embedded(&self, sequence: usize) -> &Array2<f32> {
        &self.sequences[sequence].embedded
    }

    /// Runs what enters the first of `blocks` through them; `look` sees what enters each.
    pub(super) fn run(
        &self,
        sequence: usize,
        blocks: &[Arc<Block>],
        residual: Array2<f32>,
        look: impl FnMut(&Array2<f32>),
    ) -> Result<Array2<f32>> {
        run(blocks, residual, &self.sequences[sequence].layout, look)
    }

    /// KL(base ‖ model), given what leaves the model's last block.
    pub(super) fn score(&self, sequence: usize, behind: Array2<f32>) -> Result<Score> {
        let base = &self.sequences[sequence].logits;
        let rows = base.nrows();
        if rows == 0 {
            return Ok(Score::default());
        }
        let mean = mean_divergence(base.view(), scores(self.model, behind)?.view())?;
        Ok(Score { sum: mean * rows as f64, rows })
    }

    /// KL(base ‖ compressed) on the whole probe text, nats a token.
    pub(super) fn divergence(&self, compressed: &Model) -> Result<f64> {
        let blocks = blocks(compressed)?;
        let mut total = Score::default();
        for sequence in 0..self.sequences.len() {
            let behind = self.run(sequence, &blocks, self.embedded(sequence).clone(), |_| ())?;
            total += self.score(sequence, behind)?;
        }
        Ok(total.mean())
    }
}

/// All blocks of a model.
pub(super) fn blocks(model: &Model) -> Result<Vec<Arc<Block>>> {
    (0..model.block_count()).map(|index| Ok(model.block(index)?)).collect()
}

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
