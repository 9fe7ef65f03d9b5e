use crate::tuning::Frozen;
use crate::{Result, Sink};
use sparq_core::CompressedLayer;
use sparq_model::{Block, Linear, Model};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keeps the compressed blocks in memory, as a model that can be evaluated at once.
#[derive(Debug, Default)]
pub struct MemorySink {
    blocks: Vec<Arc<Block>>,
    /// Codes and masks of layers, if they are wanted.
    codes: Option<BTreeMap<String, Frozen>>,
    /// The dense model with another embedding and output matrix, if these were compressed.
    vocabulary: Option<Model>,
}

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty sink that keeps codes, too.
    pub(crate) fn with_codes() -> Self {
        Self { codes: Some(BTreeMap::new()), ..Self::default() }
    }

    /// Takes out the codes of layers, by name; none unless they were to be kept.
    pub(crate) fn take_codes(&mut self) -> Option<BTreeMap<String, Frozen>> {
        self.codes.take()
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
    fn layer(&mut self, linear: &Linear, layer: &CompressedLayer) -> Result<()> {
        if let (Some(kept), Some(codes)) = (&mut self.codes, &layer.codes) {
            kept.insert(linear.name.clone(), Frozen { codes: codes.clone(), mask: layer.mask.clone() });
        }
        Ok(())
    }

    fn vocabulary(&mut self, model: &Model) -> Result<()> {
        self.vocabulary = Some(model.clone());
        Ok(())
    }

    fn block(&mut self, block: Block) -> Result<()> {
        self.blocks.push(Arc::new(block));
        Ok(())
    }
}
