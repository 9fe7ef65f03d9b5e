//! The dense model, walking beside the compressed one.

use crate::Result;
use crate::driver::begin;
use ndarray::Array2;
use sparq_model::{BatchLayout, Block, BlockState, Model, Precision};
use std::sync::Arc;

/// What enters the next block in the dense model, batch by batch.
#[derive(Debug)]
pub(crate) struct DenseStream {
    residuals: Vec<Array2<f32>>,
    precision: Precision,
}

/// A dense block and the batches on their way through it.
#[derive(Debug)]
pub(crate) struct DenseBlock {
    block: Arc<Block>,
    precision: Precision,
    states: Vec<BlockState>,
}

impl DenseStream {
    /// The stream as it enters block `first`, from what enters block 0.
    pub(crate) fn new(
        model: &Model,
        first: usize,
        layouts: &[BatchLayout],
        residuals: Vec<Array2<f32>>,
        precision: Precision,
    ) -> Result<Self> {
        let mut stream = Self { residuals, precision };
        for index in 0..first {
            let mut block = stream.enter(model.block(index)?, layouts)?;
            (0..block.block.stages()).try_for_each(|stage| block.apply(stage))?;
            stream = block.leave();
        }
        Ok(stream)
    }

    /// Starts a pass through `block`.
    pub(crate) fn enter(self, block: Arc<Block>, layouts: &[BatchLayout]) -> Result<DenseBlock> {
        let states = begin(&block, layouts, self.residuals, self.precision)?;
        Ok(DenseBlock { block, precision: self.precision, states })
    }
}

impl DenseBlock {
    /// Computes the inputs of the stage whose turn it is, and gives the states that hold them.
    pub(crate) fn inputs(&mut self, stage: usize) -> Result<&[BlockState]> {
        for state in &mut self.states {
            self.block.stage_input(stage, state)?;
        }
        Ok(&self.states)
    }

    /// Runs the stage.
    pub(crate) fn apply(&mut self, stage: usize) -> Result<()> {
        Ok(self.states.iter_mut().try_for_each(|state| self.block.apply(stage, state))?)
    }

    /// The stream behind the block.
    pub(crate) fn leave(self) -> DenseStream {
        let residuals = self.states.into_iter().map(|state| self.block.end(state)).collect();
        DenseStream { residuals, precision: self.precision }
    }
}
