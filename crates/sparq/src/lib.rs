#![doc = include_str!("../README.md")]
//!
//! # Contents
//! * [`prelude`]: what most programs need, in one line.
//! * One matrix: [`LayerProblem`], [`calibrate`], the methods in [`prune`], [`quant`] and [`joint`], and what they
//!   give, [`CompressedLayer`].
//! * A checkpoint: [`Model`], [`Recipe`], [`Calibration`], [`compress_checkpoint`], [`compress_in_memory`].
//! * Exporting: [`export`] (dense, compressed-tensors, GPTQ, GGUF), checked after writing.
//! * Judging: [`eval`] (perplexity, KL, tasks), [`metric`] (TCr, Sr, SrCr), [`sweep`] (many configurations at once),
//!   [`report`] (what a sweep found, for people).
//! * Underneath: [`tensor`] (files), [`model`] (forward pass), [`obs`] (the column sweep), [`linalg`].
#![deny(unsafe_code)]

mod error;
mod shortcuts;

pub use error::{Error, Result};
pub use shortcuts::{calibrate, compress_checkpoint, compress_in_memory};

pub use sparq_core::{
    Bits, CompressError, CompressedLayer, Fallback, Granularity, Hessian, LayerCompressor, LayerProblem, Mask,
    QuantScheme, Quantized, ScaleType, SharedHessian, SolveReport, Sparsity, Statistics,
};
pub use sparq_model::Model;
pub use sparq_pipeline::{Calibration, CompressionReport, Recipe};

/// Pruners.
pub mod prune {
    pub use sparq_prune::{Choice, Magnitude, Obs, Pruner, Refitted, Scope, SparseGpt, Wanda};
}

/// Quantizers.
pub mod quant {
    pub use sparq_quant::{Clip, Descended, Gptq, GridFinder, Quantizer, Rtn};
}

/// Pruning and quantization together.
pub mod joint {
    pub use sparq_joint::{OnePass, SequentialA, SequentialB};
}

/// The driver over a checkpoint, its recipes and destinations.
pub mod pipeline {
    pub use sparq_pipeline::*;
}

/// Perplexity, KL divergence and tasks.
pub mod eval {
    pub use sparq_eval::*;
}

/// TCr, Sr, SrCr and their intervals.
pub mod metric {
    pub use sparq_metric::*;
}

/// Many configurations of one model, compared.
pub mod sweep {
    pub use sparq_sweep::*;
}

/// Reports of a sweep: an HTML page, comma-separated values, a table.
pub mod report {
    pub use sparq_report::*;
}

/// The forward pass, tokenizer and text generation.
pub mod model {
    pub use sparq_model::*;
}

/// Compressed layers into the formats that engines load.
pub mod export {
    pub use sparq_export::*;
}

/// Checkpoints on disk.
pub mod tensor {
    pub use sparq_tensor::*;
}

/// The second-order engine that methods are built from.
pub mod obs {
    pub use sparq_obs::*;
}

/// Matrix products and factorizations.
pub mod linalg {
    pub use sparq_linalg::*;
}

/// What most programs need.
pub mod prelude {
    pub use crate::export::{Dense, ExportFormat, ExportSettings};
    pub use crate::joint::{OnePass, SequentialA, SequentialB};
    pub use crate::pipeline::{Job, MemorySink, Observer};
    pub use crate::prune::{Magnitude, SparseGpt, Wanda};
    pub use crate::quant::{Clip, Gptq, Rtn};
    pub use crate::{
        Bits, Calibration, CompressedLayer, Hessian, LayerCompressor, LayerProblem, Model, QuantScheme, Recipe,
        Sparsity, calibrate, compress_checkpoint, compress_in_memory,
    };
}
