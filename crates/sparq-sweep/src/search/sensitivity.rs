//! How much the whole model minds when a few layers alone are compressed.

use super::levels::Level;
use crate::Result;
use ndarray::{Array2, Axis};
use sparq_eval::mean_divergence;
use sparq_model::{BatchLayout, Block, LinearId, Model};
use sparq_pipeline::Calibration;
use std::sync::Arc;

/// Of the probe's tokens, every so many is compared: logits are large, and neighbours tell much the same.
const STRIDE: usize = 4;

/// The base model on the probe text.
pub(super) struct Probe<'a> {
    model: &'a Model,
    layout: BatchLayout,
    /// What enters the block that is looked at.
    residual: Array2<f32>,
    /// The base's scores of the rows that are compared.
    logits: Array2<f32>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(model: &'a Model, text: &Calibration) -> Result<Self> {
        let lengths: Vec<usize> = text.sequences().iter().map(Vec::len).collect();
        let layout = BatchLayout::new(&lengths);
        let residual = model.embed(&text.sequences().concat(), &layout)?;
        let mut probe = Self { model, layout, residual, logits: Array2::default((0, 0)) };
        probe.logits = probe.scores(probe.run(0, probe.residual.clone())?)?;
        Ok(probe)
    }

    /// KL(base ‖ model) with `level` in the place of these linears of block `index`, which must be the one the probe
    /// stands before.
    pub(super) fn divergence(&self, index: usize, ids: &[LinearId], level: &Level) -> Result<f64> {
        let mut block = (*self.model.block(index)?).clone();
        level.install(&mut block, ids);
        let behind = block.forward(self.residual.clone(), self.layout.clone())?;
        let scores = self.scores(self.run(index + 1, behind)?)?;
        Ok(mean_divergence(self.logits.view(), scores.view())?)
    }

    /// Moves on behind block `index`.
    pub(super) fn pass(&mut self, index: usize) -> Result<()> {
        let residual = std::mem::take(&mut self.residual);
        self.residual = self.model.block(index)?.forward(residual, self.layout.clone())?;
        Ok(())
    }

    fn run(&self, first: usize, mut residual: Array2<f32>) -> Result<Array2<f32>> {
        for index in first..self.model.block_count() {
            let block: Arc<Block> = self.model.block(index)?;
            residual = block.forward(residual, self.layout.clone())?;
        }
        Ok(residual)
    }

    fn scores(&self, residual: Array2<f32>) -> Result<Array2<f32>> {
        let rows: Vec<usize> = (STRIDE - 1..residual.nrows()).step_by(STRIDE).collect();
        let hidden = self.model.finish(residual.select(Axis(0), &rows));
        Ok(self.model.logits(hidden.view())?)
    }
}
