use crate::bootstrap::index;
use crate::{Bootstrap, Error, Interval, Result, TaskScores, mean, standard_error};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A resample on which the base is not above chance has no retention and is drawn again. On a task that passes the rule
/// of exclusion, one in 40 is such a resample at worst, so that many attempts are never needed.
const ATTEMPTS: usize = 1000;

/// A task is left out of Sr unless the base is at least this many standard errors above chance (srcr.md: OURS).
const CLEARLY: f64 = 2.0;

/// Sr, what is kept of the base model's performance beyond chance, over several tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retention {
    /// Mean over the tasks: 1 if everything is kept, 0 if nothing is.
    pub sr: f64,
    /// Bootstrap interval of [`sr`](Self::sr).
    pub interval: Interval,
    /// The tasks it is the mean of, in the order given.
    pub tasks: Vec<TaskRetention>,
    /// Tasks left out because the base itself is not clearly above chance.
    pub excluded: Vec<ExcludedTask>,
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
}

/// Sr of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRetention {
    /// Name of the task.
    pub name: String,
    /// Number of items.
    pub items: usize,
    /// Mean score of the base model.
    pub base: f64,
    /// Mean score of the compressed model.
    pub compressed: f64,
    /// Mean score of guessing.
    pub chance: f64,
    /// `max(0, (compressed − chance) / (base − chance))`.
    pub sr: f64,
    /// Bootstrap interval of [`sr`](Self::sr).
    pub interval: Interval,
}

/// A task that carries no information about retention, with the numbers that say so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExcludedTask {
    /// Name of the task.
    pub name: String,
    /// Number of items.
    pub items: usize,
    /// Mean score of the base model.
    pub base: f64,
    /// Standard error of [`base`](Self::base); `None` for a single item, whose spread is unknown.
    pub standard_error: Option<f64>,
    /// Mean score of guessing.
    pub chance: f64,
}

impl fmt::Display for ExcludedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, items, base, standard_error, chance } = self;
        match standard_error {
            Some(error) => write!(
                f,
                "`{name}`: base {base:.4} is less than 2 standard errors of {error:.4} above chance {chance:.4} ({items} items)"
            ),
            None => write!(f, "`{name}`: base {base:.4}, chance {chance:.4}, but one item tells no standard error"),
        }
    }
}

/// Difference of the Sr of two configurations, the first minus the second, measured on the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetentionDifference {
    /// Sr of the first minus Sr of the second.
    pub difference: f64,
    /// Paired bootstrap interval of it.
    pub interval: Interval,
    /// Two-sided bootstrap p-value of no difference: twice the share of resamples on the other side of 0, or on it. At
    /// least `2 / (resamples + 1)`.
    pub p_value: f64,
    /// The same for each task.
    pub tasks: Vec<TaskDifference>,
}

/// Difference of two configurations on one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDifference {
    /// Name of the task.
    pub name: String,
    /// Sr of the first minus Sr of the second.
    pub difference: f64,
    /// Paired bootstrap interval of it.
    pub interval: Interval,
}

impl RetentionDifference {
    /// Whether the first configuration may be called better: the interval excludes 0 from above.
    pub fn first_wins(&self) -> bool {
        self.interval.low > 0.0
    }

    /// Whether the second configuration may be called better: the interval excludes 0 from below.
    pub fn second_wins(&self) -> bool {
        self.interval.high < 0.0
    }

    /// One sentence, without full stop, that claims a win only if the interval excludes 0.
    ///
    /// # Examples
    /// ```
    /// use sparq_metric::{Bootstrap, TaskScores, retention_difference};
    /// let task = |kept| {
    ///     let right = |count| (0..100).map(|item| f64::from(u8::from(item < count))).collect::<Vec<_>>();
    ///     TaskScores::new("maths", right(90), right(kept), vec![0.0; 100])
    /// };
    /// let difference = retention_difference(&[task(80)?], &[task(40)?], &Bootstrap::default())?;
    /// let sentence = difference.statement("joint", "3 bit");
    /// assert!(sentence.starts_with("joint keeps more than 3 bit: Sr is higher by 0.444"), "{sentence}");
    /// # Ok::<(), sparq_metric::Error>(())
    /// ```
    pub fn statement(&self, first: &str, second: &str) -> String {
        let Interval { low, high } = self.interval;
        if self.first_wins() {
            format!(
                "{first} keeps more than {second}: Sr is higher by {:.3}, interval {low:.3} to {high:.3} excludes 0",
                self.difference
            )
        } else if self.second_wins() {
            format!(
                "{second} keeps more than {first}: Sr is higher by {:.3}, interval {:.3} to {:.3} excludes 0",
                -self.difference, -high, -low
            )
        } else {
            format!(
                "{first} and {second} cannot be told apart: Sr differs by {:.3}, interval {low:.3} to {high:.3} includes 0",
                self.difference
            )
        }
    }
}

