//! A model: shared tensors, config and tokenizer around blocks that come from disk or from memory.

mod backward;
mod forward;
mod load;
mod loss;
mod memory;
mod weights;

pub use load::open_checkpoint;
pub use loss::{CrossEntropy, Divergence, Loss, SampledLabels};
pub use memory::MemoryEstimate;

use crate::block::{Block, BlockPlan, Linear};
use crate::ops::{RopeTables, Workspace};
use crate::tokenizer::Tokenizer;
use crate::{Error, ModelConfig, Precision, Result};
use ndarray::{Array1, Array2};
use rayon::prelude::*;
use sparq_tensor::{Checkpoint, StoredRows, TensorPart};
use std::sync::{Arc, OnceLock};
use weights::LazyMatrix;

/// A causal language model over a checkpoint.
///
/// Opening reads no block. Blocks are read when they are needed and dropped again, so that a model larger than memory
/// can be run, unless [`make_resident`](Self::make_resident) or [`with_blocks`](Self::with_blocks) put them into memory.
/// Cloning is cheap and shares everything.
#[derive(Debug, Clone)]
pub struct Model {
    shared: Arc<Shared>,
    blocks: Option<Vec<Arc<Block>>>,
    /// What runs where no blocks are in memory.
    as_stored: Option<Arc<AsStored>>,
    /// Embedding and output matrix that take the place of the checkpoint's; one if they are tied.
    vocabulary: Option<Vec<Arc<Array2<f32>>>>,
    precision: Precision,
}

/// A model whose weights stay as they are stored.
#[derive(Debug)]
struct AsStored {
    blocks: Vec<Arc<Block>>,
    /// None if its rows cannot be decoded one by one.
    embedding: Option<StoredRows>,
    output: Option<StoredRows>,
}

/// What all models over one checkpoint have in common.
#[derive(Debug)]
struct Shared {
    checkpoint: Arc<Checkpoint>,
    config: Arc<ModelConfig>,
    plans: Vec<Arc<BlockPlan>>,
    rope: Option<Arc<RopeTables>>,
    /// Of blocks with a window, where it is another one.
    window_rope: Option<Arc<RopeTables>>,
    workspace: Arc<Workspace>,
    embedding: LazyMatrix,
    /// Learned embeddings of positions.
    positions: Option<LazyMatrix>,
    /// `None` if the output matrix is the embedding.
    head: Option<LazyMatrix>,
    final_norm: Array1<f32>,
    final_bias: Option<Array1<f32>>,
    tokenizer: OnceLock<Tokenizer>,
}

