use crate::differences::{Judged, differences};
use crate::parallel::run_jobs;
use crate::results::{
    BaseResult, ConfigurationResult, Family, MachineFacts, ModelFacts, Sample, SettingsFacts, SweepResults,
    TaskAccuracy, TaskFacts,
};
use crate::store::{Store, fingerprint};

use crate::verdict::{comparisons, verdicts};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sparq_core::{Observer, Ranks, Sparsity};
use sparq_eval::{
    Baseline, Evaluation, EvaluationReport, ResultCache, Task, TaskResult, continue_greedily, identity, paired_scores,
    pool,
};
use sparq_metric::{Bootstrap, SrcrForm, retention};
use sparq_model::Model;
use sparq_pipeline::{Calibration, Compress, CompressionReport, Recipe, on_first};
use sparq_tensor::write_file;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a sweep compares, and how it is measured.
///
/// See [`run`](Self::run).
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The configurations.
    pub recipes: Vec<Recipe>,
    /// The calibration text. It must not overlap with the evaluation.
    pub calibration: Calibration,
    /// Held-out text and tasks.
    pub evaluation: Evaluation,
    /// Prompts that base and compressed models continue, for people to read.
    pub prompts: Vec<String>,
    /// Tokens of a continuation.
    pub sample_tokens: usize,
    /// Resamples, seed and confidence of every interval.
    pub bootstrap: Bootstrap,
    /// Configurations measured at a time; 0 counts as 1. Each holds the blocks of its model and its activations in
    /// memory. Numbers do not depend on it, but the times of profiles do. It is faster where single layers are too
    /// small for all cores.
    pub jobs: usize,
    /// Directory of the base's results, to be shared between sweeps. If none, they are in the sweep's own directory.
    pub cache: Option<PathBuf>,
    /// The commit of the program that measures, kept beside every measurement.
    pub commit: Option<String>,
    /// Takes measurements from the store that another [`commit`](Self::commit) made. Otherwise they are refused.
    pub any_commit: bool,
    /// Names and settings to show in the report.
    pub labels: Labels,
    /// The processes that share the work, all on the same directory: the base is evaluated by all of them, then each
    /// measures configurations of its own. The first one writes `results.json`; all return the results.
    pub ranks: Ranks,
}

impl Sweep {
    /// Of these configurations, one at a time, without continuations of prompts. The fields are open to change.
    pub fn new(recipes: impl IntoIterator<Item = Recipe>, calibration: Calibration, evaluation: Evaluation) -> Self {
        Self {
            recipes: recipes.into_iter().collect(),
            calibration,
            evaluation,
            prompts: Vec::new(),
            sample_tokens: 0,
            bootstrap: Bootstrap::default(),
            jobs: 1,
            cache: None,
            commit: None,
            any_commit: false,
            labels: Labels::default(),
            ranks: Ranks::default(),
        }
    }
}

/// Facts that a report shows and that no number depends on.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Name of the model.
    pub model: String,
    /// Name of the calibration text.
    pub calibration: String,
    /// Name of the held-out text.
    pub text: String,
    /// Items of each task at most.
    pub limit: Option<usize>,
    /// The command that was run.
    pub command: Option<String>,
    /// Threads used.
    pub threads: usize,
}

/// The nine configurations a sweep compares unless told otherwise: at each of the paper's three compression rates,
/// quantization only against joint.
///
/// ```
/// let recipes = sparq_sweep::default_recipes("group=64")?;
/// assert_eq!(recipes[0].to_string(), "s=0,q=4,group=64");
/// assert!(recipes.iter().all(|recipe| recipe.tcr() >= 0.75));
/// # Ok::<(), sparq_pipeline::Error>(())
/// ```
///
/// `settings` are appended to each of them.
///
/// # Errors
/// Those of parsing a [`Recipe`].
pub fn default_recipes(settings: &str) -> sparq_pipeline::Result<Vec<Recipe>> {
    let points = [
        "s=0,q=4",
        "s=0.2,q=5",
        "s=0.5,q=8", // TCr 75 %
        "s=0,q=3",
        "s=0.25,q=4",
        "s=0.5,q=6", // TCr 81.25 %
        "s=0,q=2",
        "s=0.3333,q=3",
        "s=0.5,q=4", // TCr 87.5 %
    ];
    points.iter().map(|point| format!("{point},{settings}").parse()).collect()
}

