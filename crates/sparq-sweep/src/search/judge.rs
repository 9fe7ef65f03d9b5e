//! KL of a whole model to its base on the probe text, for models put together from levels that are solved already.

use super::base::{Base, Score, blocks};
use super::levels::{Level, Place, assemble};
use super::polish::Arena;
use crate::Result;
use ndarray::Array2;
use sparq_model::Block;
use std::sync::Arc;

/// A model of levels that others are judged next to: theirs is the same up to the first block that differs, so that only
/// the rest is run.
pub(super) struct Judge<'a> {
    base: &'a Base<'a>,
    levels: &'a [Level],
    places: &'a [Place],
    choice: Vec<usize>,
    blocks: Vec<Arc<Block>>,
    /// What enters each of the blocks, for each sequence.
    residuals: Vec<Vec<Array2<f32>>>,
}

impl<'a> Judge<'a> {
    /// Beside the model that `choice` names.
    pub(super) fn new(base: &'a Base<'a>, levels: &'a [Level], places: &'a [Place], choice: &[usize]) -> Result<Self> {
        let residuals = (0..base.sequences()).map(|sequence| vec![base.embedded(sequence).clone()]).collect();
        let blocks = blocks(base.model)?;
        let mut judge = Self { base, levels, places, choice: Vec::new(), blocks, residuals };
        judge.adopt(choice)?;
        Ok(judge)
    }

    /// The blocks of `choice`, and the first of them that is not the standing model's.
    fn blocks(&self, choice: &[usize]) -> Result<(usize, Vec<Arc<Block>>)> {
        let mut blocks = self.blocks.clone();
        let mut first = blocks.len();
        for (index, block) in blocks.iter_mut().enumerate() {
            let mut of_block = (0..self.places.len()).filter(|&unit| self.places[unit].block == index);
            if of_block.any(|unit| self.choice.get(unit) != choice.get(unit)) {
                *block = Arc::new(assemble(&*self.base.model.block(index)?, self.places, self.levels, choice));
                first = first.min(index);
            }
        }
        Ok((first, blocks))
    }
}

impl Arena for Judge<'_> {
    fn sequences(&self) -> usize {
        self.residuals.len()
    }

    fn judge(&self, choice: &[usize], sequences: &[usize]) -> Result<Vec<Score>> {
        let (first, blocks) = self.blocks(choice)?;
        let judged = sequences.iter().map(|&sequence| {
            let residual = self.residuals[sequence][first].clone();
            self.base.score(sequence, self.base.run(sequence, &blocks[first..], residual, |_| ())?)
        });
        judged.collect()
    }

    fn adopt(&mut self, choice: &[usize]) -> Result<()> {
        let (first, blocks) = self.blocks(choice)?;
        for (sequence, residuals) in self.residuals.iter_mut().enumerate() {
            // Blocks before the first that differs are still to be run where only the embedding is known.
            let from = first.min(residuals.len().saturating_sub(1));
            residuals.truncate(from + 1);
            let Some(residual) = residuals.pop() else { continue };
            let look = |entering: &Array2<f32>| residuals.push(entering.clone());
            let behind = self.base.run(sequence, &blocks[from..], residual, look)?;
            residuals.push(behind);
        }
        self.blocks = blocks;
        self.choice = choice.to_vec();
        Ok(())
    }
}
