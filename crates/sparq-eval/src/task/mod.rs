//! Tasks: questions with right answers, from lines of JSON.

mod built_in;
mod definition;
mod evaluate;
mod record;
mod result;
mod template;

pub use definition::{AnswerRule, FieldNames, Metric, TaskDefinition, TaskKind};
pub use evaluate::TaskOptions;
pub use result::{ItemResult, TaskResult};

use crate::fingerprint::fingerprint;
use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One question of a task, its templates filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    id: String,
    content: Content,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Content {
    /// Context and continuation of each choice.
    Choices {
        pairs: Vec<(String, String)>,
        bytes: Vec<usize>,
        answer: usize,
    },
    GreedyMatch {
        context: String,
        continuation: String,
    },
    Generated {
        prompt: String,
        answer: String,
    },
}

impl Item {
    /// File stem and line: `piqa:17`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the model is shown; of several contexts, the first.
    pub fn prompt(&self) -> &str {
        match &self.content {
            Content::Choices { pairs, .. } => pairs.first().map_or("", |(context, _)| context),
            Content::GreedyMatch { context, .. } => context,
            Content::Generated { prompt, .. } => prompt,
        }
    }

    /// The right answer as text; for choices between contexts, the right context.
    pub fn answer(&self) -> &str {
        match &self.content {
            Content::Choices { pairs, answer, .. } => {
                let contexts_differ = pairs.windows(2).any(|two| two[0].0 != two[1].0);
                pairs.get(*answer).map_or(
                    "",
                    |(context, continuation)| {
                        if contexts_differ { context } else { continuation.trim() }
                    },
                )
            }
            Content::GreedyMatch { continuation, .. } => continuation.trim(),
            Content::Generated { answer, .. } => answer,
        }
    }

    /// What guessing scores: 1 over the number of choices, 0 without choices.
    pub fn chance(&self) -> f64 {
        match &self.content {
            Content::Choices { pairs, .. } => 1.0 / pairs.len().max(1) as f64,
            Content::GreedyMatch { .. } | Content::Generated { .. } => 0.0,
        }
    }
}

/// A definition and its items.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    definition: TaskDefinition,
    items: Vec<Item>,
}

impl Task {
    /// A task from lines of JSON whose fields tell its kind.
    ///
    /// | fields | kind | prompt and continuation |
    /// |---|---|---|
    /// | `question`, `choices`, `answer` (index) | multiple choice | `Q: {question} A:` and ` {choice}` |
    /// | `question`, `answer` (text) | generated | `Q: {question} A:` |
    /// | `query`, `choices`, `gold` | multiple choice | `{query}` and ` {choice}` |
    /// | `context_options`, `continuation`, `gold` | context choice | `{choice}` and ` {continuation}` |
    /// | `context`, `continuation` | greedy match | `{context}` and ` {continuation}` |
    /// | `sentence_good`, `sentence_bad` | minimal pair | nothing and the sentence |
    ///
    /// # Errors
    /// [`Error::Record`] naming the line that is malformed or has unknown fields, [`Error::EmptyTask`].
    ///
    /// # Examples
    /// ```
    /// let text = r#"{"question": "What is the opposite of hot?", "choices": ["cold", "narrow"], "answer": 0}"#;
    /// let task = sparq_eval::Task::from_jsonl("knowledge", text)?;
    /// assert_eq!(task.items()[0].prompt(), "Q: What is the opposite of hot? A:");
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn from_jsonl(name: &str, text: &str) -> Result<Self> {
        let definition = record::detect(name, name, text)?;
        Self::from_texts(definition, &[(name, text)])
    }

    /// A task from a definition and the contents of its files, each with the name that errors use.
    ///
    /// # Errors
    /// [`Error::Definition`] if a template is malformed, [`Error::Record`], [`Error::EmptyTask`].
    ///
    /// # Examples
    /// ```
    /// use sparq_eval::{Task, TaskDefinition, TaskKind};
    /// let mut definition = TaskDefinition::new("sums", TaskKind::Generated);
    /// definition.prompt = "Calculate: {question}\n".to_owned();
    /// let task = Task::from_texts(definition, &[("sums.jsonl", r#"{"question": "1 + 1", "answer": "2"}"#)])?;
    /// assert_eq!(task.items()[0].prompt(), "Calculate: 1 + 1\n");
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn from_texts(definition: TaskDefinition, files: &[(&str, &str)]) -> Result<Self> {
        let mut items = Vec::new();
        for (file, text) in files {
            items.extend(record::items(&definition, file, text)?);
        }
        if items.is_empty() {
            return Err(Error::EmptyTask { task: definition.name });
        }
        Ok(Self { definition, items })
    }

