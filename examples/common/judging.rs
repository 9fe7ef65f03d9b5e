//! What a model is judged by: held-out text, and tasks named on the command line.

use super::demo::Demo;
use anyhow::{Context, Result, bail};
use clap::Args;
use sparq::Model;
use sparq::eval::{Evaluation, Task, TextEvaluation, TextSettings};
use std::path::PathBuf;

/// What a model is judged by.
#[derive(Debug, Clone, Args)]
pub(crate) struct JudgingArgs {
    /// Held-out text for perplexity and KL
    #[arg(long, value_name = "FILE")]
    perplexity: Option<PathBuf>,
    /// Tokens in a perplexity window [default: 512, or the model's positions if they are fewer; 128 for the demo model]
    #[arg(long, value_parser = super::positive, allow_negative_numbers = true)]
    window: Option<usize>,
    /// Use this many tokens of the held-out text
    #[arg(long, value_parser = super::positive, allow_negative_numbers = true)]
    pub(crate) text_tokens: Option<usize>,
    /// Tasks: built-in names or groups (mmlu-pro, bbh, math, all, ...), .toml definitions or files of records, separated
    /// by commas
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "TASK")]
    tasks: Vec<String>,
    /// Where built-in tasks find their data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Items of each task at most, a seeded choice that is the same for every model
    #[arg(long, value_parser = super::positive, allow_negative_numbers = true)]
    pub(crate) limit: Option<usize>,
    /// Keep results of models here and use those that are there already [default: of a sweep, --out; else none]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

impl JudgingArgs {
    /// The held-out text, or that of the demo model.
    pub(crate) fn text_file(&self, demo: Option<&Demo>) -> Option<PathBuf> {
        self.perplexity.clone().or(demo.map(|demo| demo.file("heldout.txt")))
    }

    /// Adds text and tasks to `evaluation`.
    pub(crate) fn add_to(
        &self,
        evaluation: Evaluation,
        model: &Model,
        demo: Option<&Demo>,
        seed: u64,
    ) -> Result<Evaluation> {
        let mut evaluation = evaluation;
        if let Some(file) = &self.text_file(demo) {
            let length = self.window.unwrap_or_else(|| super::default_length(model, demo));
            let settings = TextSettings { length, token_limit: self.text_tokens, ..TextSettings::default() };
            let text = TextEvaluation::from_text(model, &super::read_text(file)?, settings);
            evaluation = evaluation.with_text(text.with_context(|| format!("held-out text {}", file.display()))?);
        }
        for task in self.read_tasks(*evaluation.options(), demo.map(Demo::tasks).unwrap_or_default())? {
            evaluation = evaluation.with_task(match self.limit {
                Some(limit) => task.limit(limit, seed),
                None => task,
            });
        }
        if evaluation.text().is_none() && evaluation.tasks().is_empty() {
            bail!("nothing to judge by: give --perplexity FILE or --tasks");
        }
        Ok(evaluation)
    }

    /// Reads all tasks, or those of `default` if none are named, and reports everything that is wrong with them at once.
    fn read_tasks(&self, options: sparq::eval::TaskOptions, default: Vec<String>) -> Result<Vec<Task>> {
        let names = if self.tasks.is_empty() { &default } else { &self.tasks };
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
        match wrong.as_slice() {
            [] => Ok(all),
            [one] => bail!("{one}"),
            many => bail!("{} tasks cannot be read:\n  {}", many.len(), many.join("\n  ")),
        }
    }
}

/// Whether two tasks have one name, or one has that of the other's group. Results go by these names.
fn collide(one: &Task, other: &Task) -> bool {
    let in_group = |task: &Task, name: &str| task.definition().group.as_deref() == Some(name);
    one.name() == other.name() || in_group(one, other.name()) || in_group(other, one.name())
}
