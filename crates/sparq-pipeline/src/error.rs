use sparq_core::{CompressError, Fallback};
use std::path::PathBuf;

/// Why a checkpoint could not be compressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer or a setting.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The model.
    #[error(transparent)]
    Model(#[from] sparq_model::Error),
    /// A file of the checkpoint.
    #[error(transparent)]
    Tensor(#[from] sparq_tensor::Error),
    /// A recipe in text form.
    #[error("recipe {recipe:?}: {reason}")]
    Recipe {
        /// The text.
        recipe: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A glob pattern.
    #[error("pattern {pattern:?} is not a glob: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A pattern of the targets that matches nothing the model has.
    #[error(
        "pattern {pattern:?} matches no linear layer; near it are {}; a pattern is one glob over the whole name, such as \
         \"*.mlp.*\"",
        near.join(", ")
    )]
    UnmatchedPattern {
        /// The pattern.
        pattern: String,
        /// Names that resemble it.
        near: Vec<String>,
    },
    /// Nothing would be compressed.
    #[error("no linear layer matches the targets; layers are named like {example:?}")]
    NoTargets {
        /// One name the model has.
        example: String,
    },
    /// Text to calibrate on is missing or empty.
    #[error("{what}; give calibration text of at least a few thousand tokens")]
    Calibration {
        /// What is missing.
        what: String,
    },
    /// Activations that were put aside are not there as they were left.
    #[error("{what}; restart the run")]
    Activations {
        /// What is wrong.
        what: String,
    },
    /// No rate gives weight files of this size.
    #[error("weight files of {wanted} bytes cannot be made; codes at a rate give {least} to {most} bytes")]
    Size {
        /// Bytes that were asked for.
        wanted: u64,
        /// Bytes at the lowest rate.
        least: u64,
        /// Bytes at the highest rate.
        most: u64,
    },
    /// Less memory is allowed than one block with its Hessian and one batch takes.
    #[error(
        "{budget} bytes of memory are not enough: {least} are needed even with waiting activations in a file; shorter \
         sequences take less"
    )]
    MemoryBudget {
        /// What is allowed.
        budget: u64,
        /// What is needed.
        least: u64,
    },
    /// The format, the export or the stored solution.
    #[error(transparent)]
    Export(#[from] sparq_export::Error),
    /// A fallback, and fallbacks are not wanted.
    #[error("layer {layer}: {fallback}; unless the run is strict, this is reported and the run goes on")]
    Strict {
        /// Name of the layer.
        layer: String,
        /// What could not be done as asked.
        fallback: Fallback,
    },
    /// The run was stopped early, by whoever watches it.
    #[error("stopped after block {done} of {of}")]
    Stopped {
        /// Blocks done, those of earlier runs included.
        done: usize,
        /// Blocks there are.
        of: usize,
    },
    /// An unfinished run with other settings is in the way.
    #[error(
        "{} holds an unfinished run with another {field} ({then}; now {now}): finish that one, or restart",
        path.display()
    )]
    OtherRun {
        /// Where it is.
        path: PathBuf,
        /// What differs.
        field: String,
        /// Its value there.
        then: String,
        /// Its value now.
        now: String,
    },
    /// Another process works on the same output.
    #[error("{} is in use by another process", path.display())]
    Busy {
        /// Where the unfinished run is.
        path: PathBuf,
    },
    /// The state of an unfinished run cannot be read.
    #[error("{}: {reason}; restart to discard the unfinished run", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Error {
    pub(crate) fn bad_pattern(pattern: &str, error: &globset::Error) -> Self {
        Self::Pattern { pattern: pattern.to_owned(), reason: error.to_string() }
    }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
