use crate::fingerprint::fingerprint;
use crate::{
    Error, LanguageModel, PooledResult, Result, ResultCache, Task, TaskOptions, TaskResult, TextBaseline,
    TextEvaluation, TextScores, pool,
};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use sparq_core::{Observer, Ranks, message};
use sparq_metric::{Bootstrap, Retention, TaskScores, retention};
use sparq_model::Precision;

/// What a model is evaluated on: a text, tasks, or both. The base and every compressed model get the same.
///
/// # Examples
/// ```no_run
/// use sparq_eval::{Evaluation, Task};
/// # fn run(base: sparq_model::Model, compressed: sparq_model::Model) -> sparq_eval::Result<()> {
/// let evaluation = Evaluation::new().with_task(Task::load("data/zero-shot/piqa.jsonl", None)?.limit(200, 0));
/// let baseline = evaluation.baseline(&base, &())?;
/// let report = evaluation.evaluate(&compressed, Some(&baseline), &())?;
/// if let Some(kept) = report.retention {
///     println!("Sr {:.3}, {:.3} to {:.3}", kept.sr, kept.interval.low, kept.interval.high);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    text: Option<TextEvaluation>,
    tasks: Vec<Task>,
    options: TaskOptions,
    bootstrap: Bootstrap,
    ranks: Ranks,
}

/// The base model's results: computed once, compared with every compressed model.
#[derive(Debug, Clone)]
pub struct Baseline<M> {
    /// The base's pass over the text, if there is one.
    pub text: Option<TextBaseline<M>>,
    /// The base's results, in the order of the tasks.
    pub tasks: Vec<TaskResult>,
}

/// The results of a model, and how much of its base's abilities it keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// Perplexity and, with a baseline, divergence from the base.
    pub text: Option<TextScores>,
    /// Results in the order of the tasks.
    pub tasks: Vec<TaskResult>,
    /// Sr with intervals, given a baseline and a task on which the base is clearly above chance.
    pub retention: Option<Retention>,
    /// Why there is no Sr although there are tasks and a baseline.
    pub retention_missing: Option<String>,
    /// Fingerprint of everything that was asked.
    pub fingerprint: String,
}

impl Evaluation {
    /// An evaluation without text and tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the text, instead of any before.
    #[must_use]
    pub fn with_text(mut self, text: TextEvaluation) -> Self {
        self.text = Some(text);
        self
    }

    /// Adds a task.
    #[must_use]
    pub fn with_task(mut self, task: Task) -> Self {
        self.tasks.push(task);
        self
    }

    /// How tasks are run.
    #[must_use]
    pub fn with_options(mut self, options: TaskOptions) -> Self {
        self.options = options;
        self
    }

    /// How intervals are made.
    #[must_use]
    pub fn with_bootstrap(mut self, bootstrap: Bootstrap) -> Self {
        self.bootstrap = bootstrap;
        self
    }

    /// Shares windows and items with other processes, which all evaluate the same. Every one of them gets all results.
    #[must_use]
    pub fn with_ranks(mut self, ranks: Ranks) -> Self {
        self.ranks = ranks;
        self
    }

    /// The text.
    pub fn text(&self) -> Option<&TextEvaluation> {
        self.text.as_ref()
    }

    /// The tasks, in order.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// How tasks are run.
    pub fn options(&self) -> &TaskOptions {
        &self.options
    }

    /// How intervals are made.
    pub fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    /// SHA-256 over settings and data of text, tasks and bootstrap. Equal models with equal fingerprints get equal
    /// reports.
    pub fn fingerprint(&self) -> String {
        let text = self.text.as_ref().map(TextEvaluation::fingerprint);
        let tasks: Vec<String> = self.tasks.iter().map(|task| task.fingerprint(&self.options)).collect();
        fingerprint("evaluation", &(text, tasks, self.bootstrap), &[])
    }

    /// Evaluates the base model and keeps what comparisons need.
    ///
    /// # Errors
    /// Those of [`TextEvaluation::baseline`] and [`Task::evaluate`].
    pub fn baseline<M: LanguageModel>(&self, base: &M, observer: &dyn Observer) -> Result<Baseline<M>> {
        let text = self.text.as_ref().map(|text| text.baseline_by(&self.ranks, base, observer)).transpose()?;
        Ok(Baseline { text, tasks: self.run_tasks(base, observer)? })
    }

