use crate::{Result, Sink};
use sparq_model::{Block, Model};
use std::sync::Arc;

/// Keeps the compressed blocks in memory, as a model that can be evaluated at once.
#[derive(Debug, Default)]
pub struct MemorySink {
    blocks: Vec<Arc<Block>>,
    /// The dense model with another embedding and output matrix, if these were compressed.
    vocabulary: Option<Model>,
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
        Ok(self.vocabulary.as_ref().unwrap_or(model).with_blocks(self.blocks)?)
    }
}

impl Sink for MemorySink {
    fn vocabulary(&mut self, model: &Model) -> Result<()> {
        self.vocabulary = Some(model.clone());
        Ok(())
    }

    fn block(&mut self, block: Block) -> Result<()> {
        self.blocks.push(Arc::new(block));
        Ok(())
    }
}
