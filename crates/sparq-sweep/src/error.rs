use std::path::PathBuf;

/// Why a sweep stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sweep has no configuration, or the search no candidate.
    #[error("no configuration to sweep over")]
    NoConfigurations,
    /// A compression rate that no choice of candidates reaches.
    #[error("no choice of candidates reaches TCr {:.2} %; the highest is {:.2} %: add sparser or coarser ones", 100.0 * wanted, 100.0 * highest)]
    Rate {
        /// What was asked for, as a fraction.
        wanted: f64,
        /// The rate with the cheapest candidate everywhere.
        highest: f64,
    },
    /// A size on disk that no choice of candidates keeps within.
    #[error(
        "no choice of candidates makes weight files of at most {wanted} bytes; the smallest take {least}: add coarser ones, or use a format that stores codes"
    )]
    FileSize {
        /// What was asked for.
        wanted: u64,
        /// The size with the cheapest candidate everywhere.
        least: u64,
    },
    /// A format that stores every candidate in the same number of bytes.
    #[error(
        "weight files take {bytes} bytes with every candidate: there is nothing to choose; use a format that stores codes at their width"
    )]
    SameSize {
        /// What they take.
        bytes: u64,
    },
    /// A compression, naming the configuration.
    #[error("configuration {recipe}: {cause}")]
    Compression {
        /// The recipe in text form.
        recipe: String,
        /// What went wrong.
        cause: sparq_pipeline::Error,
    },
    /// The evaluation of a compressed model, naming the configuration.
    #[error("configuration {recipe}, once compressed: {cause}")]
    Judging {
        /// The recipe in text form.
        recipe: String,
        /// What went wrong.
        cause: Box<Error>,
    },
    /// A stored measurement that another commit made.
    #[error(
        "{what} was measured by {by}, and this is {now}: use another directory, or allow measurements of any commit"
    )]
    OtherCommit {
        /// The recipe in text form, or the base.
        what: String,
        /// The commit that measured it.
        by: String,
        /// The commit of the program that runs.
        now: String,
    },
    /// Another process of the job cannot be reached.
    #[error(transparent)]
    Ranks(#[from] sparq_core::CompressError),
    /// A recipe.
    #[error(transparent)]
    Recipe(#[from] sparq_pipeline::Error),
    /// The model.
    #[error(transparent)]
    Model(#[from] sparq_model::Error),
    /// A file of the model.
    #[error(transparent)]
    Tensor(#[from] sparq_tensor::Error),
    /// An evaluation.
    #[error(transparent)]
    Eval(#[from] sparq_eval::Error),
    /// A metric.
    #[error(transparent)]
    Metric(#[from] sparq_metric::Error),
    /// A file of the sweep's directory.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Results cannot be turned into JSON.
    #[error("results cannot be written as JSON: {0}")]
    Json(serde_json::Error),
}

impl From<serde_json::Error> for Error {
    fn from(cause: serde_json::Error) -> Self {
        Self::Json(cause)
    }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
