//! Solver settings as command-line flags, shared by `compress` and `layer`.

use clap::Args;
use sparq::pipeline::{Recipe, Targets};

/// How weights are pruned and quantized. Flags that name a published method (`--pruner`, `--quantizer`, `--pipeline`,
/// `--reference-compat`) start from `--preset reference` unless another preset is given.
#[derive(Debug, Clone, Args)]
pub(crate) struct SolverArgs {
    /// How much work: fast, balanced, best, or reference (the published methods, nothing added) [default: balanced]
    #[arg(long)]
    preset: Option<String>,
    /// Fraction of the weights to remove, 0 <= S < 1 [default: 0.25, or what the pattern says]
    #[arg(long, value_name = "S")]
    sparsity: Option<f64>,
    /// `unstructured`, or kept:of such as 2:4 or 6:8
    #[arg(long, default_value = "unstructured")]
    pattern: String,
    /// Bits per weight, 2 to 8; 16 does not quantize
    #[arg(long, default_value_t = 4)]
    bits: u8,
    /// Input channels sharing a scale, or `channel`, `tensor`
    #[arg(long, default_value = "128")]
    group_size: String,
    /// Give each group a zero point
    #[arg(long)]
    asymmetric: bool,
    /// Number type scales are rounded to before codes are chosen: f16, bf16, f32 [default: f16; f32 with
    /// --reference-compat]
    #[arg(long)]
    scale_type: Option<String>,
    /// How weights to remove are chosen: magnitude, wanda, obs, sparsegpt
    #[arg(long)]
    pruner: Option<String>,
    /// How weights are rounded: rtn, gptq
    #[arg(long)]
    quantizer: Option<String>,
    /// How pruning and rounding are put together: sequential-a, sequential-b, joint
    #[arg(long)]
    pipeline: Option<String>,
    /// How the range of a group is found: minmax, mse
    #[arg(long)]
    clip: Option<String>,
    /// Visit the most active channels first (static groups)
    #[arg(long)]
    act_order: bool,
    /// Steps that refit the kept weights together before they are rounded
    #[arg(long, value_name = "STEPS")]
    refit: Option<usize>,
    /// Rounds of coordinate descent over scales and codes after rounding
    #[arg(long, value_name = "ROUNDS")]
    descent: Option<usize>,
    /// Share of the drift from the dense model that a layer is asked to undo, 0 to 1
    #[arg(long, value_name = "SHARE")]
    drift: Option<f64>,
    /// What the model is run in on calibration text: f32 or bf16 (faster where the processor multiplies bfloat16)
    /// [default: f32]
    #[arg(long, value_name = "PRECISION")]
    forward: Option<String>,
    /// What each of a mixture of experts is calibrated on: routed (the tokens sent to it) or all [default: routed]
    #[arg(long, value_name = "TOKENS")]
    expert_tokens: Option<String>,
    /// Added to the diagonal of the Hessian, times its mean [default: 0.01]
    #[arg(long)]
    damping: Option<f64>,
    /// Added to damping, times a layer's input channels over its calibration tokens [default: by preset]
    #[arg(long)]
    shrinkage: Option<f64>,
    /// Share of the calibration text, 0 to 0.5, by which damping is chosen around these two [default: by preset]
    #[arg(long, value_name = "SHARE")]
    held_out: Option<f64>,
    /// Reproduce the reference implementations, quirks included
    #[arg(long)]
    reference_compat: bool,
}

impl SolverArgs {
    /// Whether weights were asked to be removed.
    pub(crate) fn prunes(&self) -> bool {
        self.sparsity.is_some() || self.pattern != "unstructured"
    }

    /// What concerns whole models only, if it was given.
    #[allow(dead_code, reason = "of a single layer alone")]
    pub(crate) fn of_models(&self) -> Option<&'static str> {
        let given = [
            ("--drift", self.drift.is_some()),
            ("--held-out", self.held_out.is_some()),
            ("--forward", self.forward.is_some()),
            ("--expert-tokens", self.expert_tokens.is_some()),
        ];
        given.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag))
    }

    /// The recipe, checked.
    pub(crate) fn recipe(&self, targets: Targets) -> sparq::Result<Recipe> {
        let mut settings = vec![format!("q={},group={},pattern={}", self.bits, self.group_size, self.pattern)];
        let mut put = |key: &str, value: Option<String>| settings.extend(value.map(|value| format!("{key}={value}")));
        let scale = self.scale_type.clone().or_else(|| self.reference_compat.then(|| "f32".to_owned()));
        let default_sparsity = (self.pattern == "unstructured").then_some(0.25);
        put("preset", self.preset.clone());
        put("s", self.sparsity.or(default_sparsity).map(|s| s.to_string()));
        put("asymmetric", self.asymmetric.then(|| "true".to_owned()));
        put("scale", scale);
        put("pruner", self.pruner.clone());
        put("quantizer", self.quantizer.clone());
        put("pipeline", self.pipeline.clone());
        put("clip", self.clip.clone());
        put("act-order", self.act_order.then(|| "true".to_owned()));
        put("refit", self.refit.map(|steps| steps.to_string()));
        put("descent", self.descent.map(|rounds| rounds.to_string()));
        put("drift", self.drift.map(|share| share.to_string()));
        put("forward", self.forward.clone());
        put("expert-tokens", self.expert_tokens.clone());
        put("damping", self.damping.map(|damping| damping.to_string()));
        put("shrinkage", self.shrinkage.map(|shrinkage| shrinkage.to_string()));
        put("held-out", self.held_out.map(|share| share.to_string()));
        put("reference-compat", self.reference_compat.then(|| "true".to_owned()));
        Ok(Recipe { targets, ..settings.join(",").parse()? })
    }
}
