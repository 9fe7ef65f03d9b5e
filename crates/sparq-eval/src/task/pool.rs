use super::TaskResult;
use serde::{Deserialize, Serialize};

/// Results that count as one task: those of a group, or a single one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PooledResult {
    /// Name of the group or task.
    pub name: String,
    /// Mean score over all items.
    pub accuracy: f64,
    /// Standard error of [`accuracy`](Self::accuracy), items being independent; `None` for a single item.
    pub standard_error: Option<f64>,
    /// Mean score of guessing.
    pub chance: f64,
    /// Score of each item, task after task.
    pub scores: Vec<f64>,
    /// What guessing scores on each item.
    pub chances: Vec<f64>,
    /// Names of the tasks.
    pub members: Vec<String>,
}

/// Puts the items of the tasks of each group together, in the order in which groups and tasks first come.
///
/// A benchmark of many small tasks counts once in Sr, as the mean over its items, and not once for each of its tasks.
/// lm-evaluation-harness reports the same mean for such a group.
///
/// # Examples
/// ```no_run
/// # fn run(results: Vec<sparq_eval::TaskResult>) {
/// for task in sparq_eval::pool(&results) {
///     println!("{}: {:.1} % of {} items", task.name, 100.0 * task.accuracy, task.scores.len());
/// }
/// # }
/// ```
pub fn pool(results: &[TaskResult]) -> Vec<PooledResult> {
    let mut pooled: Vec<PooledResult> = Vec::new();
    for result in results {
        let name = result.group.as_deref().unwrap_or(&result.name);
        let index = pooled.iter().position(|other| other.name == name).unwrap_or(pooled.len());
        if index == pooled.len() {
            pooled.push(PooledResult {
                name: name.to_owned(),
                accuracy: 0.0,
                standard_error: None,
                chance: 0.0,
                scores: Vec::new(),
                chances: Vec::new(),
                members: Vec::new(),
            });
        }
        let task = &mut pooled[index];
        task.scores.extend(result.scores());
        task.chances.extend(result.items.iter().map(|item| item.chance));
        task.members.push(result.name.clone());
    }
    for task in &mut pooled {
        task.accuracy = sparq_metric::mean(&task.scores).unwrap_or_default();
        task.chance = sparq_metric::mean(&task.chances).unwrap_or_default();
        task.standard_error = sparq_metric::standard_error(&task.scores).ok().filter(|error| error.is_finite());
    }
    pooled
}
