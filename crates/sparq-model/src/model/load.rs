use super::{Model, Shared};
use crate::architecture::{self, Needed, needed_in, needed_outside};
use crate::block::{Block, Linear, LinearShape};
use crate::config::Fields;
use crate::model::weights::LazyMatrix;
use crate::ops::{RopeTables, Workspace};
use crate::{Error, NormKind, Precision, Result};
use ndarray::{Array1, Array2, s};
use rayon::prelude::*;
use sparq_tensor::Checkpoint;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Opens a checkpoint: a directory, a safetensors file, or a GGUF file of any [family](crate::GGUF_FAMILIES) known here.
///
/// # Errors
/// Those of [`Checkpoint::open_with`].
pub fn open_checkpoint(path: impl AsRef<Path>) -> sparq_tensor::Result<Checkpoint> {
    Checkpoint::open_with(path, architecture::GGUF_FAMILIES)
}

impl Model {
    /// Opens a checkpoint (a directory, a safetensors file or a GGUF file) and checks that it holds every tensor its
    /// config implies, in the right shape. No block is read yet.
    ///
    /// # Errors
    /// Those of [`from_checkpoint`](Self::from_checkpoint), and [`Error::Checkpoint`] if the files cannot be read.
    ///
    /// # Examples
    /// ```no_run
    /// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
    /// println!("{} blocks", model.block_count());
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_checkpoint(Arc::new(open_checkpoint(path)?))
    }

    /// As [`open`](Self::open), for a checkpoint that is open already.
    ///
    /// # Errors
    /// Those of [`ModelConfig::parse`](crate::ModelConfig::parse); [`Error::MissingTensor`], [`Error::TensorShape`] and
    /// [`Error::TensorType`] if the weights do not fit the config; [`Error::Checkpoint`] if the final norm cannot be read.
    pub fn from_checkpoint(checkpoint: Arc<Checkpoint>) -> Result<Self> {
        let (config, architecture) = architecture::configure(Fields::new(checkpoint.config()?)?)?;
        let has = |name: &str| checkpoint.contains(name);
        let names = architecture.names(&has);
        needed_outside(&config, &names).iter().try_for_each(|tensor| check(&checkpoint, tensor))?;
        let final_norm = format!("{}.weight", names.final_norm);
        let final_bias = (config.norm == NormKind::Layer).then(|| format!("{}.bias", names.final_norm));
        let mut plans = Vec::new();
        for index in 0..config.layers {
            let plan = architecture.plan(&config, index, &has);
            needed_in(&plan).iter().try_for_each(|tensor| check(&checkpoint, tensor))?;
            plans.push(Arc::new(plan));
        }
        let tables = |rope| Arc::new(RopeTables::new(rope, config.head_dim));
        let shared = Shared {
            rope: config.rope.clone().map(tables),
            window_rope: config.window_rope.clone().map(tables),
            workspace: Arc::new(Workspace::default()),
            embedding: LazyMatrix::new(&names.embedding),
            positions: names.positions.as_deref().map(LazyMatrix::new),
            head: (!config.tie_word_embeddings).then(|| LazyMatrix::new(&names.head)),
            final_norm: checkpoint.read_vector(&final_norm)? + config.norm_offset,
            final_bias: final_bias.map(|name| checkpoint.read_vector(&name)).transpose()?,
            tokenizer: OnceLock::new(),
            config: Arc::new(config),
            checkpoint,
            plans,
        };
        Ok(Self {
            shared: Arc::new(shared),
            blocks: None,
            as_stored: None,
            vocabulary: None,
            precision: Precision::default(),
        })
    }

    /// Reads block `index` from the checkpoint as f32: a fresh copy, to be changed at will.
    ///
    /// # Errors
    /// [`Error::BlockOutOfRange`]; [`Error::Checkpoint`] if a tensor cannot be read or holds NaN or infinity.
    pub fn load_block(&self, index: usize) -> Result<Block> {
        self.assemble(index, false)
    }

    /// Block `index` with weights that stay as they are stored, where their rows can be decoded one by one.
    pub(super) fn stored_block(&self, index: usize) -> Result<Block> {
        self.assemble(index, true)
    }

    fn assemble(&self, index: usize, as_stored: bool) -> Result<Block> {
        let shared = &self.shared;
        let plan = shared.plans.get(index).ok_or(Error::BlockOutOfRange { index, count: shared.plans.len() })?;
        let (linears, stored) = plan
            .linears
            .par_iter()
            .map(|shape| {
                let rows =
                    if as_stored { shared.checkpoint.stored_rows(&shape.stored, shape.out_features)? } else { None };
                let linear = Linear {
                    name: shape.name.clone(),
                    weight: match rows {
                        Some(_) => Array2::zeros((0, 0)),
                        None => read_weight(&shared.checkpoint, shape)?,
                    },
                    bias: read_bias(&shared.checkpoint, shape)?,
                    stored: shape.stored.clone(),
                };
                Ok((linear, rows))
            })
            .collect::<Result<(Vec<_>, Vec<_>)>>()?;
        let vectors = plan
            .vectors
            .iter()
            .map(|vector| Ok(shared.checkpoint.read_vector(&vector.name)? + vector.offset))
            .collect::<Result<Vec<_>>>()?;
        let router = match &plan.router {
            Some((name, _)) => Some(shared.checkpoint.read_matrix(name)?),
            None => None,
        };
        let has_window = shared.config.windows.get(index).copied().flatten().is_some();
        let window_rope = shared.window_rope.as_ref().filter(|_| has_window);
        Ok(Block {
            index,
            plan: Arc::clone(plan),
            linears,
            stored,
            vectors,
            router,
            config: Arc::clone(&shared.config),
            rope: window_rope.or(shared.rope.as_ref()).map(Arc::clone),
            workspace: Arc::clone(&shared.workspace),
        })
    }
}

fn read_weight(checkpoint: &Checkpoint, shape: &LinearShape) -> Result<Array2<f32>> {
    if shape.stored.is_whole([shape.out_features, shape.in_features]) {
        return Ok(checkpoint.read_matrix(&shape.stored.tensor)?);
    }
    Ok(checkpoint.read_part(&shape.stored, shape.out_features)?)
}

fn read_bias(checkpoint: &Checkpoint, shape: &LinearShape) -> Result<Option<Array1<f32>>> {
    if !shape.bias {
        return Ok(None);
    }
    let whole = checkpoint.read_vector(&shape.bias_name())?;
    let rows = shape.stored.first_row..shape.stored.first_row + shape.out_features;
    let is_whole = rows.len() == whole.len();
    Ok(Some(if is_whole { whole } else { whole.slice(s![rows]).to_owned() }))
}

fn check(checkpoint: &Checkpoint, Needed { name, shape }: &Needed) -> Result<()> {
    let Some(tensor) = checkpoint.get(name) else {
        let all = checkpoint.tensors();
        let count = all.len();
        let some: Vec<&str> = all.take(3).map(|tensor| tensor.name.as_str()).collect();
        let there = if count == 0 { "no tensor".to_owned() } else { format!("{count}, such as {}", some.join(", ")) };
        return Err(Error::MissingTensor { name: name.clone(), expected: shape.clone(), there });
    };
    if tensor.shape != *shape {
        let (expected, found) = (shape.clone(), tensor.shape.clone());
        return Err(Error::TensorShape { name: name.clone(), expected, found });
    }
    if tensor.packing.is_none() && !tensor.dtype.is_float() && !tensor.dtype.is_block_quantized() {
        return Err(Error::TensorType { name: name.clone(), dtype: tensor.dtype });
    }
    Ok(())
}
