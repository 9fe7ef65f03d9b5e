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
}

/// A dense block and the batches on their way through it.
#[derive(Debug)]
pub(crate) struct DenseBlock {
    block: Arc<Block>,
    states: Vec<BlockState>,
}

impl DenseStream {
    /// The stream as it enters block `first`, from what enters block 0.
    pub(crate) fn new(
        model: &Model,
        first: usize,
        layouts: &[BatchLayout],
        mut residuals: Vec<Array2<f32>>,
        precision: Precision,
    ) -> Result<Self> {
        for index in 0..first {
            let block = model.block(index)?;
            let states = begin(&block, layouts, residuals, precision)?.into_iter();
            residuals = states.map(|state| block.finish(state)).collect::<std::result::Result<_, _>>()?;
        }
        Ok(Self { residuals })
    }

    /// Starts a pass through `block`.
    pub(crate) fn enter(self, block: Arc<Block>, layouts: &[BatchLayout], precision: Precision) -> Result<DenseBlock> {
        let states = begin(&block, layouts, self.residuals, precision)?;
        Ok(DenseBlock { block, states })
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
        DenseStream { residuals: self.states.into_iter().map(|state| self.block.end(state)).collect() }
    }
}
