//! Tasks: questions with right answers, from lines of JSON.

mod answer;
mod built_in;
mod choices;
mod definition;
mod evaluate;
mod limits;
mod load;
#[cfg(feature = "math")]
mod mathematics;
mod pool;
mod record;
mod records;
mod result;
mod shots;
mod template;

pub use answer::{AnswerRule, Comparison};
pub use choices::ChoiceSource;
pub use definition::{FieldNames, Metric, TaskDefinition, TaskKind};
pub use evaluate::TaskOptions;
#[cfg(feature = "math")]
pub use mathematics::equivalent;
pub use pool::{PooledResult, pool};
pub use result::{ItemResult, TaskResult};
pub use shots::Shots;

use crate::fingerprint::fingerprint;
use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// One question of a task, its templates filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    id: String,
    content: Content,
}

/// The texts that a model is shown or scores.
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

impl Content {
    /// Texts that a model is shown, and bytes of the longest of them.
    fn shown(&self) -> (usize, usize) {
        match self {
            Self::Choices { pairs, .. } => {
                let longest = pairs.iter().map(|(context, text)| context.len() + text.len()).max();
                (pairs.len(), longest.unwrap_or(0))
            }
            Self::GreedyMatch { context, continuation } => (1, context.len() + continuation.len()),
            Self::Generated { prompt, .. } => (1, prompt.len()),
        }
    }

    /// Bytes of its texts.
    fn bytes(&self) -> usize {
        match self {
            Self::Choices { pairs, .. } => pairs.iter().map(|(context, text)| context.len() + text.len()).sum(),
            Self::GreedyMatch { context, continuation } => context.len() + continuation.len(),
            Self::Generated { prompt, answer } => prompt.len() + answer.len(),
        }
    }
}

/// Worked examples are part of every prompt, and count towards its length.
fn check_with_shots(definition: &TaskDefinition, shots: &str, items: &[Item]) -> Result<()> {
    let refuse = |reason| Err(Error::Definition { file: definition.name.clone(), reason });
    let mut bytes = 0_usize;
    for item in items {
        let (texts, longest) = item.content.shown();
        if shots.len() + longest > limits::PROMPT_BYTES {
            return refuse(format!("{}: with worked examples more than {} bytes", item.id, limits::PROMPT_BYTES));
        }
        bytes = bytes.saturating_add(item.content.bytes()).saturating_add(texts.saturating_mul(shots.len()));
    }
    if bytes > limits::TASK_BYTES {
        return refuse(format!("the prompts exceed {} bytes with worked examples", limits::TASK_BYTES));
    }
    Ok(())
}

/// A record of the data that cannot be asked: fewer than two choices, or an answer that is none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which.
    pub id: String,
    /// Why.
    pub reason: String,
}

impl Item {
    /// File stem and line, `piqa:17`; in a document that lists its records, the position in the list, from 1.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the model is shown after the worked examples, [`Task::shots`]; of several contexts, the first.
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

    /// What is scored, in the order of the data; nothing for generated answers.
    pub fn continuations(&self) -> impl Iterator<Item = &str> {
        let (pairs, single) = match &self.content {
            Content::Choices { pairs, .. } => (pairs.as_slice(), None),
            Content::GreedyMatch { continuation, .. } => (&[][..], Some(continuation.as_str())),
            Content::Generated { .. } => (&[][..], None),
        };
        pairs.iter().map(|(_, continuation)| continuation.as_str()).chain(single)
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
    /// Worked examples, in front of every prompt.
    shots: String,
    items: Vec<Item>,
    skipped: Vec<Skipped>,
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

    /// A task from a definition and the contents of its files, each with the name that errors use. Worked examples are
    /// the first records of the first file, which then are no items.
    ///
    /// # Errors
    /// [`Error::Definition`] if a template is malformed or there are too few records for the worked examples;
    /// [`Error::Record`] naming the first malformed line of a file and the numbers of the others; [`Error::EmptyTask`].
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
        Self::with_shots_from(definition, files, None)
    }

    /// As [`from_texts`](Self::from_texts), with worked examples from a file of their own.
    fn with_shots_from(
        definition: TaskDefinition,
        files: &[(&str, &str)],
        shots_file: Option<(&str, &str)>,
    ) -> Result<Self> {
        if definition.answer.compare == Comparison::Mathematics && cfg!(not(feature = "math")) {
            return Err(Error::MissingFeature { task: definition.name, feature: "math" });
        }
        let count = definition.shots.count;
        let shots = match shots_file.or_else(|| files.first().copied()) {
            Some((file, text)) if count > 0 => record::worked(&definition, file, text, count)?,
            _ => String::new(),
        };
        let (mut items, mut skipped) = (Vec::new(), Vec::new());
        for (file, text) in files {
            let contents = record::items(&definition, file, text)?;
            items.extend(contents.items);
            skipped.extend(contents.skipped);
        }
        if skipped.len() > definition.unusable {
            let (found, known) = (skipped.len(), definition.unusable);
            let reason = format!("{found} records cannot be asked, and only {known} are known to be such");
            return Err(Error::Definition { file: definition.name, reason });
        }
        if shots_file.is_none() {
            items.drain(..count.min(items.len()));
        }
        if items.is_empty() {
            return Err(Error::EmptyTask { task: definition.name });
        }
        check_with_shots(&definition, &shots, &items)?;
        Ok(Self { definition, shots, items, skipped })
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

    /// Keeps the items that `keep` is true for.
    ///
    /// # Errors
    /// [`Error::EmptyTask`] if there are none.
    ///
    /// # Examples
    /// ```
    /// let text = "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \"c\", \"answer\": \"d\"}";
    /// let task = sparq_eval::Task::from_jsonl("letters", text)?.only(|item| item.id() == "letters:2")?;
    /// assert_eq!(task.items()[0].answer(), "d");
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn only(mut self, keep: impl Fn(&Item) -> bool) -> Result<Self> {
        self.items.retain(keep);
        if self.items.is_empty() { Err(Error::EmptyTask { task: self.definition.name }) } else { Ok(self) }
    }

    /// Name of the task.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// The definition.
    pub fn definition(&self) -> &TaskDefinition {
        &self.definition
    }

    /// The worked examples in front of every prompt; empty if there are none.
    pub fn shots(&self) -> &str {
        &self.shots
    }

    /// Records of the data that cannot be asked and are left out.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
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
        let items = serde_json::to_vec(&(&self.shots, &self.items)).unwrap_or_default();
        fingerprint("task", &(&self.definition, options.special_tokens), &items)
    }
}

#[cfg(test)]
mod tests;
