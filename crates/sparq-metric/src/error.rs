use crate::ExcludedTask;

/// What can be wrong with the numbers given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sparsity outside of `[0, 1)`.
    #[error("a sparsity from 0 up to, not including, 1 is needed, got {value}")]
    Sparsity {
        /// The value given.
        value: f64,
    },
    /// A bit width outside of `[1, 16]`.
    #[error("a bit width from 1 to 16 is needed, got {value}")]
    Bits {
        /// The value given.
        value: f64,
    },
    /// A retention that is negative or not a number.
    #[error("a retention of at least 0 is needed, got {value}")]
    Retention {
        /// The value given.
        value: f64,
    },
    /// A setting of the bootstrap is out of range.
    #[error("bootstrap setting `{setting}`: {needed} is needed, got {value}")]
    Bootstrap {
        /// Name of the setting.
        setting: &'static str,
        /// What it must be.
        needed: &'static str,
        /// The value given.
        value: f64,
    },
    /// No values where at least one is needed.
    #[error("{what}: at least one value is needed")]
    Empty {
        /// What was empty.
        what: String,
    },
    /// Two lists that belong together item by item differ in length.
    #[error("{what}: {expected} values are needed, got {found}")]
    Length {
        /// What was given.
        what: String,
        /// Length of the list it goes with.
        expected: usize,
        /// Length found.
        found: usize,
    },
    /// A score or a chance level is not a finite number, or a chance level is not in `[0, 1)`.
    #[error("task `{task}`, item {item}: {what} is {value}")]
    Score {
        /// Name of the task.
        task: String,
        /// Index of the item.
        item: usize,
        /// Which of its numbers.
        what: &'static str,
        /// The value given.
        value: f64,
    },
    /// Two configurations were not measured against the same base on the same items.
    #[error("the two configurations cannot be paired on task `{task}`: {reason}; evaluate both on the same items")]
    NotPaired {
        /// Name of the task.
        task: String,
        /// What differs.
        reason: String,
    },
    /// On no task is the base model clearly above chance, so there is nothing whose retention could be measured.
    #[error("no task is left to measure retention on: {}", list(.excluded))]
    NoTaskLeft {
        /// The tasks and their numbers; empty if no task was given.
        excluded: Vec<ExcludedTask>,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

fn list(excluded: &[ExcludedTask]) -> String {
    if excluded.is_empty() {
        return "no task was given".to_owned();
    }
    excluded.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