/// A measurement as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Measurement {
    commit: Option<String>,
    compression: Option<CompressionReport>,
    evaluation: EvaluationReport,
    continuations: Vec<String>,
    seconds: f64,
}

impl Sweep {
    /// Measures `model` and every configuration of it, and writes `results.json` into `directory`.
    ///
    /// Each measurement is stored there as soon as it is finished, under a fingerprint of model, recipe, calibration,
    /// evaluation and version; a run that finds it does not repeat it, so a stopped sweep goes on where it was. The
    /// numbers do not depend on the number of threads. Holds the blocks of the base and of [`jobs`](Self::jobs)
    /// configurations in memory.
    ///
    /// # Errors
    /// [`Error`], naming the configuration if there is one to blame; [`Error::OtherCommit`] for a measurement that another
    /// commit made, unless [`any_commit`](Self::any_commit). What was finished before stays stored.
    pub fn run(&self, model: &Model, directory: &Path, observer: &dyn Observer) -> Result<SweepResults> {
        if self.recipes.is_empty() {
            return Err(Error::NoConfigurations);
        }
        for recipe in &self.recipes {
            sparq_pipeline::Plan::new(model, recipe, Some(&self.calibration)).map_err(compression_error(recipe))?;
        }
        let store = Store::open(directory)?;
        let content_hash = model.checkpoint().content_hash()?;
        let common = fingerprint(&[
            env!("CARGO_PKG_VERSION"),
            &identity(model, &content_hash),
            &self.evaluation.fingerprint(),
            &serde_json::to_string(&(&self.prompts, self.sample_tokens))?,
        ]);
        let with_calibration = fingerprint(&[&common, &self.calibration.fingerprint()]);
        let (mut recipes, mut keys): (Vec<&Recipe>, Vec<String>) = (Vec::new(), Vec::new());
        for recipe in &self.recipes {
            let key = fingerprint(&[&with_calibration, &serde_json::to_string(recipe)?]);
            // A recipe that is listed twice is measured once.
            if !keys.contains(&key) {
                keys.push(key);
                recipes.push(recipe);
            }
        }

        let mut model = model.clone();
        let mut baseline: Option<Baseline<Model>> = None;
        let total = recipes.len();
        let first = self.ranks.is_first();
        let base = on_first(&self.ranks, || self.stored(&store, &common, &"the base"))?;
        // Without the base's own results nothing else is taken from the store.
        let stored = on_first(&self.ranks, || match &base {
            Some(_) => keys.iter().zip(&recipes).map(|(key, recipe)| self.stored(&store, key, recipe)).collect(),
            None => Ok(keys.iter().map(|_| None).collect::<Vec<Option<Measurement>>>()),
        })?;
        let left: Vec<usize> = (0..total).filter(|&index| stored[index].is_none()).collect();
        let base = if left.is_empty() && base.is_some() {
            base
        } else {
            observer.step(0, total, &"base");
            model.make_resident()?;
            let start = Instant::now();
            let cache = self.cache.clone().unwrap_or_else(|| directory.join("measurements"));
            let cache = ResultCache::open(&cache)?;
            let together = self.evaluation.clone().with_ranks(self.ranks.clone());
            let fresh = together.baseline_cached(&model, &content_hash, &cache, observer)?;
            let evaluation = self.evaluation.baseline_report(&fresh);
            let continuations = self.continue_prompts(&model)?;
            let seconds = start.elapsed().as_secs_f64();
            let measurement =
                Measurement { commit: self.commit.clone(), compression: None, evaluation, continuations, seconds };
            if first {
                store.put(&common, &measurement)?;
            }
            baseline = Some(fresh);
            on_first(&self.ranks, || Ok::<_, Error>(Some(measurement)))?
        };
        let Some(base) = base else { return Err(Error::NoConfigurations) };
        let own: Vec<usize> = left.iter().copied().skip(self.ranks.rank()).step_by(self.ranks.size()).collect();
        let judge = |index: usize, measurement: &Measurement, reused: bool| -> Result<_> {
            let judged = self.result(recipes[index], measurement, &base, reused)?;
            observer.note(&judged.0);
            Ok(judged)
        };
        let measure = |at: usize| -> Result<_> {
            let index = own[at];
            observer.step(index + 1, total, recipes[index]);
            let fresh = self.measure(&model, recipes[index], baseline.as_ref(), observer)?;
            store.put(&keys[index], &fresh)?;
            let judged = judge(index, &fresh, false)?;
            Ok(((index, fresh), (index, judged)))
        };
        let mut measured: BTreeMap<usize, (ConfigurationResult, Judged)> = BTreeMap::new();
        for (index, stored) in stored.iter().enumerate() {
            if let Some(stored) = stored {
                measured.insert(index, judge(index, stored, true)?);
            }
        }
        let (fresh, of_own): (Vec<_>, Vec<_>) = run_jobs(own.len(), self.jobs, measure)?.into_iter().unzip();
        measured.extend(of_own);
        for (index, fresh) in self.of_others(&fresh)? {
            measured.insert(index, judge(index, &fresh, false)?);
        }
        let (configurations, judged): (Vec<_>, Vec<_>) = measured.into_values().unzip();
        let results = self.results(&model, content_hash, with_calibration, &base, configurations, &judged)?;
        if first {
            write_file(directory.join("results.json"), &serde_json::to_vec_pretty(&results)?)?;
        }
        Ok(results)
    }