impl Model {
    /// The checkpoint this model was opened from.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.shared.checkpoint
    }

    /// Dimensions and switches.
    pub fn config(&self) -> &ModelConfig {
        &self.shared.config
    }

    /// The same model, its linear layers multiplied in `precision`; `f32` unless this is called.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// What linear layers are multiplied in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The checkpoint's tokenizer, built when first asked for.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] if the checkpoint has none, [`Error::Tokenizer`] if it cannot be built.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.shared.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = Tokenizer::from_checkpoint(&self.shared.checkpoint, &self.shared.config)?;
        Ok(self.shared.tokenizer.get_or_init(|| tokenizer))
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.shared.plans.len()
    }

    /// Names and shapes of the parts of block `index`, without reading it.
    ///
    /// # Errors
    /// [`Error::BlockOutOfRange`].
    pub fn block_plan(&self, index: usize) -> Result<&BlockPlan> {
        let count = self.block_count();
        self.shared.plans.get(index).map(AsRef::as_ref).ok_or(Error::BlockOutOfRange { index, count })
    }

    /// Full module names of the linears of all blocks, in the order they run.
    pub fn linear_names(&self) -> impl Iterator<Item = &str> {
        self.shared.plans.iter().flat_map(|plan| plan.linears.iter().map(|linear| linear.name.as_str()))
    }

    /// Number of parameters of the blocks, embeddings (of positions too) and final norm; tied embeddings count once.
    pub fn parameters(&self) -> usize {
        let config = &self.shared.config;
        let matrices = if config.tie_word_embeddings { 1 } else { 2 };
        let blocks: usize = self.shared.plans.iter().map(|plan| plan.parameters()).sum();
        let positions = if config.learned_positions { config.max_positions } else { 0 };
        let norm = self.shared.final_norm.len() + self.shared.final_bias.as_ref().map_or(0, Array1::len);
        blocks + (matrices * config.vocab_size + positions) * config.hidden_size + norm
    }

    /// Block `index`: the one in memory if there is one, else read from the checkpoint.
    ///
    /// # Errors
    /// Those of [`load_block`](Self::load_block).
    pub fn block(&self, index: usize) -> Result<Arc<Block>> {
        match &self.blocks {
            Some(blocks) => {
                blocks.get(index).cloned().ok_or(Error::BlockOutOfRange { index, count: self.block_count() })
            }
            None => self.load_block(index).map(Arc::new),
        }
    }

    /// Reads all blocks into memory, unless they are there; [`memory_estimate`](Self::memory_estimate) tells how much.
    ///
    /// # Errors
    /// Those of [`load_block`](Self::load_block); the model stays as it was.
    pub fn make_resident(&mut self) -> Result<()> {
        if self.blocks.is_none() {
            let blocks = (0..self.block_count()).into_par_iter().map(|index| self.load_block(index).map(Arc::new));
            self.blocks = Some(blocks.collect::<Result<_>>()?);
        }
        Ok(())
    }

    /// Makes ready to run with weights that stay as they are stored, unless blocks are in memory: every product decodes the rows
    /// that it needs. The model then takes as much memory as its files, whose pages are shared with other processes and go first when
    /// memory is short, and gives the logits of [`make_resident`](Self::make_resident) to the last bits. Weights that are
    /// entropy-coded or stored as `[in, out]` are read into memory as `f32`.
    ///
    /// A block that [`block`](Self::block) hands out is read from the checkpoint as before.
    ///
    /// # Errors
    /// Those of [`load_block`](Self::load_block); the model stays as it was.
    ///
    /// # Examples
    /// ```no_run
    /// let mut model = sparq_model::Model::open("model-q4.gguf")?;
    /// model.run_as_stored()?;
    /// let hidden = model.hidden(&[&[1, 2, 3]])?;
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn run_as_stored(&mut self) -> Result<()> {
        if self.blocks.is_some() || self.as_stored.is_some() {
            return Ok(());
        }
        let blocks = (0..self.block_count()).map(|index| self.stored_block(index).map(Arc::new));
        let blocks = blocks.collect::<Result<_>>()?;
        let shared = &self.shared;
        let rows = |matrix: &LazyMatrix| {
            let part = TensorPart::whole(matrix.name(), [shared.config.vocab_size, shared.config.hidden_size]);
            Ok::<_, Error>(shared.checkpoint.stored_rows(&part, shared.config.vocab_size)?)
        };
        let embedding = rows(&shared.embedding)?;
        let output = match &shared.head {
            Some(head) => rows(head)?,
            None => embedding.clone(),
        };
        self.as_stored = Some(Arc::new(AsStored { blocks, embedding, output }));
        Ok(())
    }

    /// Block `index` as it runs.
    fn running(&self, index: usize) -> Result<Arc<Block>> {
        match (&self.blocks, &self.as_stored) {
            (None, Some(stored)) => {
                stored.blocks.get(index).cloned().ok_or(Error::BlockOutOfRange { index, count: self.block_count() })
            }
            _ => self.block(index),
        }
    }

    /// The same model without the blocks that [`make_resident`](Self::make_resident) or [`with_blocks`](Self::with_blocks) put
    /// into memory: it reads those of its checkpoint when they are needed. Its output layer is the same.
    #[must_use]
    pub fn without_blocks(&self) -> Self {
        Self { blocks: None, as_stored: None, ..self.clone() }
    }

    /// Whether all blocks are in memory.
    pub fn is_resident(&self) -> bool {
        self.blocks.is_some()
    }

    /// A model with the same embeddings, norms and tokenizer (shared, not copied) and these blocks: how a compressed
    /// model lives in memory.
    ///
    /// # Errors
    /// [`Error::Blocks`] if number, order or parts of the blocks are not those of this model; [`Error::Shape`] if a
    /// weight was replaced by one of another shape.
    pub fn with_blocks(&self, blocks: Vec<Arc<Block>>) -> Result<Self> {
        if blocks.len() != self.block_count() {
            let reason = format!("{} are needed, got {}", self.block_count(), blocks.len());
            return Err(Error::Blocks { reason });
        }
        for (index, (block, plan)) in blocks.iter().zip(&self.shared.plans).enumerate() {
            if block.index != index || block.plan != *plan || *block.config != *self.shared.config {
                let reason = format!("block {} was given for block {index}, or is of another model", block.index);
                return Err(Error::Blocks { reason });
            }
            (0..block.linears.len()).try_for_each(|id| block.check_linear(id))?;
        }
        Ok(Self { blocks: Some(blocks), ..self.clone() })
    }

    /// The embedding and the output matrix as they are in the checkpoint, `[vocabulary, hidden]`; one if they are tied.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if they cannot be read.
    pub fn vocabulary(&self) -> Result<Vec<Linear>> {
        let shared = &self.shared;
        let matrix = |matrix: &LazyMatrix| {
            let weight = shared.checkpoint.read_matrix(matrix.name())?;
            let name = matrix.name().strip_suffix(".weight").unwrap_or(matrix.name()).to_owned();
            let stored = TensorPart::whole(matrix.name(), weight.dim().into());
            Ok(Linear { name, weight, bias: None, stored })
        };
        std::iter::once(&shared.embedding).chain(&shared.head).map(matrix).collect()
    }

    /// Names and shapes, `[vocabulary, hidden]`, of the tensors of [`vocabulary`](Self::vocabulary), without reading them.
    pub fn vocabulary_tensors(&self) -> impl Iterator<Item = (&str, [usize; 2])> {
        let shape = [self.shared.config.vocab_size, self.shared.config.hidden_size];
        std::iter::once(&self.shared.embedding).chain(&self.shared.head).map(move |matrix| (matrix.name(), shape))
    }

    /// The embedding, `[vocabulary, hidden]`.
    fn embedding(&self) -> Result<Arc<Array2<f32>>> {
        match self.vocabulary.as_ref().and_then(|matrices| matrices.first()) {
            Some(matrix) => Ok(Arc::clone(matrix)),
            None => self.shared.embedding.get(&self.shared.checkpoint),
        }
    }

    /// Embedding and output matrix that stay as they are stored, where they do and nothing takes their place.
    fn stored_vocabulary(&self) -> [Option<&StoredRows>; 2] {
        let stored = self.as_stored.as_ref().filter(|_| self.vocabulary.is_none());
        stored.map_or([None, None], |stored| [stored.embedding.as_ref(), stored.output.as_ref()])
    }

    /// The output matrix, `[vocabulary, hidden]`.
    fn output(&self) -> Result<Arc<Array2<f32>>> {
        match self.vocabulary.as_ref().and_then(|matrices| matrices.last()) {
            Some(matrix) => Ok(Arc::clone(matrix)),
            None => self.shared.head.as_ref().unwrap_or(&self.shared.embedding).get(&self.shared.checkpoint),
        }
    }

    /// The same model with these matrices in the place of its [`vocabulary`](Self::vocabulary), in its order.
    ///
    /// # Errors
    /// [`Error::Shape`] if their number or a shape is another.
    pub fn with_vocabulary(&self, matrices: Vec<Array2<f32>>) -> Result<Self> {
        let shape = [self.shared.config.vocab_size, self.shared.config.hidden_size];
        let count = self.vocabulary_tensors().count();
        match matrices.iter().find(|matrix| matrix.shape() != shape) {
            None if matrices.len() == count => {
                let vocabulary = Some(matrices.into_iter().map(Arc::new).collect());
                Ok(Self { vocabulary, ..self.clone() })
            }
            found => Err(Error::Shape {
                what: format!("{count} matrices of embedding and output"),
                expected: shape.to_vec(),
                found: found.map_or_else(|| vec![matrices.len()], |matrix| matrix.shape().to_vec()),
            }),
        }
    }

    /// Drops the embedding and output matrices and the memory kept between block passes; they come back when needed.
    /// Worth while between embedding and scoring: the matrices are gigabytes in large models.
    pub fn release_embeddings(&self) {
        self.shared.workspace.clear();
        self.shared.embedding.release();
        for matrix in [&self.shared.head, &self.shared.positions].into_iter().flatten() {
            matrix.release();
        }
    }
}
