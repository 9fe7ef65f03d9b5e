//! Settings of how layers are solved as command-line flags, shared by `compress` and `layer`.

use anyhow::{Context, Result};
use clap::Args;
use sparq::Recipe;
use sparq::pipeline::Targets;

/// How weights are pruned and quantized. Named by halves: flags of pruning alone only prune, flags of rounding alone only
/// round, and none of them is the recommended mix, 25 % and 4 bits.
#[derive(Debug, Clone, Args)]
pub(crate) struct SolverArgs {
    /// How much work: fast, balanced, best, or reference (published methods, nothing added) [default: balanced; reference
    /// if --pruner, --quantizer or --pipeline names a method]
    #[arg(long)]
    preset: Option<String>,
    /// Weights to remove: a fraction such as 0.25, or kept:of such as 2:4 [default: 0.25 where weights are removed]
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    sparsity: Option<String>,
    /// Bits per weight, 2 to 8; 16 does not quantize [default: 4 where weights are quantized]
    #[arg(long, allow_negative_numbers = true)]
    bits: Option<u8>,
    /// Bits a weight once codes are entropy-coded, such as 3.25, instead of a width; for --format coded
    #[arg(long, value_name = "RATE", allow_negative_numbers = true, conflicts_with = "bits")]
    bits_per_weight: Option<f64>,
    /// Input channels that share a scale, or `channel` (what others write as -1), `tensor` [default: 128; those of
    /// the block types for --format gguf]
    #[arg(long, allow_hyphen_values = true)]
    group_size: Option<String>,
    /// Give each group a zero point
    #[arg(long)]
    asymmetric: bool,
    /// How weights to remove are chosen: magnitude, wanda, obs, sparsegpt
    #[arg(long)]
    pruner: Option<String>,
    /// How weights are rounded: rtn, gptq
    #[arg(long)]
    quantizer: Option<String>,
    /// How pruning and rounding are put together: sequential-a, sequential-b, joint
    #[arg(long)]
    pipeline: Option<String>,
    /// Visit the most active channels first
    #[arg(long)]
    act_order: bool,
    /// Any other setting of a recipe, such as damping=0.1; may be repeated. --help lists them
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', long_help = every_key())]
    set: Vec<String>,
}

/// The help of `--set`, from the table of keys.
fn every_key() -> String {
    let keys = Recipe::keys().map(|key| format!("  {:<17}{}", key.name, key.meaning));
    let keys: Vec<String> = keys.collect();
    format!("Any setting of a recipe; may be repeated. The keys are:\n{}", keys.join("\n"))
}

/// Keys that say that weights are removed.
const OF_PRUNING: [&str; 2] = ["s", "pruner"];
/// Keys that say that weights are rounded.
const OF_ROUNDING: [&str; 7] = ["q", "rate", "group", "asymmetric", "scale", "ggml", "quantizer"];
/// Keys that concern whole models only.
const OF_MODELS: [&str; 4] = ["drift", "held-out", "forward", "expert-tokens"];

impl SolverArgs {
    /// Every setting that was given, in the words of a recipe.
    fn settings(&self) -> Result<Vec<(&str, String)>> {
        let flag = |on: bool| on.then(|| "true".to_owned());
        let named = [
            ("preset", self.preset.clone()),
            ("s", self.sparsity.clone()),
            ("q", self.bits.map(|bits| bits.to_string())),
            ("rate", self.bits_per_weight.map(|rate| rate.to_string())),
            ("group", self.group_size.clone()),
            ("asymmetric", flag(self.asymmetric)),
            ("pruner", self.pruner.clone()),
            ("quantizer", self.quantizer.clone()),
            ("pipeline", self.pipeline.clone()),
            ("act-order", flag(self.act_order)),
        ];
        let mut settings: Vec<_> = named.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        for setting in &self.set {
            let (key, value) =
                setting.split_once('=').with_context(|| format!("--set {setting}: KEY=VALUE is needed"))?;
            settings.push((key.trim(), value.trim().to_owned()));
        }
        Ok(settings)
    }

    /// Bits a weight once codes are coded, if that was asked for of the model as a whole.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.bits_per_weight
    }

    /// Whether weights were asked to be removed.
    pub(crate) fn prunes(&self) -> bool {
        self.sparsity.is_some()
    }

    /// A setting that concerns whole models only, if one was given.
    pub(crate) fn of_models(&self) -> Result<Option<&str>> {
        Ok(self.settings()?.into_iter().map(|(key, _)| key).find(|key| OF_MODELS.contains(key)))
    }

    /// The recipe, checked; at `rate` if there is one, on the grids of `ggml` if nothing else is said about groups and scales.
    pub(crate) fn recipe(&self, targets: Targets, rate: Option<f64>, ggml: bool) -> Result<Recipe> {
        let mut settings = self.settings()?;
        settings.extend(rate.map(|rate| ("rate", rate.to_string())));
        let names = |keys: &[&str]| settings.iter().any(|(key, _)| keys.contains(key));
        let (prunes, rounds) = (names(&OF_PRUNING), names(&OF_ROUNDING));
        let both = prunes == rounds || names(&["pipeline"]);
        let missing = |key: &str| !names(&[key]);
        let sparsity = missing("s").then_some(if prunes || both { "0.25" } else { "0" });
        let bits = (missing("q") && missing("rate")).then_some(if rounds || both { "4" } else { "16" });
        settings.extend(sparsity.map(|value| ("s", value.to_owned())));
        settings.extend(bits.map(|value| ("q", value.to_owned())));
        let of_grids = ["group", "scale", "ggml"];
        if ggml && !settings.iter().any(|(key, _)| of_grids.contains(key)) {
            settings.push(("ggml", true.to_string()));
        }
        let settings = settings.iter().map(|(key, value)| (*key, value.as_str()));
        Ok(Recipe::from_settings(settings)?.with_targets(targets))
    }
}