    /// What the other processes have measured.
    fn of_others(&self, own: &[(usize, Measurement)]) -> Result<Vec<(usize, Measurement)>> {
        let mut others = Vec::new();
        if !self.ranks.is_alone() {
            let messages = self.ranks.gather(serde_json::to_vec(own)?)?.into_iter().enumerate();
            for (_, message) in messages.filter(|(rank, _)| *rank != self.ranks.rank()) {
                let of_rank: Vec<(usize, Measurement)> = serde_json::from_slice(&message)?;
                others.extend(of_rank);
            }
        }
        Ok(others)
    }

    fn measure(
        &self,
        model: &Model,
        recipe: &Recipe,
        baseline: Option<&Baseline<Model>>,
        observer: &dyn Observer,
    ) -> Result<Measurement> {
        let (compressed, compression) = compressed(model, recipe, &self.calibration, observer)?;
        let start = Instant::now();
        let judged = || -> Result<_> {
            let evaluation = self.evaluation.evaluate(&compressed, baseline, observer)?;
            Ok((evaluation, self.continue_prompts(&compressed)?))
        };
        let (evaluation, continuations) = judged().map_err(judging_error(recipe))?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Measurement {
            commit: self.commit.clone(),
            compression: Some(compression),
            evaluation,
            continuations,
            seconds,
        })
    }

    /// A measurement of an earlier run, if this one may use it.
    fn stored(&self, store: &Store, key: &str, what: &dyn Display) -> Result<Option<Measurement>> {
        let found: Option<Measurement> = store.get(key);
        match &found {
            Some(found) if found.commit != self.commit && !self.any_commit => {
                let named = |commit: &Option<String>| commit.clone().unwrap_or_else(|| "an unnamed program".into());
                Err(Error::OtherCommit { what: what.to_string(), by: named(&found.commit), now: named(&self.commit) })
            }
            _ => Ok(found),
        }
    }

    fn continue_prompts(&self, model: &Model) -> Result<Vec<String>> {
        let prompts: Vec<&str> = self.prompts.iter().map(String::as_str).collect();
        Ok(continue_greedily(model, &prompts, self.sample_tokens)?)
    }

    fn facts(&self, task: &Task) -> TaskFacts {
        let definition = task.definition();
        TaskFacts {
            name: task.name().to_owned(),
            group: definition.group.clone(),
            items: task.items().len(),
            skipped: task.skipped().len(),
            shots: definition.shots.count,
            mirrors: definition.mirrors.clone(),
            source: definition.source.clone(),
            licence: definition.licence.clone(),
            fingerprint: task.fingerprint(self.evaluation.options()),
        }
    }

    fn result(
        &self,
        recipe: &Recipe,
        measurement: &Measurement,
        base: &Measurement,
        reused: bool,
    ) -> Result<(ConfigurationResult, Judged)> {
        let (sparsity, bits) = (recipe.mean_sparsity(), recipe.mean_bits());
        let scores = paired_scores(&base.evaluation.tasks, &measurement.evaluation.tasks)?;
        let (retention, retention_missing) = match retention(&scores, &self.bootstrap) {
            Ok(retention) => (Some(retention), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let compression = measurement.compression.as_ref();
        let coded = compression.map_or(16.0, |report| report.coded_bits_per_weight);
        let srcr = |form: SrcrForm, bits: f64| {
            retention.as_ref().map(|retention| form.score(retention.sr, sparsity, bits)).transpose()
        };
        let (srcr, srcr_tcr, srcr_measured) =
            (srcr(SrcrForm::SqrtLog, bits)?, srcr(SrcrForm::Tcr, bits)?, srcr(SrcrForm::Measured, coded)?);
        let text = measurement.evaluation.text.as_ref();
        let comparison = text.and_then(|text| text.base.as_ref());
        let ratio = text.map(|text| text.perplexity_ratio_interval(&self.bootstrap)).transpose()?.flatten();
        let finite = text.filter(|_| comparison.is_some_and(|comparison| comparison.mean_kl.is_finite()));
        let kl_interval = finite.map(|text| text.kl_interval(&self.bootstrap)).transpose()?.flatten();
        let samples = self.prompts.iter().zip(&base.continuations).zip(&measurement.continuations);
        let result = ConfigurationResult {
            recipe: recipe.to_string(),
            settings: Recipe::keys().map(|key| (key.name.to_owned(), key.get(recipe))).collect(),
            commit: measurement.commit.clone(),
            family: match (sparsity == 0.0, recipe.bits.is_some() || recipe.rate.is_some()) {
                (true, _) => Family::Quantization,
                (false, false) => Family::Pruning,
                (false, true) => Family::Joint,
            },
            allocated: recipe.allocation.is_some(),
            sparsity,
            pattern: match recipe.sparsity {
                Sparsity::NOfM { .. } => recipe.sparsity.to_string(),
                _ => "unstructured".to_owned(),
            },
            bits,
            tcr: recipe.tcr(),
            measured_sparsity: compression.map_or(0.0, |report| report.measured_sparsity),
            bits_per_weight: compression.map_or(16.0, |report| report.bits_per_weight),
            coded_bits_per_weight: coded,
            model_bits_per_weight: compression.map_or(16.0, CompressionReport::model_bits_per_weight),
            perplexity: text.map_or(f64::NAN, |text| text.perplexity),
            perplexity_ratio: ratio,
            kl: comparison.map_or(f64::NAN, |comparison| comparison.mean_kl),
            kl_interval,
            top1_agreement: comparison.map_or(f64::NAN, |comparison| comparison.top1_agreement),
            tasks: accuracies(&measurement.evaluation.tasks),
            retention,
            retention_missing,
            srcr,
            srcr_tcr,
            srcr_measured,
            compress_seconds: compression.map_or(0.0, |report| report.seconds),
            profile: compression.map(|report| report.profile.clone()).unwrap_or_default(),
            evaluate_seconds: measurement.seconds,
            layers: compression.map(|report| report.layers.clone()).unwrap_or_default(),
            reused,
            samples: samples
                .map(|((prompt, base), compressed)| Sample {
                    prompt: prompt.clone(),
                    base: base.clone(),
                    compressed: compressed.clone(),
                })
                .collect(),
        };
        Ok((result, Judged { tasks: scores, text: text.cloned() }))
    }

    fn results(
        &self,
        model: &Model,
        content_hash: String,
        fingerprint: String,
        base: &Measurement,
        configurations: Vec<ConfigurationResult>,
        judged: &[Judged],
    ) -> Result<SweepResults> {
        let text = base.evaluation.text.as_ref();
        let verdicts = verdicts(&configurations, judged, &self.bootstrap);
        let srcr = |index: &usize| configurations[*index].srcr.unwrap_or(f64::NEG_INFINITY);
        let best_srcr = (0..configurations.len())
            .filter(|index| configurations[*index].srcr.is_some())
            .max_by(|x, y| srcr(x).total_cmp(&srcr(y)).then(y.cmp(x)));
        Ok(SweepResults {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: ModelFacts {
                name: self.labels.model.clone(),
                architecture: model.config().model_type.clone(),
                content_hash,
                parameters: model.parameters(),
                compressed_weights: configurations
                    .first()
                    .map_or(0, |first| first.layers.iter().map(|layer| layer.weights).sum()),
                blocks: model.block_count(),
            },
            settings: SettingsFacts {
                calibration: self.labels.calibration.clone(),
                calibration_sequences: self.calibration.sequences().len(),
                calibration_tokens: self.calibration.tokens(),
                text: self.labels.text.clone(),
                text_tokens: text.map_or(0, |text| text.tokens),
                window: self.evaluation.text().map_or(0, |text| text.settings().length),
                limit: self.labels.limit,
                tasks: self.evaluation.tasks().iter().map(|task| self.facts(task)).collect(),
                seed: self.bootstrap.seed,
                resamples: self.bootstrap.resamples,
                fingerprint,
                command: self.labels.command.clone(),
            },
            machine: MachineFacts {
                platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
                processor: processor(),
                threads: self.labels.threads,
            },
            base: BaseResult {
                perplexity: text.map_or(f64::NAN, |text| text.perplexity),
                tasks: accuracies(&base.evaluation.tasks),
                seconds: base.seconds,
            },
            comparisons: comparisons(&verdicts),
            verdicts,
            differences: differences(&configurations, judged, &self.bootstrap)?,
            best_srcr,
            configurations,
        })
    }
}

/// The compressed model and the report of its compression.
pub(crate) fn compressed(
    model: &Model,
    recipe: &Recipe,
    calibration: &Calibration,
    observer: &dyn Observer,
) -> Result<(Model, CompressionReport)> {
    let job = Compress::new(model).recipe(recipe.clone()).calibration(calibration).observer(observer);
    job.in_memory().map_err(compression_error(recipe))
}

pub(crate) fn compression_error(recipe: &Recipe) -> impl FnOnce(sparq_pipeline::Error) -> Error + '_ {
    move |cause| Error::Compression { recipe: recipe.to_string(), cause }
}

pub(crate) fn judging_error(recipe: &Recipe) -> impl FnOnce(Error) -> Error + '_ {
    move |cause| Error::Judging { recipe: recipe.to_string(), cause: Box::new(cause) }
}

/// Scores of single tasks and of groups, these with their tasks.
fn accuracies(results: &[TaskResult]) -> Vec<TaskAccuracy> {
    let single = |task: &TaskResult| TaskAccuracy {
        name: task.name.clone(),
        items: task.items.len(),
        accuracy: task.accuracy,
        standard_error: task.standard_error.unwrap_or(f64::NAN),
        chance: task.chance,
        members: Vec::new(),
    };
    let pooled = pool(results).into_iter().map(|task| TaskAccuracy {
        items: task.scores.len(),
        accuracy: task.accuracy,
        standard_error: task.standard_error.unwrap_or(f64::NAN),
        chance: task.chance,
        members: results.iter().filter(|result| result.group.as_ref() == Some(&task.name)).map(single).collect(),
        name: task.name,
    });
    pooled.collect()
}

/// Name of the processor, if the system provides it.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
