//! Tasks named on the command line.

use anyhow::{Context, Result};
use clap::Args;
use sparq::eval::{Evaluation, Task};
use std::path::PathBuf;

/// Which tasks a model is judged by.
#[derive(Debug, Clone, Args)]
pub(crate) struct TaskArgs {
    /// Tasks: built-in names, .toml definitions or .jsonl files, separated by commas
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "TASK")]
    pub(crate) tasks: Vec<String>,
    /// Where built-in tasks find their data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Items of each task at most, a seeded choice that is the same for every model
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

impl TaskArgs {
    /// Adds the tasks to `evaluation`; `otherwise` stands in where none are named.
    pub(crate) fn add_to(&self, mut evaluation: Evaluation, otherwise: Vec<String>, seed: u64) -> Result<Evaluation> {
        let names = if self.tasks.is_empty() { &otherwise } else { &self.tasks };
        for name in names {
            let task = Task::load(name, self.data.as_deref()).with_context(|| format!("task {name}"))?;
            evaluation = evaluation.with_task(match self.limit {
                Some(limit) => task.limit(limit, seed),
                None => task,
            });
        }
        Ok(evaluation)
    }
}