    /// Finds and reads a task. `what` is one of
    /// * a `.toml` file: a definition, whose data files are relative to it;
    /// * another file: lines of JSON. Data files of built-in tasks (such as `…/zero-shot/piqa.jsonl`) get the built-in
    ///   definition, others the one their fields suggest, as in [`from_jsonl`](Self::from_jsonl);
    /// * the name of a built-in definition, whose files are looked for below `data`, with or without their folder.
    ///
    /// # Errors
    /// [`Error::UnknownTask`], [`Error::NoData`], [`Error::Read`]; those of [`from_texts`](Self::from_texts).
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_eval::Task;
    /// use std::path::Path;
    /// let piqa = Task::load("piqa", Some(Path::new("data")))?.limit(200, 0);
    /// let own = Task::load("tasks/quiz.toml", None)?;
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn load(what: &str, data: Option<&Path>) -> Result<Self> {
        let path = Path::new(what);
        if !path.is_file() {
            return Self::load_built_in(what, data);
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
            let definition = TaskDefinition::from_toml(what, &read(path)?)?;
            let folder = path.parent().unwrap_or(Path::new(""));
            let paths: Vec<PathBuf> = definition.data.iter().map(|file| folder.join(file)).collect();
            return Self::read(definition, &paths);
        }
        if let Some(definition) = built_in::of_data_file(path) {
            return Self::read(definition, &[path.to_owned()]);
        }
        let text = read(path)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        let definition = record::detect(&name, what, &text)?;
        Self::from_texts(definition, &[(what, &text)])
    }

    fn load_built_in(name: &str, data: Option<&Path>) -> Result<Self> {
        let definition = built_in::find(name)?;
        let no_data = |reason| Error::NoData { task: name.to_owned(), reason };
        let data = data.ok_or_else(|| no_data("a data directory is needed for built-in tasks".to_owned()))?;
        let find = |file: &String| {
            let whole = data.join(file);
            let bare = Path::new(file).file_name().map_or_else(|| whole.clone(), |file| data.join(file));
            let found = [&whole, &bare].into_iter().find(|path| path.is_file()).cloned();
            found.ok_or_else(|| no_data(format!("{} does not exist", whole.display())))
        };
        let paths = definition.data.iter().map(find).collect::<Result<Vec<_>>>()?;
        Self::read(definition, &paths)
    }

    fn read(definition: TaskDefinition, paths: &[PathBuf]) -> Result<Self> {
        let texts = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let files: Vec<(&str, &str)> =
            names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Self::from_texts(definition, &files)
    }

    /// Keeps `count` items, chosen by `seed` (the first of a `ChaCha8` shuffle, in their old order); all if there are no
    /// more. The same for every model.
    ///
    /// # Examples
    /// ```
    /// let lines: String = (0..9).map(|i| format!("{{\"question\": \"{i}\", \"answer\": \"{i}\"}}\n")).collect();
    /// let task = sparq_eval::Task::from_jsonl("numbers", &lines)?;
    /// assert_eq!(task.clone().limit(4, 7), task.clone().limit(4, 7));
    /// assert_eq!(task.limit(4, 7).items().len(), 4);
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn limit(mut self, count: usize, seed: u64) -> Self {
        let count = count.max(1);
        if count >= self.items.len() {
            return self;
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        for chosen in 0..count {
            // Multiply and shift: uniform but for 2⁻³² of the number of items.
            let rest = (order.len() - chosen) as u64;
            let drawn = (u64::from(random.next_u32()) * rest) >> 32;
            order.swap(chosen, chosen + drawn as usize);
        }
        let mut kept = vec![false; order.len()];
        order[..count].iter().for_each(|index| kept[*index] = true);
        let mut kept = kept.into_iter();
        self.items.retain(|_| kept.next().unwrap_or(false));
        self
    }

    /// Name of the task.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// The definition.
    pub fn definition(&self) -> &TaskDefinition {
        &self.definition
    }

    /// The items, at least one.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Mean over the items of what guessing scores.
    pub fn chance(&self) -> f64 {
        self.items.iter().map(Item::chance).sum::<f64>() / self.items.len() as f64
    }

    /// SHA-256 over definition, items and options: equal fingerprints mean equal results of equal models.
    pub fn fingerprint(&self, options: &TaskOptions) -> String {
        // As in `fingerprint`: plain data, whose serialisation to memory cannot fail.
        let items = serde_json::to_vec(&self.items).unwrap_or_default();
        fingerprint("task", &(&self.definition, options.special_tokens), &items)
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
