use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a base model and a compressed one score on the items of one task, item by item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskScores {
    name: String,
    base: Vec<f64>,
    compressed: Vec<f64>,
    chance: Vec<f64>,
}

impl TaskScores {
    /// Scores of the same items by both models, higher being better, and what random guessing scores on each item on
    /// average (1 over the number of choices; 0 for generated answers).
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Length`] if the lists differ in length, [`Error::Score`] if a number is not finite or
    /// a chance level not in `[0, 1)`.
    ///
    /// # Examples
    /// ```
    /// use sparq_metric::TaskScores;
    /// let task = TaskScores::new("maths", vec![1.0, 0.0], vec![0.0, 0.0], vec![0.0, 0.0])?;
    /// assert_eq!(task.len(), 2);
    /// assert!(TaskScores::new("maths", vec![1.0, 0.0], vec![0.0], vec![0.0, 0.0]).is_err());
    /// # Ok::<(), sparq_metric::Error>(())
    /// ```
    pub fn new(name: impl Into<String>, base: Vec<f64>, compressed: Vec<f64>, chance: Vec<f64>) -> Result<Self> {
        let name = name.into();
        if base.is_empty() {
            return Err(Error::Empty { what: format!("scores of task `{name}`") });
        }
        for (what, list) in [("scores of the compressed model", &compressed), ("chance levels", &chance)] {
            if list.len() != base.len() {
                let what = format!("task `{name}`, {what}");
                return Err(Error::Length { what, expected: base.len(), found: list.len() });
            }
        }
        let lists = [("the base's score", &base), ("the compressed model's score", &compressed), ("chance", &chance)];
        for (what, list) in lists {
            let bad = |value: &f64| !value.is_finite() || (what == "chance" && !(0.0..1.0).contains(value));
            if let Some(item) = list.iter().position(bad) {
                return Err(Error::Score { task: name, item, what, value: list[item] });
            }
        }
        Ok(Self { name, base, compressed, chance })
    }

    /// Name of the task.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of items, at least one.
    #[allow(clippy::len_without_is_empty)] // Never empty.
    pub fn len(&self) -> usize {
        self.base.len()
    }

    /// The base model's score of each item.
    pub fn base(&self) -> &[f64] {
        &self.base
    }

    /// The compressed model's score of each item.
    pub fn compressed(&self) -> &[f64] {
        &self.compressed
    }

    /// What guessing scores on each item.
    pub fn chance(&self) -> &[f64] {
        &self.chance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lists_are_refused() {
        assert!(matches!(TaskScores::new("t", vec![], vec![], vec![]), Err(Error::Empty { .. })));
        let error = TaskScores::new("t", vec![1.0, 1.0], vec![1.0, f64::NAN], vec![0.0, 0.0]).unwrap_err();
        assert!(matches!(error, Error::Score { item: 1, .. }), "{error}");
        assert!(matches!(TaskScores::new("t", vec![1.0], vec![1.0], vec![1.0]), Err(Error::Score { .. })));
        assert!(matches!(TaskScores::new("t", vec![1.0], vec![1.0], vec![]), Err(Error::Length { .. })));
    }
}