    /// As [`baseline`](Self::baseline), but results that `cache` holds are not computed again. New results are stored
    /// there task by task, as soon as each is finished.
    ///
    /// `content_hash` names the base: it must change whenever weights or tokenizer do. The hash of a checkpoint's files
    /// is valid if the model was not changed after it was opened.
    ///
    /// # Errors
    /// Those of [`baseline`](Self::baseline); [`Error::Cache`] if results cannot be kept.
    pub fn baseline_cached<M: LanguageModel>(
        &self,
        base: &M,
        content_hash: &str,
        cache: &ResultCache,
        observer: &dyn Observer,
    ) -> Result<Baseline<M>> {
        let content_hash = &identity(base, content_hash);
        let text = match &self.text {
            None => None,
            Some(text) => Some(if let Some(hidden) = self.kept_hidden(content_hash, cache, text)? {
                text.restore_baseline_by(&self.ranks, base, hidden)?
            } else {
                let baseline = text.baseline_by(&self.ranks, base, observer)?;
                if self.ranks.is_first() {
                    cache.keep_hidden(content_hash, text, &baseline)?;
                }
                baseline
            }),
        };
        Ok(Baseline { text, tasks: self.run_tasks_cached(base, content_hash, cache, observer)? })
    }

    /// As [`evaluate`](Self::evaluate), with the task results of the model itself kept in `cache`, as those of the base
    /// are by [`baseline_cached`](Self::baseline_cached).
    ///
    /// # Errors
    /// Those of [`evaluate`](Self::evaluate); [`Error::Cache`] if results cannot be kept.
    pub fn evaluate_cached<M: LanguageModel>(
        &self,
        model: &M,
        content_hash: &str,
        cache: &ResultCache,
        baseline: Option<&Baseline<M>>,
        observer: &dyn Observer,
    ) -> Result<EvaluationReport> {
        let text = self.evaluate_text(model, baseline, observer)?;
        let tasks = self.run_tasks_cached(model, &identity(model, content_hash), cache, observer)?;
        self.report(text, tasks, baseline)
    }

    fn run_tasks_cached<M: LanguageModel>(
        &self,
        model: &M,
        content_hash: &str,
        cache: &ResultCache,
        observer: &dyn Observer,
    ) -> Result<Vec<TaskResult>> {
        let run = |task: &Task| {
            let fingerprint = task.fingerprint(&self.options);
            if let Some(kept) = self.kept_task(content_hash, cache, &fingerprint)? {
                observer.progress(kept.items.len(), kept.items.len(), &task.name());
                return Ok(kept);
            }
            let result = task.evaluate_by(&self.ranks, model, &self.options, observer)?;
            if self.ranks.is_first() {
                cache.keep_task(content_hash, &result)?;
            }
            Ok(result)
        };
        self.tasks.iter().map(run).collect()
    }

    /// What the first process finds in its cache, for all of them.
    fn kept_task(&self, content_hash: &str, cache: &ResultCache, fingerprint: &str) -> Result<Option<TaskResult>> {
        let found = if self.ranks.is_first() { cache.task(content_hash, fingerprint) } else { None };
        if self.ranks.is_alone() {
            return Ok(found);
        }
        let message = self.ranks.broadcast(0, serde_json::to_vec(&found).unwrap_or_default())?;
        serde_json::from_slice(&message).map_err(|_| message::garbled().into())
    }

    /// The same of hidden states.
    fn kept_hidden(
        &self,
        content_hash: &str,
        cache: &ResultCache,
        text: &TextEvaluation,
    ) -> Result<Option<Array2<f32>>> {
        let found = if self.ranks.is_first() { cache.hidden(content_hash, text) } else { None };
        if self.ranks.is_alone() {
            return Ok(found);
        }
        let mut bytes = Vec::new();
        if let Some(found) = &found {
            message::put_matrix(&mut bytes, found.view());
        }
        let bytes = self.ranks.broadcast(0, bytes)?;
        if self.ranks.is_first() || bytes.is_empty() {
            return Ok(found);
        }
        Ok(Some(message::take_matrix(&mut bytes.as_slice())?))
    }

    /// The base model's own report. It has no divergence and no Sr, because it is not compared with itself.
    pub fn baseline_report<M>(&self, baseline: &Baseline<M>) -> EvaluationReport {
        EvaluationReport {
            text: baseline.text.as_ref().map(|text| text.scores().clone()),
            tasks: baseline.tasks.clone(),
            retention: None,
            retention_missing: None,
            fingerprint: self.fingerprint(),
        }
    }

