//! The dense model, walking beside the compressed one.

use crate::Result;
use crate::stream::Stream;
use ndarray::Array2;
use sparq_model::{Block, BlockState, Model};
use std::sync::Arc;

/// The dense model between two blocks.
#[derive(Debug)]
pub(crate) struct DenseStream {
    stream: Stream,
}

/// A dense block and the batches on their way through it.
#[derive(Debug)]
pub(crate) struct DenseBlock {
    block: Arc<Block>,
    stream: Stream,
}

impl DenseStream {
    /// The stream as it enters block `first`, from what enters block 0.
    pub(crate) fn new(model: &Model, first: usize, mut stream: Stream) -> Result<Self> {
        for index in 0..first {
            let block = model.block(index)?;
            stream.each(&block, |_, state| Ok(block.run(state)?))?;
            stream.leave(&block);
        }
        Ok(Self { stream })
    }

    /// Starts a pass through `block`.
    pub(crate) fn enter(self, block: Arc<Block>) -> DenseBlock {
        DenseBlock { block, stream: self.stream }
    }
}

impl DenseBlock {
    /// Computes the input of the stage whose turn it is, of one batch, and shows the state that holds it.
    pub(crate) fn input<T>(
        &mut self,
        stage: usize,
        batch: usize,
        look: impl FnOnce(&BlockState) -> Result<T>,
    ) -> Result<T> {
        let block = &self.block;
        self.stream.with(batch, block, |state| {
            block.stage_input(stage, state)?;
            look(state)
        })
    }

    /// What the stage would [leave](Stream::after) of one batch.
    pub(crate) fn after(&mut self, batch: usize, stage: usize) -> Result<Array2<f32>> {
        self.stream.after(batch, &self.block, stage)
    }

    /// Runs the stage.
    pub(crate) fn apply(&mut self, stage: usize) -> Result<()> {
        let block = &self.block;
        self.stream.each(block, |_, state| Ok(block.apply(stage, state)?))
    }

    /// The stream behind the block.
    pub(crate) fn leave(mut self) -> DenseStream {
        self.stream.leave(&self.block);
        DenseStream { stream: self.stream }
    }
}
