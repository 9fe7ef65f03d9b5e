use crate::{Error, Result};
use serde_json::Value;
use sparq_core::CompressedLayer;
use sparq_model::{Block, Linear, Model};
use sparq_tensor::{Checkpoint, CheckpointWriter, DType, TensorSpec, WriteOptions, Written};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Where compressed layers and blocks go.
pub trait Sink {
    /// A layer was compressed; `linear` still holds its dense weight.
    ///
    /// # Errors
    /// What the destination reports.
    fn layer(&mut self, linear: &Linear, layer: &CompressedLayer) -> Result<()> {
        let _ = (linear, layer);
        Ok(())
    }

    /// A block is done and holds its compressed weights.
    ///
    /// # Errors
    /// What the destination reports.
    fn block(&mut self, block: Block) -> Result<()>;
}

/// Keeps the compressed blocks in memory, as a model that can be evaluated at once.
#[derive(Debug, Default)]
pub struct MemorySink {
    blocks: Vec<Arc<Block>>,
}

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// The compressed model: `model` with the blocks collected here.
    ///
    /// # Errors
    /// [`Error::Model`] if blocks are missing.
    pub fn into_model(self, model: &Model) -> Result<Model> {
        Ok(model.with_blocks(self.blocks)?)
    }
}

impl Sink for MemorySink {
    fn block(&mut self, block: Block) -> Result<()> {
        self.blocks.push(Arc::new(block));
        Ok(())
    }
}

/// The number type of the tensors in a dense output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutputType {
    /// Each tensor as it was; half precision for what was block-quantized.
    #[default]
    Source,
    /// 32 bits.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16. With 8-bit codes it cannot hold every `scale · code` exactly.
    Bf16,
}

impl OutputType {
    fn of(self, source: DType) -> DType {
        match self {
            Self::Source if matches!(source, DType::F32 | DType::F16 | DType::BF16) => source,
            Self::Source | Self::F16 => DType::F16,
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// How a checkpoint is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteSettings {
    /// Number type of the tensors.
    pub output_type: OutputType,
    /// Most bytes of tensors in one file.
    pub max_shard_bytes: u64,
    /// Replace an existing destination.
    pub overwrite: bool,
}

impl Default for WriteSettings {
    fn default() -> Self {
        let options = WriteOptions::default();
        Self { output_type: OutputType::Source, max_shard_bytes: options.max_shard_bytes, overwrite: false }
    }
}

/// Writes a dense Hugging Face checkpoint: compressed layers as they come, everything else as it was, tokenizer and
/// configuration included. Nothing is at the destination until [`finish`](Self::finish).
#[derive(Debug)]
pub struct CheckpointSink {
    source: Arc<Checkpoint>,
    writer: CheckpointWriter,
    output_type: OutputType,
    written: BTreeSet<String>,
}

impl CheckpointSink {
    /// Opens `destination` for the compressed form of `model`.
    ///
    /// # Errors
    /// [`Error::Tensor`], for one if the destination exists.
    pub fn create(model: &Model, destination: impl AsRef<Path>, settings: WriteSettings) -> Result<Self> {
        let source = Arc::clone(model.checkpoint());
        let plan = source
            .tensors()
            .map(|tensor| TensorSpec::new(&tensor.name, tensor.shape.clone(), settings.output_type.of(tensor.dtype)))
            .collect();
        let options = WriteOptions { max_shard_bytes: settings.max_shard_bytes, overwrite: settings.overwrite };
        let writer = CheckpointWriter::create(destination, plan, options)?;
        Ok(Self { source, writer, output_type: settings.output_type, written: BTreeSet::new() })
    }

    /// Copies what was not compressed, adds configuration and tokenizer, and moves everything into place.
    ///
    /// # Errors
    /// [`Error::Tensor`]; then nothing is left at the destination.
    pub fn finish(mut self) -> Result<Written> {
        for tensor in self.source.tensors().filter(|tensor| !self.written.contains(&tensor.name)) {
            if self.output_type.of(tensor.dtype) == tensor.dtype {
                self.writer.write_bytes(&tensor.name, &self.source.read_bytes(&tensor.name)?)?;
            } else {
                self.writer.write_f32(&tensor.name, self.source.read(&tensor.name)?.view())?;
            }
        }
        for file in self.source.side_files()? {
            let bytes = if file.name == "config.json" { self.config(file.bytes)? } else { file.bytes };
            self.writer.write_side_file(&file.name, &bytes)?;
        }
        Ok(self.writer.finish()?)
    }

    /// config.json names the number type; it stays byte-equal unless that changes.
    fn config(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let types: BTreeSet<&str> = self
            .source
            .tensors()
            .filter_map(|tensor| match self.output_type.of(tensor.dtype) {
                DType::F32 => Some("float32"),
                DType::F16 => Some("float16"),
                DType::BF16 => Some("bfloat16"),
                _ => None,
            })
            .collect();
        let (Some(&name), 1) = (types.first(), types.len()) else { return Ok(bytes) };
        let bad = |error: serde_json::Error| Error::Config { reason: error.to_string() };
        let mut config: Value = serde_json::from_slice(&bytes).map_err(bad)?;
        let mut changed = false;
        for key in ["torch_dtype", "dtype"] {
            if let Some(value) = config.get_mut(key).filter(|value| value.is_string() && *value != name) {
                *value = Value::from(name);
                changed = true;
            }
        }
        if !changed {
            return Ok(bytes);
        }
        let mut bytes = serde_json::to_vec_pretty(&config).map_err(bad)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

impl Sink for CheckpointSink {
    fn layer(&mut self, linear: &Linear, layer: &CompressedLayer) -> Result<()> {
        let tensor = linear.weight_name();
        if !self.source.contains(&tensor) {
            return Err(Error::NoPlace { tensor });
        }
        self.writer.write_f32(&tensor, layer.weight.view().into_dyn())?;
        self.written.insert(tensor);
        Ok(())
    }

    fn block(&mut self, _: Block) -> Result<()> {
        Ok(())
    }
}