    /// Evaluates a model. With a baseline, also computes its divergence from the base and the retention Sr.
    ///
    /// # Errors
    /// Those of [`TextEvaluation::evaluate`] and [`Task::evaluate`]; [`Error::NotPaired`] if the baseline is of other
    /// tasks. That no task is fit for Sr is not an error: the report says so beside the other results.
    pub fn evaluate<M: LanguageModel>(
        &self,
        model: &M,
        baseline: Option<&Baseline<M>>,
        observer: &dyn Observer,
    ) -> Result<EvaluationReport> {
        let text = self.evaluate_text(model, baseline, observer)?;
        let tasks = self.run_tasks(model, observer)?;
        self.report(text, tasks, baseline)
    }

    fn evaluate_text<M: LanguageModel>(
        &self,
        model: &M,
        baseline: Option<&Baseline<M>>,
        observer: &dyn Observer,
    ) -> Result<Option<TextScores>> {
        let baseline = baseline.and_then(|baseline| baseline.text.as_ref());
        self.text.as_ref().map(|text| text.evaluate_by(&self.ranks, model, baseline, observer)).transpose()
    }

    fn report<M>(
        &self,
        text: Option<TextScores>,
        tasks: Vec<TaskResult>,
        baseline: Option<&Baseline<M>>,
    ) -> Result<EvaluationReport> {
        let (mut kept, mut missing) = (None, None);
        if let Some(baseline) = baseline.filter(|_| !tasks.is_empty()) {
            match retention(&paired_scores(&baseline.tasks, &tasks)?, &self.bootstrap) {
                Ok(retention) => kept = Some(retention),
                Err(error @ sparq_metric::Error::NoTaskLeft { .. }) => missing = Some(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        let fingerprint = self.fingerprint();
        Ok(EvaluationReport { text, tasks, retention: kept, retention_missing: missing, fingerprint })
    }

    fn run_tasks<M: LanguageModel>(&self, model: &M, observer: &dyn Observer) -> Result<Vec<TaskResult>> {
        self.tasks.iter().map(|task| task.evaluate_by(&self.ranks, model, &self.options, observer)).collect()
    }
}

/// The name under which results of this model are kept: the hash of its files, and the precision of linear layers if it
/// is not `f32`.
pub fn identity(model: &impl LanguageModel, content_hash: &str) -> String {
    match model.precision() {
        Precision::F32 => content_hash.to_owned(),
        other => format!("{content_hash} in {other:?}"),
    }
}

/// Scores of a base and a compressed model side by side, as [`sparq_metric::retention`] and
/// [`sparq_metric::retention_difference`] take them. The tasks of a group are one, as in [`pool`].
///
/// # Errors
/// [`Error::NotPaired`] if the two lists are not of the same tasks, items and options, in the same order.
///
/// # Examples
/// ```no_run
/// # fn run(base: Vec<sparq_eval::TaskResult>, joint: Vec<sparq_eval::TaskResult>, plain: Vec<sparq_eval::TaskResult>) -> Result<(), Box<dyn std::error::Error>> {
/// use sparq_eval::paired_scores;
/// let difference = sparq_metric::retention_difference(
///     &paired_scores(&base, &joint)?,
///     &paired_scores(&base, &plain)?,
///     &sparq_metric::Bootstrap::default(),
/// )?;
/// println!("{}", difference.statement("joint", "quantization only"));
/// # Ok(()) }
/// ```
pub fn paired_scores(base: &[TaskResult], compressed: &[TaskResult]) -> Result<Vec<TaskScores>> {
    let refuse = |task: &str, reason: &str| Error::NotPaired { task: task.to_owned(), reason: reason.to_owned() };
    if let Some(task) = base.get(compressed.len()).or_else(|| compressed.get(base.len())) {
        return Err(refuse(&task.name, "one model has no result"));
    }
    for (base, compressed) in base.iter().zip(compressed) {
        if base.fingerprint != compressed.fingerprint {
            return Err(refuse(&base.name, "definition, items or options differ"));
        }
    }
    let pair = |(base, compressed): (PooledResult, PooledResult)| {
        Ok(TaskScores::new(base.name, base.scores, compressed.scores, base.chances)?)
    };
    pool(base).into_iter().zip(pool(compressed)).map(pair).collect()
}

#[cfg(test)]
mod tests;
