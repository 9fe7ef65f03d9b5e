//! How much the whole model diverges when only a few layers are compressed.

use super::base::{Base, Score, blocks};
use super::solved_layers::SolvedLayers;
use crate::Result;
use ndarray::Array2;
use sparq_model::{Block, LinearId, Model};
use std::sync::Arc;

/// The base model, run up to the current block.
pub(super) struct Probe<'a> {
    base: &'a Base<'a>,
    blocks: Vec<Arc<Block>>,
    /// The input of the current block, for each sequence.
    residuals: Vec<Array2<f32>>,
    /// Index of the current block.
    current: usize,
}

impl<'a> Probe<'a> {
    pub(super) fn new(base: &'a Base<'a>) -> Result<Self> {
        let residuals = (0..base.sequences()).map(|sequence| base.embedded(sequence).clone()).collect();
        Ok(Self { base, blocks: blocks(base.model)?, residuals, current: 0 })
    }

    /// The base.
    pub(super) fn model(&self) -> &'a Model {
        self.base.model
    }

    /// KL(base ‖ model) with these linears of the current block replaced by solved ones.
    pub(super) fn divergence(&self, ids: &[LinearId], layers: &SolvedLayers) -> Result<f64> {
        let mut block = (*self.blocks[self.current]).clone();
        layers.install(&mut block, ids);
        let mut rest = self.blocks[self.current..].to_vec();
        rest[0] = Arc::new(block);
        let mut total = Score::default();
        for (sequence, residual) in self.residuals.iter().enumerate() {
            let output = self.base.run(sequence, &rest, residual.clone())?;
            total += self.base.score(self.base.model, sequence, output)?;
        }
        Ok(total.mean())
    }

    /// Goes on to the next block.
    pub(super) fn advance(&mut self) -> Result<()> {
        let block = &self.blocks[self.current..=self.current];
        for (sequence, residual) in self.residuals.iter_mut().enumerate() {
            *residual = self.base.run(sequence, block, std::mem::take(residual))?;
        }
        self.current += 1;
        Ok(())
    }
}
