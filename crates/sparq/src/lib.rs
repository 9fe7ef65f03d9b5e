#![doc = include_str!("../README.md")]
//!
//! # Contents
//! * [`prelude`]: what most programs need, in one line.
//! * One matrix: [`LayerProblem`], [`calibrate`], the methods in [`prune`] and [`quant`], [`Solver`], and what they give,
//!   [`CompressedLayer`]. Nothing else is there without features.
//! * A checkpoint (feature `export`): [`Model`], [`Recipe`], [`Calibration`], [`Compress`], [`Format`](export::Format).
//! * Judging (feature `eval`): [`eval`] (perplexity, KL, tasks), [`metric`] (TCr, Sr, SrCr).
//! * Comparing (feature `sweep`): [`sweep`] (many configurations at once), [`report`] (what a sweep found, for people).
//! * Several processes on one job: [`Ranks`], and with feature `mpi` those of an MPI job.
//! * Underneath: [`model`] (forward pass) and [`tensor`] (files), both with feature `model`; [`engine`] (the column sweep),
//!   [`linalg`].
#![deny(unsafe_code)]

mod error;

pub use error::{Error, Result};

pub use sparq_core::{
    Bits, CodeLayout, Codes, Composition, CompressError, CompressedLayer, Curvature, Damping, Fallback, Granularity,
    Grid, Hessian, LayerCompressor, LayerProblem, Mask, Observer, Pruner, QuantScheme, Quantized, Quantizer, Ranks,
    ScaleType, SolveReport, Solver, Sparsity, Statistics, Stepped,
};
#[cfg(feature = "model")]
pub use sparq_model::Model;
#[cfg(feature = "export")]
pub use sparq_pipeline::{Calibration, Compress, CompressionReport, Recipe, Sampling};

/// What is known of a linear layer's inputs, from `inputs` of shape `[tokens, in]`.
///
/// # Errors
/// [`Error::Compress`] if the Hessian cannot be held.
///
/// # Examples
/// ```
/// use ndarray::array;
/// let curvature = sparq::calibrate(array![[1.0_f32, 2.0], [0.0, 1.0]].view())?;
/// assert_eq!(curvature.hessian().diagonal(), Some(array![1.0, 5.0]));
/// # Ok::<(), sparq::Error>(())
/// ```
pub fn calibrate(inputs: ndarray::ArrayView2<'_, f32>) -> Result<Curvature> {
    Ok(Curvature::of_inputs(inputs)?)
}

/// Pruners.
pub mod prune {
    pub use sparq_prune::{Magnitude, Obs, Scope, SparseGpt, Wanda};
}

/// Quantizers.
pub mod quant {
    pub use sparq_quant::{Clip, Gptq, GridFinder, RowStep, Rtn, Step};
}

/// The second-order engine that methods are built from.
pub mod engine {
    pub use sparq_core::{
        BlockRule, ColumnOrder, ColumnSweep, Communicator, CoordinateDescent, GridFit, HessianAccumulator, InputDrift,
        InverseFactor, OutputDrift, OutputError, Refit, Rounded, Rounding, RowRule, Selection, StepDescent, Swept,
        reference, relative_output_error,
    };
}

/// Processes of an MPI job that share the work ([`Ranks`]).
#[cfg(feature = "mpi")]
pub mod mpi {
    pub use sparq_mpi::{Job, start};
}

/// Matrix products and factorizations.
pub mod linalg {
    pub use sparq_linalg::{
        Error, add, gemm, gemm_sequential, inverse_factor, linear, linear_bf16, mirror_lower, syrk_lower,
        syrk_lower_bf16,
    };
}

/// Checkpoints on disk.
#[cfg(feature = "model")]
pub mod tensor {
    pub use sparq_tensor::{
        Checkpoint, CheckpointWriter, DType, Error, Fault, FileTensor, GgufWriter, Importance, Packing, PlannedSize,
        SideFile, SourceFormat, StagedCheckpoint, TensorData, TensorInfo, TensorPart, TensorSpec, WriteOptions,
        Written, check_apart, codec, digest, read_file, read_imatrix, read_safetensors_file, write_file,
        write_safetensors_file,
    };
}