/// Semantic retention Sr of a compressed model. The idea is the paper's, this definition is OURS.
///
/// For a task with mean scores `a_b` (base), `a_c` (compressed) and `g` (guessing):
///
/// ```text
/// Sr_t = max(0, (a_c − g) / (a_b − g))        Sr = mean of Sr_t over the tasks
/// ```
///
/// A task on which the base itself is not clearly above chance (`a_b − g` less than 2 standard errors of `a_b`, or not
/// positive) carries no information: it is left out and named in [`Retention::excluded`].
///
/// Intervals come from a paired bootstrap: items are resampled within each task, the same for base and compressed model,
/// then averaged over tasks. A resample on which the base is not above chance is drawn again. The draws depend on the
/// seed, the task's name, its number of items, base scores and chance levels only: two configurations measured against
/// one base are always resampled alike.
///
/// # Errors
/// [`Error::NoTaskLeft`] instead of a number if every task is left out; [`Error::Bootstrap`].
///
/// # Examples
/// ```
/// use sparq_metric::{Bootstrap, TaskScores, retention};
/// let right = |count| (0..40).map(|item| f64::from(u8::from(item < count))).collect::<Vec<_>>();
/// let clear = TaskScores::new("clear", right(30), right(20), vec![0.25; 40])?;
/// let guessed = TaskScores::new("guessed", right(11), right(12), vec![0.25; 40])?;
/// let kept = retention(&[clear, guessed], &Bootstrap::default())?;
/// assert!((kept.sr - 0.5).abs() < 1e-12); // (0.5 - 0.25) / (0.75 - 0.25)
/// assert_eq!(kept.excluded[0].name, "guessed");
/// # Ok::<(), sparq_metric::Error>(())
/// ```
pub fn retention(tasks: &[TaskScores], bootstrap: &Bootstrap) -> Result<Retention> {
    bootstrap.check()?;
    let (kept, excluded) = split(tasks)?;
    let mut total = vec![0.0; bootstrap.resamples];
    let mut retained = Vec::with_capacity(kept.len());
    for (task, [base, compressed, chance]) in &kept {
        let mut replicates = replicates(task, bootstrap);
        total.iter_mut().zip(&replicates).for_each(|(total, replicate)| *total += replicate / kept.len() as f64);
        retained.push(TaskRetention {
            name: task.name().to_owned(),
            items: task.len(),
            base: *base,
            compressed: *compressed,
            chance: *chance,
            sr: ratio(compressed - chance, base - chance),
            interval: bootstrap.interval(&mut replicates),
        });
    }
    let sr = retained.iter().map(|task| task.sr / kept.len() as f64).sum();
    Ok(Retention { sr, interval: bootstrap.interval(&mut total), tasks: retained, excluded, bootstrap: *bootstrap })
}

/// Difference of the Sr of two configurations, with paired bootstrap intervals. OURS: a win is claimed only if the
/// interval excludes 0.
///
/// `first` and `second` hold the same tasks in the same order with the same base scores and chance levels; the tasks
/// that [`retention`] leaves out are left out.
///
/// # Errors
/// [`Error::NotPaired`] if the two were not measured against the same base on the same items; those of [`retention`].
///
/// # Examples
/// ```
/// use sparq_metric::{Bootstrap, TaskScores, retention_difference};
/// let task = |compressed| TaskScores::new("maths", vec![1.0; 4], compressed, vec![0.0; 4]);
/// let difference = retention_difference(
///     &[task(vec![1.0, 1.0, 1.0, 0.0])?],
///     &[task(vec![1.0, 0.0, 1.0, 0.0])?],
///     &Bootstrap::default(),
/// )?;
/// assert_eq!(difference.difference, 0.25);
/// assert!(!difference.first_wins()); // four items are too few
/// # Ok::<(), sparq_metric::Error>(())
/// ```
pub fn retention_difference(
    first: &[TaskScores],
    second: &[TaskScores],
    bootstrap: &Bootstrap,
) -> Result<RetentionDifference> {
    bootstrap.check()?;
    check_paired(first, second)?;
    let ((first, _), (second, _)) = (split(first)?, split(second)?);
    let count = first.len() as f64;
    let mut total = vec![0.0; bootstrap.resamples];
    let mut tasks = Vec::with_capacity(first.len());
    for ((a, a_means), (b, b_means)) in first.iter().zip(&second) {
        let sr = |[base, compressed, chance]: &[f64; 3]| ratio(compressed - chance, base - chance);
        // The draws are equal because they depend on what both have in common only.
        let paired = replicates(a, bootstrap).into_iter().zip(replicates(b, bootstrap));
        let mut differences: Vec<f64> = paired.map(|(a, b)| a - b).collect();
        total.iter_mut().zip(&differences).for_each(|(total, difference)| *total += difference / count);
        tasks.push(TaskDifference {
            name: a.name().to_owned(),
            difference: sr(a_means) - sr(b_means),
            interval: bootstrap.interval(&mut differences),
        });
    }
    let difference = tasks.iter().map(|task| task.difference / count).sum();
    let p_value = two_sided(&total);
    Ok(RetentionDifference { difference, interval: bootstrap.interval(&mut total), p_value, tasks })
}

