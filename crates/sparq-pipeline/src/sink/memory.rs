use crate::{Result, Sink};
use ndarray::Array2;
use sparq_model::{Block, Model};
use std::sync::Arc;

/// Keeps the compressed blocks in memory, as a model that can be evaluated at once.
#[derive(Debug, Default)]
pub struct MemorySink {
    blocks: Vec<Arc<Block>>,
    vocabulary: Vec<Array2<f32>>,
}

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// The compressed model: `model` with the blocks collected here.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) if blocks are missing.
    pub fn into_model(self, model: &Model) -> Result<Model> {
        let model = model.with_blocks(self.blocks)?;
        Ok(if self.vocabulary.is_empty() { model } else { model.with_vocabulary(self.vocabulary)? })
    }
}

impl Sink for MemorySink {
    fn vocabulary(&mut self, matrices: Vec<Array2<f32>>) -> Result<()> {
        self.vocabulary = matrices;
        Ok(())
    }

    fn block(&mut self, block: Block) -> Result<()> {
        self.blocks.push(Arc::new(block));
        Ok(())
    }
}
