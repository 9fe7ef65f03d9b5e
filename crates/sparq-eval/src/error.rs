use std::path::PathBuf;

/// What can go wrong in an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] sparq_model::Error),
    /// Scores cannot be turned into a retention.
    #[error(transparent)]
    Metric(#[from] sparq_metric::Error),
    /// Another process of the job cannot be reached.
    #[error(transparent)]
    Ranks(#[from] sparq_core::CompressError),
    /// A file could not be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// A setting is out of range.
    #[error("evaluation setting `{setting}`: {reason}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A text has too few tokens for a single prediction or a single window.
    #[error("the text has {tokens} tokens, {needed} are needed; choose a longer text or a shorter window")]
    TextTooShort {
        /// Number of tokens of the text.
        tokens: usize,
        /// Number needed.
        needed: usize,
    },
    /// Hidden states would not fit into memory.
    #[error("{tokens} hidden states of width {width} do not fit into memory; set a limit on the tokens")]
    TooLarge {
        /// Number of tokens.
        tokens: usize,
        /// Components of one state.
        width: usize,
    },
    /// A model's output is not finite: its weights are damaged.
    #[error("{what}: the model's output is not finite; its weights contain or produce NaN or infinity")]
    NotFinite {
        /// Where it was found.
        what: String,
    },
    /// A baseline belongs to another text, other settings or another vocabulary.
    #[error("the baseline does not belong to this evaluation: {reason}")]
    Baseline {
        /// What differs.
        reason: String,
    },
    /// Two scores that were to be compared are of different texts.
    #[error("the two scores are not of the same text with the same settings; evaluate both models alike")]
    OtherText,
    /// An empty context needs a token to start from and the model names none.
    #[error("an empty context needs a token that starts or ends a text, and the tokenizer names neither")]
    NoPrefixToken,
    /// A task that is neither built in nor a file.
    #[error("task `{name}` is neither a file nor one of the built-in tasks: {known}")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// Names of the built-in tasks, comma separated.
        known: String,
    },
    /// A built-in task was asked for without a data directory, or the directory lacks its file.
    #[error("data of task `{task}` not found: {reason}")]
    NoData {
        /// Name of the task.
        task: String,
        /// What was looked for.
        reason: String,
    },
    /// A task definition is malformed.
    #[error("task definition {file}: {reason}")]
    Definition {
        /// File or name of the definition.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A task needs a part of this crate that was not compiled.
    #[error("task `{task}` needs the feature `{feature}` of sparq-eval, which this build was made without")]
    MissingFeature {
        /// Name of the task.
        task: String,
        /// Name of the feature.
        feature: &'static str,
    },
    /// A line of a task's data is malformed, and perhaps others.
    #[error("{file}, line {line}: {reason}{}", list(.others))]
    Record {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
        /// Other malformed lines of the file; at most 20 are listed.
        others: Vec<usize>,
    },
    /// A file of kept results could not be written.
    #[error("cannot keep results in {}: {cause}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// A task has no items.
    #[error("task `{task}` has no items")]
    EmptyTask {
        /// Name of the task.
        task: String,
    },
    /// Results of two models do not belong to the same items.
    #[error("results of task `{task}` cannot be paired: {reason}; evaluate both models with the same settings")]
    NotPaired {
        /// Name of the task.
        task: String,
        /// What differs.
        reason: String,
    },
}

impl Error {
    pub(crate) fn setting(setting: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { setting, reason: reason.into() }
    }
}

/// Lines that are malformed too.
fn list(others: &[usize]) -> String {
    let lines: Vec<String> = others.iter().map(ToString::to_string).collect();
    if lines.is_empty() { String::new() } else { format!(" (malformed as well: {})", lines.join(", ")) }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with a file, without its path, which this crate's errors name themselves.
pub(crate) fn cause_of(error: sparq_tensor::Error) -> std::io::Error {
    match error {
        sparq_tensor::Error::Io { cause, .. } => cause,
        sparq_tensor::Error::Malformed { fault, .. } => std::io::Error::other(fault),
        other => std::io::Error::other(other),
    }
}
