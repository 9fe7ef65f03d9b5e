use super::{Content, Item, ItemResult, Task, TaskResult};
use crate::scoring::{Continuation, ContinuationScore, generate, score_by};
use crate::{LanguageModel, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sparq_core::{Observer, Ranks};

/// How tasks are run.
///
/// | setting | default | meaning | range |
/// |---|---|---|---|
/// | [`special_tokens`](Self::special_tokens) | true | whether the tokenizer's own special tokens start every prompt | |
/// | [`batch_tokens`](Self::batch_tokens) | 2048 | tokens that run through the model together | at least 1 |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskOptions {
    /// Whether the tokenizer's own special tokens (often one that starts a text) are put in front of every prompt.
    /// lm-evaluation-harness leaves them out for most models.
    pub special_tokens: bool,
    /// About how many tokens run through the model together. Changes results by rounding only.
    pub batch_tokens: usize,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self { special_tokens: true, batch_tokens: 2048 }
    }
}

impl Task {
    /// Runs a model on all items.
    ///
    /// Items are batched; the tokens that all prompts of the task begin with are run once, as are those that all choices
    /// of an item begin with; only positions that predict something go through the output layer.
    ///
    /// # Errors
    /// The model's; [`crate::Error::NoPrefixToken`] if a context is empty and the tokenizer names no token to start
    /// from; [`crate::Error::NotFinite`].
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_eval::{Task, TaskOptions};
    /// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
    /// let task = Task::load("data/zero-shot/piqa.jsonl", None)?;
    /// let result = task.evaluate(&model, &TaskOptions::default(), &())?;
    /// println!("{:.3} (chance {:.3})", result.accuracy, result.chance);
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn evaluate<M: LanguageModel>(
        &self,
        model: &M,
        options: &TaskOptions,
        observer: &dyn Observer,
    ) -> Result<TaskResult> {
        self.evaluate_by(&Ranks::default(), model, options, observer)
    }

    /// The same, shared by processes.
    pub(crate) fn evaluate_by<M: LanguageModel>(
        &self,
        ranks: &Ranks,
        model: &M,
        options: &TaskOptions,
        observer: &dyn Observer,
    ) -> Result<TaskResult> {
        let scored = self.score(ranks, model, options, observer)?;
        let generated = self.generate(ranks, model, options, observer)?;
        let (mut scored, mut generated) = (scored.into_iter(), generated.into_iter());
        let items = self.items.iter().map(|item| match &item.content {
            Content::Generated { answer, .. } => {
                let prediction = generated.next().unwrap_or_default();
                let right = self.definition.answer.is_right(&prediction, answer);
                ItemResult { score: f64::from(u8::from(right)), prediction: Some(prediction), ..blank(item) }
            }
            Content::GreedyMatch { .. } => {
                let scores = scored.next().unwrap_or_default();
                let right = scores.iter().all(|score| score.greedy) && !scores.is_empty();
                let log_likelihoods = scores.iter().map(|score| score.log_likelihood).collect();
                ItemResult { score: f64::from(u8::from(right)), log_likelihoods, ..blank(item) }
            }
            Content::Choices { bytes, answer, .. } => {
                let scores = scored.next().unwrap_or_default();
                let sums: Vec<f64> = scores.iter().map(|score| score.log_likelihood).collect();
                let per_byte: Vec<f64> =
                    sums.iter().zip(bytes).map(|(sum, bytes)| sum / (*bytes).max(1) as f64).collect();
                ItemResult {
                    score: credit(&sums, *answer),
                    score_normalised: Some(credit(&per_byte, *answer)),
                    answer: Some(*answer),
                    log_likelihoods: sums,
                    ..blank(item)
                }
            }
        });
        Ok(TaskResult::new(self, items.collect(), self.fingerprint(options)))
    }

    /// Log-likelihoods of all continuations of the items that have some, in order.
    fn score<M: LanguageModel>(
        &self,
        ranks: &Ranks,
        model: &M,
        options: &TaskOptions,
        observer: &dyn Observer,
    ) -> Result<Vec<Vec<ContinuationScore>>> {
        let encode = |item: &Item| {
            let pairs: Vec<(&str, &str)> = match &item.content {
                Content::Choices { pairs, .. } => pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect(),
                Content::GreedyMatch { context, continuation } => vec![(context, continuation)],
                Content::Generated { .. } => return None,
            };
            Some(Continuation::encode_all(model, &self.shots, &pairs, options.special_tokens))
        };
        let items = self.items.par_iter().filter_map(encode).collect::<Result<Vec<_>>>()?;
        let progress = |done, total| observer.progress(done, total, &self.name());
        score_by(ranks, model, &items, options.batch_tokens, &progress)
    }

    /// What the model writes for the items that ask for it, in order.
    fn generate<M: LanguageModel>(
        &self,
        ranks: &Ranks,
        model: &M,
        options: &TaskOptions,
        observer: &dyn Observer,
    ) -> Result<Vec<String>> {
        let encode = |item: &Item| match &item.content {
            Content::Generated { prompt, .. } => {
                Some(generate::encode_prompt(model, &[&self.shots, prompt.as_str()].concat(), options.special_tokens))
            }
            _ => None,
        };
        let prompts = self.items.par_iter().filter_map(encode).collect::<Result<Vec<_>>>()?;
        let limits = generate::Limits {
            max_new_tokens: self.definition.max_new_tokens,
            stop: &self.definition.stop,
            batch_tokens: options.batch_tokens,
        };
        let progress = |done, total| observer.progress(done, total, &self.name());
        generate::greedy(ranks, model, &prompts, &limits, &progress)
    }
}

fn blank(item: &Item) -> ItemResult {
    ItemResult {
        id: item.id.clone(),
        score: 0.0,
        score_normalised: None,
        chance: item.chance(),
        log_likelihoods: Vec::new(),
        answer: None,
        prediction: None,
    }
}

/// 1 if `answer` alone is best, `1/n` if it is among `n` equally good ones, else 0. So a damaged model that finds all
/// choices equally likely scores at chance, wherever the right ones are.
fn credit(scores: &[f64], answer: usize) -> f64 {
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let ties = scores.iter().filter(|score| **score == best).count();
    if scores.get(answer) == Some(&best) { 1.0 / ties as f64 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_the_credit() {
        assert_eq!(credit(&[-3.0, -1.0, -2.0], 1), 1.0);
        assert_eq!(credit(&[-3.0, -1.0, -2.0], 0), 0.0);
        assert_eq!(credit(&[-1.0, -1.0, -2.0], 0), 0.5);
        assert_eq!(credit(&[], 0), 0.0);
    }
}
