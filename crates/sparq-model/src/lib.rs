#![doc = include_str!("../README.md")]
#![deny(unsafe_code)] // not `forbid`: the expansion of `ndarray::s!` contains an allow
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod architecture;
mod block;
mod cache;
mod config;
mod error;
mod generate;
mod model;
mod ops;
mod plain_text;
mod precision;
mod tokenizer;

pub use architecture::GGUF_FAMILIES;
pub use block::{
    BatchLayout, Block, BlockPlan, BlockState, ExpertTokens, Gradients, Linear, LinearId, LinearShape, weight_gradient,
};
pub use cache::KvCache;
pub use config::{ExpertsConfig, ModelConfig, NormKind, RopeConfig, RopeScaling};
pub use error::{Error, Result};
pub use generate::{GenerateOptions, Sampler};
pub use model::{CrossEntropy, Divergence, Loss, MemoryEstimate, Model, SampledLabels, open_checkpoint};
pub use ops::{Activation, Softmax};
pub use plain_text::{plain_text, read_text};
pub use precision::Precision;
pub use tokenizer::Tokenizer;