/// The forward pass, tokenizer and text generation.
#[cfg(feature = "model")]
pub mod model {
    pub use sparq_model::{
        Activation, BatchLayout, Block, BlockPlan, BlockState, CrossEntropy, Divergence, Error, ExpertTokens,
        GenerateOptions, Gradients, KvCache, Linear, LinearId, LinearShape, Loss, MemoryEstimate, ModelConfig,
        Precision, SampledLabels, Sampler, Tokenizer, open_checkpoint, plain_text, read_text, weight_gradient,
    };
}

/// The driver over a checkpoint: recipes, calibration, destinations of your own.
#[cfg(feature = "export")]
pub mod pipeline {
    pub use sparq_pipeline::{
        Activations, Allocation, Done, Error, Key, LayerBudget, LayerReport, MemorySink, Phase, Plan, Preset, Profile,
        Progress, PrunerKind, QuantizerKind, RecipeBuilder, Resumed, Sharing, Sink, Survey, Targets, TuningReport,
        on_first, planned_size, rate_for_size, resident_bytes, unfit_layers,
    };
}

/// Compressed layers into the formats that engines load.
#[cfg(feature = "export")]
pub mod export {
    pub use sparq_export::{
        Coded, CodedLayers, CompressedTensors, Dense, Error, ExportContext, ExportFormat, ExportReport, ExportSettings,
        ExportTensor, FloatType, Format, Gguf, GgufTypes, GptqCheckpoint, LayerCheck, Solution, SolvedInMemory,
        SolvedLayers, SolvedShape, check, export,
    };
}

/// Perplexity, KL divergence and tasks.
#[cfg(feature = "eval")]
pub mod eval {
    pub use sparq_eval::{
        Baseline, Continuation, ContinuationScore, Error, Evaluation, EvaluationReport, LanguageModel, PooledResult,
        ResultCache, Task, TaskDefinition, TaskOptions, TaskResult, TextBaseline, TextEvaluation, TextScores,
        TextSettings, continue_greedily, mean_divergence, pool, score_continuations,
    };
}

/// TCr, Sr, SrCr and their intervals.
#[cfg(feature = "eval")]
pub mod metric {
    pub use sparq_metric::{
        Bootstrap, Error, ExcludedTask, Interval, McNemar, Retention, RetentionDifference, SrcrForm, TaskDifference,
        TaskRetention, TaskScores, holm, mcnemar, mean, pareto_front, ratio_interval, retention, retention_difference,
        standard_error, tcr,
    };
}

/// Many configurations of one model, compared.
#[cfg(feature = "sweep")]
pub mod sweep {
    pub use sparq_sweep::{
        ConfigurationResult, Contestant, DamageCurves, Difference, Error, Family, Labels, Origin, Rates, Search,
        Searched, Sweep, SweepResults, Target, Verdict, default_recipes,
    };
}

/// Reports of a sweep: an HTML page, comma-separated values, a table.
#[cfg(feature = "sweep")]
pub mod report {
    pub use sparq_report::{Error, csv, html, table, write_reports};
}

/// What most programs need.
pub mod prelude {
    #[cfg(feature = "model")]
    pub use crate::Model;
    #[cfg(feature = "export")]
    pub use crate::export::{ExportFormat, ExportSettings, Format};
    pub use crate::prune::{Magnitude, Obs, SparseGpt, Wanda};
    pub use crate::quant::{Clip, Gptq, Rtn};
    pub use crate::{
        Bits, CodeLayout, Codes, Composition, CompressedLayer, Curvature, Damping, LayerCompressor, LayerProblem,
        Observer, QuantScheme, Solver, Sparsity, calibrate,
    };
    #[cfg(feature = "export")]
    pub use crate::{Calibration, Compress, Recipe, Sampling};
}
