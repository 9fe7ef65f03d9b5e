//! The base model on the probe text, which every other model is compared with.

use crate::Result;
use ndarray::{Array2, Axis};
use sparq_eval::mean_divergence;
use sparq_model::{BatchLayout, Block, Model};
use sparq_pipeline::Calibration;
use std::ops::AddAssign;
use std::sync::Arc;

/// Every `STRIDE`-th token of the probe is compared. Logits are large, and neighbouring tokens are alike.
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

/// The base's logits of the compared tokens, sequence by sequence.
pub(super) struct Base<'a> {
    pub(super) model: &'a Model,
    sequences: Vec<Sequence>,
}

struct Sequence {
    tokens: Vec<u32>,
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
            let logits = compared_logits(model, run(&blocks, embedded.clone(), &layout)?)?;
            Ok(Sequence { tokens: tokens.clone(), layout, embedded, logits })
        };
        Ok(Self { model, sequences: probe.sequences().iter().map(sequence).collect::<Result<_>>()? })
    }

    /// Number of sequences.
    pub(super) fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// The input of the first block.
    pub(super) fn embedded(&self, sequence: usize) -> &Array2<f32> {
        &self.sequences[sequence].embedded
    }

    /// Runs `blocks`, given the input of the first of them; returns the output of the last.
    pub(super) fn run(&self, sequence: usize, blocks: &[Arc<Block>], input: Array2<f32>) -> Result<Array2<f32>> {
        run(blocks, input, &self.sequences[sequence].layout)
    }

    /// KL(base ‖ model), given the output of the model's last block; `model` has the output matrix.
    pub(super) fn score(&self, model: &Model, sequence: usize, output: Array2<f32>) -> Result<Score> {
        let base = &self.sequences[sequence].logits;
        let rows = base.nrows();
        if rows == 0 {
            return Ok(Score::default());
        }
        let mean = mean_divergence(base.view(), compared_logits(model, output)?.view())?;
        Ok(Score { sum: mean * rows as f64, rows })
    }

    /// KL(base ‖ compressed) on the whole probe text, nats a token.
    pub(super) fn divergence(&self, compressed: &Model) -> Result<f64> {
        let blocks = blocks(compressed)?;
        let mut total = Score::default();
        for sequence in 0..self.sequences.len() {
            let Sequence { tokens, layout, .. } = &self.sequences[sequence];
            let output = self.run(sequence, &blocks, compressed.embed(tokens, layout)?)?;
            total += self.score(compressed, sequence, output)?;
        }
        Ok(total.mean())
    }
}

/// All blocks of a model.
pub(super) fn blocks(model: &Model) -> Result<Vec<Arc<Block>>> {
    (0..model.block_count()).map(|index| Ok(model.block(index)?)).collect()
}

fn run(blocks: &[Arc<Block>], input: Array2<f32>, layout: &BatchLayout) -> Result<Array2<f32>> {
    blocks.iter().try_fold(input, |residual, block| Ok(block.forward(residual, layout.clone())?))
}

fn compared_logits(model: &Model, output: Array2<f32>) -> Result<Array2<f32>> {
    let rows: Vec<usize> = (STRIDE.min(output.nrows()).max(1) - 1..output.nrows()).step_by(STRIDE).collect();
    let hidden = model.finish(output.select(Axis(0), &rows));
    Ok(model.logits(hidden.view())?)
}
