//! Tasks named on the command line.

use anyhow::{Context, Result};
use sparq::eval::Task;
use std::path::Path;

/// A built-in task by name (its data under `data`), a `.toml` definition, or a `.jsonl` file.
pub(crate) fn load(name: &str, data: Option<&Path>, limit: Option<usize>, seed: u64) -> Result<Task> {
    let task = Task::load(name, data).with_context(|| format!("task {name}"))?;
    Ok(match limit {
        Some(limit) => task.limit(limit, seed),
        None => task,
    })
}
