use serde::{Deserialize, Serialize};
use sparq_metric::{Interval, Retention};
use sparq_pipeline::{LayerReport, Profile};
use std::collections::BTreeMap;
use std::fmt;

/// The results of a sweep, as `results.json` holds them. Rates and accuracies are fractions, not percentages;
/// logarithms are natural.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepResults {
    /// Version of the crate that made it.
    pub version: String,
    /// The model.
    pub model: ModelFacts,
    /// Calibration and evaluation.
    pub settings: SettingsFacts,
    /// The machine.
    pub machine: MachineFacts,
    /// The uncompressed model.
    pub base: BaseResult,
    /// Every configuration, in the order asked for.
    pub configurations: Vec<ConfigurationResult>,
    /// The best configuration at each compression rate.
    pub verdicts: Vec<Verdict>,
    /// A paragraph on the number of comparisons and what it means for the verdicts.
    pub comparisons: String,
    /// Every two configurations at one compression rate, or of as many stored bits.
    pub differences: Vec<PairedDifference>,
    /// The configuration with the largest SrCr, as an index into `configurations`.
    pub best_srcr: Option<usize>,
}

/// The model that was compressed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// A name to show.
    pub name: String,
    /// Architecture, such as `llama`.
    pub architecture: String,
    /// SHA-256 of its files.
    pub content_hash: String,
    /// All parameters.
    pub parameters: usize,
    /// Weights of the linear layers that are compressed.
    pub compressed_weights: usize,
    /// Transformer blocks.
    pub blocks: usize,
}

/// Calibration and evaluation, enough to repeat them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsFacts {
    /// Name of the calibration text.
    pub calibration: String,
    /// Calibration sequences.
    pub calibration_sequences: usize,
    /// Calibration tokens.
    pub calibration_tokens: usize,
    /// Name of the text for perplexity and KL.
    pub text: String,
    /// Tokens scored on it.
    pub text_tokens: usize,
    /// Length of a perplexity window, in tokens.
    pub window: usize,
    /// Items of each task at most.
    pub limit: Option<usize>,
    /// What each task is.
    pub tasks: Vec<TaskFacts>,
    /// Seed of calibration sampling, task subsets and bootstrap.
    pub seed: u64,
    /// Bootstrap resamples.
    pub resamples: usize,
    /// SHA-256 over everything that decides the numbers but the configuration.
    pub fingerprint: String,
    /// The command that made this, if one did.
    pub command: Option<String>,
}

/// A task, enough to find it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Name.
    pub name: String,
    /// The group that it counts in.
    pub group: Option<String>,
    /// Items scored.
    pub items: usize,
    /// Records of the data that cannot be asked.
    pub skipped: usize,
    /// Worked examples in front of every prompt.
    pub shots: usize,
    /// The task of lm-evaluation-harness that it follows.
    pub mirrors: String,
    /// Where the data comes from.
    pub source: String,
    /// Licence of the data.
    pub licence: String,
    /// SHA-256 over definition, items and options.
    pub fingerprint: String,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// Operating system and processor architecture.
    pub platform: String,
    /// Processor, if known.
    pub processor: Option<String>,
    /// Threads used.
    pub threads: usize,
}

/// Score of one task, or of the tasks of a group together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskAccuracy {
    /// Name.
    pub name: String,
    /// Items scored.
    pub items: usize,
    /// Fraction right.
    pub accuracy: f64,
    /// Its standard error.
    #[serde(deserialize_with = "nan_if_null")]
    pub standard_error: f64,
    /// Accuracy of guessing.
    pub chance: f64,
    /// Of a group, its tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<TaskAccuracy>,
}

/// The uncompressed model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseResult {
    /// Perplexity on the text.
    #[serde(deserialize_with = "nan_if_null")]
    pub perplexity: f64,
    /// Every task.
    pub tasks: Vec<TaskAccuracy>,
    /// Wall time of its evaluation.
    pub seconds: f64,
}

/// The kind of a configuration. The paper compares quantization only with joint compression at equal rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Only quantized.
    Quantization,
    /// Only pruned.
    Pruning,
    /// Both.
    Joint,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quantization => "quantization only",
            Self::Pruning => "pruning only",
            Self::Joint => "joint",
        })
    }
}

