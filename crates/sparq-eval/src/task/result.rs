use super::{Metric, Skipped, Task};
use serde::{Deserialize, Serialize};

/// A model's answer to one item, and its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemResult {
    /// File stem and line of the item.
    pub id: String,
    /// 1 if answered rightly, else 0, by sums of log-likelihoods. If `n` choices share first place and the right one is
    /// among them, `1/n`: what picking one of them at random would score.
    pub score: f64,
    /// The same by log-likelihood per byte of the choice; `None` for kinds without choices.
    pub score_normalised: Option<f64>,
    /// What guessing scores on average.
    pub chance: f64,
    /// Sum of log-likelihoods, in nats, of each choice, in the order of the data; empty for generated answers.
    pub log_likelihoods: Vec<f64>,
    /// Index of the right choice.
    pub answer: Option<usize>,
    /// What the model wrote, for generated answers.
    pub prediction: Option<String>,
}

/// A model's results on a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Name of the task.
    pub name: String,
    /// The group it belongs to: its tasks count as one, see [`pool`](crate::pool).
    #[serde(default)]
    pub group: Option<String>,
    /// Which score counts.
    pub metric: Metric,
    /// Mean score, by the metric that counts.
    pub accuracy: f64,
    /// Standard error of [`accuracy`](Self::accuracy); `None` for a single item.
    pub standard_error: Option<f64>,
    /// Mean score of guessing.
    pub chance: f64,
    /// Every item, in the order of the data.
    pub items: Vec<ItemResult>,
    /// Records of the data that cannot be asked and are left out, with the reason.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// Fingerprint of definition, items and options.
    pub fingerprint: String,
}

impl TaskResult {
    pub(crate) fn new(task: &Task, items: Vec<ItemResult>, fingerprint: String) -> Self {
        let mut result = Self {
            name: task.name().to_owned(),
            group: task.definition().group.clone(),
            metric: task.definition().metric,
            accuracy: 0.0,
            standard_error: None,
            chance: 0.0,
            items,
            skipped: task.skipped().to_vec(),
            fingerprint,
        };
        let scores = result.scores();
        let chance: Vec<f64> = result.items.iter().map(|item| item.chance).collect();
        // A task has at least one item.
        result.accuracy = sparq_metric::mean(&scores).unwrap_or_default();
        result.chance = sparq_metric::mean(&chance).unwrap_or_default();
        result.standard_error = sparq_metric::standard_error(&scores).ok().filter(|error| error.is_finite());
        result
    }

    /// Score of each item by the metric that counts.
    pub fn scores(&self) -> Vec<f64> {
        let score = |item: &ItemResult| match self.metric {
            Metric::Accuracy => item.score,
            Metric::AccuracyNormalised => item.score_normalised.unwrap_or(item.score),
        };
        self.items.iter().map(score).collect()
    }

    /// Mean score by sums of log-likelihoods, whichever metric counts.
    pub fn accuracy_by_sum(&self) -> f64 {
        self.items.iter().map(|item| item.score).sum::<f64>() / self.items.len().max(1) as f64
    }

    /// Mean score by log-likelihood per byte, whichever metric counts; `None` for kinds without choices.
    pub fn accuracy_normalised(&self) -> Option<f64> {
        let scores: Option<Vec<f64>> = self.items.iter().map(|item| item.score_normalised).collect();
        scores.and_then(|scores| sparq_metric::mean(&scores).ok())
    }
}
