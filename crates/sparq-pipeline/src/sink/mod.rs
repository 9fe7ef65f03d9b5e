//! Where compressed layers and blocks go.

mod memory;
mod solution;

pub use memory::MemorySink;
pub(crate) use solution::SOLUTION;
pub use solution::SolutionSink;

use crate::{Error, LayerReport, Result};
use ndarray::{Array2, CowArray, Ix2};
use sparq_core::CompressedLayer;
use sparq_model::{Block, Linear, Model};
use std::fmt;

/// Where compressed layers and blocks go.
pub trait Sink {
    /// What an interrupted earlier run left here to go on from; asked for once, before the first block.
    ///
    /// # Errors
    /// What the destination reports.
    fn resume(&mut self) -> Result<Option<Resumed>> {
        Ok(None)
    }

    /// A layer was compressed; `linear` still holds its dense weight.
    ///
    /// # Errors
    /// What the destination reports.
    fn layer(&mut self, linear: &Linear, layer: &CompressedLayer) -> Result<()> {
        let _ = (linear, layer);
        Ok(())
    }

    /// Embedding and output matrix were compressed, before any block: `model` is the dense model with the new ones.
    ///
    /// # Errors
    /// What the destination reports.
    fn vocabulary(&mut self, model: &Model) -> Result<()> {
        let _ = model;
        Ok(())
    }

    /// A block is done and holds its compressed weights.
    ///
    /// # Errors
    /// What the destination reports.
    fn block(&mut self, block: Block) -> Result<()> {
        let _ = block;
        Ok(())
    }

    /// Everything up to here may be made safe, so that a later run can go on from `progress`.
    ///
    /// # Errors
    /// What the destination reports.
    fn commit(&mut self, progress: &Progress<'_>) -> Result<()> {
        let _ = progress;
        Ok(())
    }
}

/// Keeps nothing: for a process that does not write.
#[derive(Debug)]
pub(crate) struct Nowhere;

impl Sink for Nowhere {}

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Blocks done.
    pub blocks: usize,
    /// Blocks there are.
    pub of: usize,
    /// Every layer so far.
    pub layers: &'a [LayerReport],
    /// What enters the next block.
    pub activations: &'a dyn Activations,
    /// Wall time so far, that of earlier parts of the run included.
    pub seconds: f64,
}

/// The residual stream between two blocks, a batch of calibration sequences at a time: not all of it need be in memory.
pub trait Activations: fmt::Debug {
    /// How many batches there are.
    fn batches(&self) -> usize;

    /// One of them, `[tokens, hidden]`.
    ///
    /// # Errors
    /// What reading it gives, if it waits in a file.
    fn batch(&self, index: usize) -> Result<CowArray<'_, f32, Ix2>>;
}

impl Activations for Vec<Array2<f32>> {
    fn batches(&self) -> usize {
        self.len()
    }

    fn batch(&self, index: usize) -> Result<CowArray<'_, f32, Ix2>> {
        let batch = self.get(index).ok_or_else(|| Error::Activations { what: format!("there is no batch {index}") })?;
        Ok(batch.view().into())
    }
}

/// What an earlier run left: the [`Progress`] it had committed.
#[derive(Debug)]
pub struct Resumed {
    /// Blocks done.
    pub blocks: usize,
    /// Their layers.
    pub layers: Vec<LayerReport>,
    /// What enters the next block; empty if there is none.
    pub activations: Box<dyn Activations>,
    /// Wall time so far.
    pub seconds: f64,
}