/// Two-sided p-value of the hypothesis that resampled differences centre on 0. The observed value counts as a resample,
/// so that it is never 0.
fn two_sided(differences: &[f64]) -> f64 {
    let share = |is_beyond: fn(&&f64) -> bool| {
        (differences.iter().filter(is_beyond).count() + 1) as f64 / (differences.len() + 1) as f64
    };
    (2.0 * share(|value| **value <= 0.0).min(share(|value| **value >= 0.0))).min(1.0)
}

fn ratio(compressed: f64, base: f64) -> f64 {
    (compressed / base).max(0.0)
}

/// A task with its mean scores of base, compressed and chance.
type Measured<'a> = (&'a TaskScores, [f64; 3]);

/// Tasks that carry information, and those that do not.
fn split(tasks: &[TaskScores]) -> Result<(Vec<Measured<'_>>, Vec<ExcludedTask>)> {
    let (mut kept, mut excluded) = (Vec::new(), Vec::new());
    for task in tasks {
        let (base, compressed, chance) = (mean(task.base())?, mean(task.compressed())?, mean(task.chance())?);
        let error = standard_error(task.base())?;
        let above = base - chance;
        // A base that never scores has no standard error either: being above chance at all is asked for separately.
        if above > 0.0 && above >= CLEARLY * error {
            kept.push((task, [base, compressed, chance]));
        } else {
            let standard_error = error.is_finite().then_some(error);
            let name = task.name().to_owned();
            excluded.push(ExcludedTask { name, items: task.len(), base, standard_error, chance });
        }
    }
    if kept.is_empty() { Err(Error::NoTaskLeft { excluded }) } else { Ok((kept, excluded)) }
}

/// Sr of the task on each resample of its items.
fn replicates(task: &TaskScores, bootstrap: &Bootstrap) -> Vec<f64> {
    let mut random = bootstrap.random(task.name());
    // One array of both differences to chance, so that a draw touches one cache line.
    let above: Vec<[f64; 2]> = (task.base().iter().zip(task.compressed()).zip(task.chance()))
        .map(|((base, compressed), chance)| [base - chance, compressed - chance])
        .collect();
    // A draw exactly at chance adds up to the last bits of its items.
    let nothing = 1e-9 * above.len() as f64;
    let mut replicate = || {
        for _ in 0..ATTEMPTS {
            let (mut base, mut compressed) = (0.0, 0.0);
            for _ in &above {
                let drawn = above[index(&mut random, above.len())];
                base += drawn[0];
                compressed += drawn[1];
            }
            if base > nothing {
                return ratio(compressed, base);
            }
        }
        let [base, compressed] = above.iter().fold([0.0, 0.0], |sum, item| [sum[0] + item[0], sum[1] + item[1]]);
        ratio(compressed, base)
    };
    (0..bootstrap.resamples).map(|_| replicate()).collect()
}

fn check_paired(first: &[TaskScores], second: &[TaskScores]) -> Result<()> {
    let refuse = |task: &TaskScores, reason: &str| {
        Err(Error::NotPaired { task: task.name().to_owned(), reason: reason.to_owned() })
    };
    if let Some(task) = first.get(second.len()).or_else(|| second.get(first.len())) {
        return refuse(task, "one configuration lacks it");
    }
    for (a, b) in first.iter().zip(second) {
        if a.name() != b.name() {
            return refuse(a, &format!("its counterpart is `{}`", b.name()));
        }
        if a.len() != b.len() {
            return refuse(a, &format!("{} items against {}", a.len(), b.len()));
        }
        if a.base() != b.base() || a.chance() != b.chance() {
            return refuse(a, "base scores or chance levels differ");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
