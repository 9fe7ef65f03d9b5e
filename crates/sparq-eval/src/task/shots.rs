//! Worked examples in front of every prompt.

use serde::{Deserialize, Serialize};

/// Worked examples: records with their answers, in front of every prompt of a task, the same for all of them.
///
/// They are the first records of the first file of `data` that exists (a development split, say); if there is none, the
/// first of the task's own file, which then are no items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shots {
    /// How many.
    pub count: usize,
    /// Files they may come from; the first that exists counts.
    pub data: Vec<String>,
    /// Template of what follows the prompt. If empty: the continuation of the right choice; for generated answers, a
    /// space and the answer.
    pub answer: String,
    /// What stands after each of them.
    pub join: String,
}

impl Default for Shots {
    fn default() -> Self {
        Self { count: 0, data: Vec::new(), answer: String::new(), join: "\n\n".to_owned() }
    }
}
