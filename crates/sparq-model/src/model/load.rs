use super::{Model, Shared};
use crate::architecture;
use crate::block::{Block, BlockPlan, Linear};
use crate::config::Fields;
use crate::model::weights::LazyMatrix;
use crate::ops::{RopeTables, Workspace};
use crate::{Error, Result};
use rayon::prelude::*;
use sparq_tensor::Checkpoint;
use std::path::Path;
use std::sync::{Arc, OnceLock};

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

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
        Self::from_checkpoint(Arc::new(Checkpoint::open(path)?))
    }

    /// As [`open`](Self::open), for a checkpoint that is open already.
    ///
    /// # Errors
    /// Those of [`ModelConfig::parse`](crate::ModelConfig::parse); [`Error::MissingTensor`] and [`Error::TensorShape`]
    /// if the weights do not fit the config; [`Error::Checkpoint`] if the final norm cannot be read.
    pub fn from_checkpoint(checkpoint: Arc<Checkpoint>) -> Result<Self> {
        let (config, architecture) = architecture::configure(Fields::new(checkpoint.config()?)?)?;
        let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
        check(&checkpoint, EMBEDDING, &[vocabulary, hidden])?;
        check(&checkpoint, FINAL_NORM, &[hidden])?;
        if !config.tie_word_embeddings {
            check(&checkpoint, HEAD, &[vocabulary, hidden])?;
        }
        let mut plans = Vec::new();
        for index in 0..config.layers {
            let plan = architecture.plan(&config, index);
            check_block(&checkpoint, &plan)?;
            plans.push(Arc::new(plan));
        }
        let shared = Shared {
            rope: Arc::new(RopeTables::new(&config.rope, config.head_dim)),
            workspace: Arc::new(Workspace::default()),
            embedding: LazyMatrix::new(EMBEDDING),
            head: (!config.tie_word_embeddings).then(|| LazyMatrix::new(HEAD)),
            final_norm: checkpoint.read_vector(FINAL_NORM)?,
            tokenizer: OnceLock::new(),
            config: Arc::new(config),
            architecture,
            checkpoint,
            plans,
        };
        Ok(Self { shared: Arc::new(shared), blocks: None })
    }

    /// Reads block `index` from the checkpoint as f32: a fresh copy, to be changed at will.
    ///
    /// # Errors
    /// [`Error::BlockOutOfRange`]; [`Error::Checkpoint`] if a tensor cannot be read or holds NaN or infinity.
    pub fn load_block(&self, index: usize) -> Result<Block> {
        let shared = &self.shared;
        let plan = shared.plans.get(index).ok_or(Error::BlockOutOfRange { index, count: shared.plans.len() })?;
        let linears = plan
            .linears
            .par_iter()
            .map(|shape| {
                Ok(Linear {
                    name: shape.name.clone(),
                    weight: shared.checkpoint.read_matrix(&shape.weight_name())?,
                    bias: if shape.bias {
                        Some(shared.checkpoint.read_vector(&format!("{}.bias", shape.name))?)
                    } else {
                        None
                    },
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let vectors = plan
            .vectors
            .iter()
            .map(|(name, _)| Ok(shared.checkpoint.read_vector(name)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Block {
            index,
            plan: Arc::clone(plan),
            linears,
            vectors,
            config: Arc::clone(&shared.config),
            rope: Arc::clone(&shared.rope),
            workspace: Arc::clone(&shared.workspace),
            architecture: shared.architecture,
        })
    }
}

fn check_block(checkpoint: &Checkpoint, plan: &BlockPlan) -> Result<()> {
    for linear in &plan.linears {
        check(checkpoint, &linear.weight_name(), &[linear.out_features, linear.in_features])?;
        if linear.bias {
            check(checkpoint, &format!("{}.bias", linear.name), &[linear.out_features])?;
        }
    }
    plan.vectors.iter().try_for_each(|(name, length)| check(checkpoint, name, &[*length]))
}

fn check(checkpoint: &Checkpoint, name: &str, expected: &[usize]) -> Result<()> {
    let expected = || expected.to_vec();
    match checkpoint.get(name) {
        None => Err(Error::MissingTensor { name: name.to_owned(), expected: expected() }),
        Some(tensor) if tensor.shape != expected() => {
            Err(Error::TensorShape { name: name.to_owned(), expected: expected(), found: tensor.shape.clone() })
        }
        Some(_) => Ok(()),
    }
}