/// One configuration, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationResult {
    /// The recipe in text form, such as `s=0.25,q=4,group=64`.
    pub recipe: String,
    /// Every setting of it, by name, the preset's included.
    pub settings: BTreeMap<String, String>,
    /// The commit of the program that measured it, if known.
    pub commit: Option<String>,
    /// Its family.
    pub family: Family,
    /// Whether sparsity and bits differ from layer to layer. If so, the values below are means.
    pub allocated: bool,
    /// Requested sparsity.
    pub sparsity: f64,
    /// `unstructured` or `kept:of`.
    pub pattern: String,
    /// Bits of a weight that stays; 16 if not quantized.
    pub bits: f64,
    /// Theoretical compression rate.
    pub tcr: f64,
    /// Fraction of exact zeros at the end.
    pub measured_sparsity: f64,
    /// Stored bits for each weight, scales and zero points included.
    pub bits_per_weight: f64,
    /// The same in a coded file, where a code takes as many bits as it is rare. One minus a sixteenth of it is the measured
    /// compression rate (MCr).
    pub coded_bits_per_weight: f64,
    /// Coded bits of the whole model for each of its parameters; what is not compressed counts 16 bits.
    pub model_bits_per_weight: f64,
    /// Perplexity on the text.
    #[serde(deserialize_with = "nan_if_null")]
    pub perplexity: f64,
    /// Interval of perplexity divided by the base's, paired by window.
    pub perplexity_ratio: Option<Interval>,
    /// Mean KL(base || compressed) for each token, in nats.
    #[serde(deserialize_with = "nan_if_null")]
    pub kl: f64,
    /// Its interval, windows of the text being resampled.
    pub kl_interval: Option<Interval>,
    /// Fraction of tokens whose most likely successor is the base's.
    #[serde(deserialize_with = "nan_if_null")]
    pub top1_agreement: f64,
    /// Every task.
    pub tasks: Vec<TaskAccuracy>,
    /// Sr, for each task and overall, with intervals. None if no task is clearly above chance on the base.
    pub retention: Option<Retention>,
    /// Why there is no retention.
    pub retention_missing: Option<String>,
    /// SrCr in the square-root and logarithm form.
    pub srcr: Option<f64>,
    /// SrCr as Sr · TCr.
    pub srcr_tcr: Option<f64>,
    /// SrCr as Sr · MCr.
    pub srcr_measured: Option<f64>,
    /// Wall time of compression.
    pub compress_seconds: f64,
    /// The time of each phase. Memory is the peak of the whole process until then.
    pub profile: Profile,
    /// Wall time of evaluation.
    pub evaluate_seconds: f64,
    /// Every layer.
    pub layers: Vec<LayerReport>,
    /// Whether it was taken from an earlier run with the same fingerprint.
    pub reused: bool,
    /// Continuations of the same prompts: prompt, base, compressed.
    pub samples: Vec<Sample>,
}

impl ConfigurationResult {
    /// Measured compression rate, `1 - b / 16` for `b` coded bits a weight of the compressed layers.
    pub fn mcr(&self) -> f64 {
        1.0 - self.coded_bits_per_weight / 16.0
    }
}

impl fmt::Display for ConfigurationResult {
    /// One line: `s=0.25,q=4: perplexity 33.50, KL 0.1650, Sr 0.906`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: perplexity {:.2}, KL {:.4}, ", self.recipe, self.perplexity, self.kl)?;
        match &self.retention {
            Some(kept) => write!(f, "Sr {:.3}", kept.sr)?,
            None => f.write_str("no Sr")?,
        }
        f.write_str(if self.reused { " (measured before)" } else { "" })
    }
}

/// JSON has no NaN or infinity: they are written as null, which comes back as NaN.
fn nan_if_null<'a, D: serde::Deserializer<'a>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// A prompt continued by both models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// The base's continuation.
    pub base: String,
    /// The compressed model's continuation.
    pub compressed: String,
}

/// The best configuration at one compression rate, compared with another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The theoretical compression rate.
    pub tcr: f64,
    /// The configuration with the largest Sr (the smallest KL where there is no Sr), as an index.
    pub winner: usize,
    /// The best configuration of another family at this rate; where all are of one family, the second best.
    pub runner_up: Option<usize>,
    /// Interval of the difference of their Sr.
    pub difference: Option<Interval>,
    /// Two-sided bootstrap p-value of no difference in Sr.
    pub p_value: Option<f64>,
    /// The same, adjusted by Holm for all verdicts.
    pub adjusted_p_value: Option<f64>,
    /// McNemar's exact test of the two on every task that counts.
    pub tests: Vec<TaskTest>,
    /// The verdict as a sentence.
    pub sentence: String,
}

/// What two configurations have in common.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Equal {
    /// This theoretical compression rate.
    Tcr(f64),
    /// This many stored bits a weight, at different rates.
    StoredBits(f64),
}

impl fmt::Display for Equal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcr(rate) => write!(f, "TCr {:.2} %", 100.0 * rate),
            Self::StoredBits(bits) => write!(f, "{bits:.2} stored bits"),
        }
    }
}

/// The difference between two comparable configurations, paired by window and by item. It is not adjusted for the number of
/// pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// What makes them comparable.
    pub equal: Equal,
    /// One of the two, as an index.
    pub first: usize,
    /// The other.
    pub second: usize,
    /// KL of the first less that of the second, nats a token.
    pub kl: Option<Difference>,
    /// Sr of the first less that of the second.
    pub sr: Option<Difference>,
    /// Two-sided bootstrap p-value of no difference in Sr.
    pub sr_p_value: Option<f64>,
}

/// A difference with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// As measured.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Interval,
}

/// McNemar's exact test of two configurations on one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskTest {
    /// Name of the task.
    pub task: String,
    /// Items that only the winner gets right.
    pub only_winner: usize,
    /// Items that only the other gets right.
    pub only_other: usize,
    /// Two-sided p-value.
    pub p_value: f64,
    /// The same, adjusted by Holm for all tests of all verdicts.
    pub adjusted_p_value: f64,
}
