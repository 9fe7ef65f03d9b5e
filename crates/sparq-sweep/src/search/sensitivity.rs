//! How much the whole model minds when a few layers alone are compressed.

use super::base::{Base, Score, blocks};
use super::levels::Level;
use crate::Result;
use ndarray::Array2;
use sparq_model::{Block, LinearId, Model};
use std::sync::Arc;

/// The base model, up to the block that is looked at.
pub(super) struct Probe<'a> {
    base: &'a Base<'a>,
    blocks: Vec<Arc<Block>>,
    /// What enters the block that is looked at, for each sequence.
    residuals: Vec<Array2<f32>>,
    /// Which that is.
    at: usize,
}

impl<'a> Probe<'a> {
    pub(super) fn new(base: &'a Base<'a>) -> Result<Self> {
        let residuals = (0..base.sequences()).map(|sequence| base.embedded(sequence).clone()).collect();
        Ok(Self { base, blocks: blocks(base.model)?, residuals, at: 0 })
    }

    /// The base.
    pub(super) fn model(&self) -> &'a Model {
        self.base.model
    }

    /// KL(base ‖ model) with `level` in the place of these linears of the block that is looked at.
    pub(super) fn divergence(&self, ids: &[LinearId], level: &Level) -> Result<f64> {
        let mut block = (*self.blocks[self.at]).clone();
        level.install(&mut block, ids);
        let mut rest = self.blocks[self.at..].to_vec();
        rest[0] = Arc::new(block);
        let mut total = Score::default();
        for (sequence, residual) in self.residuals.iter().enumerate() {
            let behind = self.base.run(sequence, &rest, residual.clone(), |_| ())?;
            total += self.base.score(sequence, behind)?;
        }
        Ok(total.mean())
    }

    /// Looks at the next block.
    pub(super) fn pass(&mut self) -> Result<()> {
        let block = &self.blocks[self.at..=self.at];
        for (sequence, residual) in self.residuals.iter_mut().enumerate() {
            *residual = self.base.run(sequence, block, std::mem::take(residual), |_| ())?;
        }
        self.at += 1;
        Ok(())
    }
}
