//! Tasks named on the command line.

use anyhow::{Result, bail};
use clap::Args;
use sparq::eval::{Evaluation, Task};
use std::path::PathBuf;

/// Which tasks a model is judged by.
#[derive(Debug, Clone, Args)]
pub(crate) struct TaskArgs {
    /// Tasks: built-in names or groups (mmlu-pro, bbh, math, all, ...), .toml definitions or files of records, separated
    /// by commas
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
    /// Adds the tasks to `evaluation`; `otherwise` stands in where none are named. All are read before any is run, and all
    /// that is wrong with them is said at once.
    pub(crate) fn add_to(&self, mut evaluation: Evaluation, otherwise: Vec<String>, seed: u64) -> Result<Evaluation> {
        let names = if self.tasks.is_empty() { &otherwise } else { &self.tasks };
        let options = *evaluation.options();
        let (mut wrong, mut all): (_, Vec<Task>) = (Vec::new(), Vec::new());
        for name in names {
            match Task::load_all(name, self.data.as_deref()) {
                Err(error) => wrong.push(format!("task {name}: {error}")),
                Ok(tasks) => {
                    for task in tasks {
                        match all.iter().find(|known| collide(known, &task)) {
                            None => all.push(task),
                            // Named twice, or by itself and with its group: it counts once.
                            Some(known) if known.fingerprint(&options) == task.fingerprint(&options) => {}
                            Some(known) => wrong.push(format!(
                                "task {name}: it would count as one with another task called {}; rename one of them",
                                known.name()
                            )),
                        }
                    }
                }
            }
        }
        for task in all {
            evaluation = evaluation.with_task(match self.limit {
                Some(limit) => task.limit(limit, seed),
                None => task,
            });
        }
        match wrong.as_slice() {
            [] => Ok(evaluation),
            [one] => bail!("{one}"),
            many => bail!("{} tasks cannot be read:\n  {}", many.len(), many.join("\n  ")),
        }
    }
}

/// Whether two tasks have one name, or one has that of the other's group: results go by these.
fn collide(one: &Task, other: &Task) -> bool {
    let in_group = |task: &Task, name: &str| task.definition().group.as_deref() == Some(name);
    one.name() == other.name() || in_group(one, other.name()) || in_group(other, one.name())
}
