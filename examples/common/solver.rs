//! Solver settings as command-line flags, shared by `compress` and `layer`.

use clap::{Args, ValueEnum};
use sparq::model::ExpertTokens;
use sparq::pipeline::{PipelineKind, PrunerKind, QuantizerKind, Recipe, Targets};
use sparq::quant::Clip;
use sparq::{Bits, CompressError, Granularity, Sparsity};
use std::str::FromStr;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pruner {
    Magnitude,
    Wanda,
    Sparsegpt,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Quantizer {
    Rtn,
    Gptq,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pipeline {
    SequentialA,
    SequentialB,
    Joint,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClipKind {
    Minmax,
    Mse,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scale {
    F16,
    Bf16,
    F32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Experts {
    Routed,
    All,
}

/// How weights are pruned and quantized.
#[derive(Debug, Clone, Args)]
pub(crate) struct SolverArgs {
    /// Fraction of the weights to remove, 0 <= S < 1 [default: 0.25, or what the pattern says]
    #[arg(long, value_name = "S")]
    sparsity: Option<f64>,
    /// `unstructured`, or kept:of such as 2:4 or 6:8
    #[arg(long, default_value = "unstructured")]
    pattern: String,
    /// How weights to remove are chosen
    #[arg(long, value_enum, default_value = "sparsegpt")]
    pruner: Pruner,
    /// Bits per weight, 2 to 8; 16 does not quantize
    #[arg(long, default_value_t = 4)]
    bits: u8,
    /// Input channels sharing a scale, or `channel`, `tensor`
    #[arg(long, default_value = "128")]
    group_size: String,
    /// Give each group a zero point
    #[arg(long)]
    asymmetric: bool,
    /// Visit the most active channels first (static groups)
    #[arg(long)]
    act_order: bool,
    /// Number type scales are rounded to before codes are chosen [default: f16; f32 with --reference-compat]
    #[arg(long, value_enum)]
    scale_type: Option<Scale>,
    /// How weights are rounded
    #[arg(long, value_enum, default_value = "gptq")]
    quantizer: Quantizer,
    /// How the range of a group is found
    #[arg(long, value_enum, default_value = "minmax")]
    clip: ClipKind,
    /// How pruning and rounding are put together [default: joint; sequential-b with rtn]
    #[arg(long, value_enum)]
    pipeline: Option<Pipeline>,
    /// Steps that refit the kept weights together before they are rounded (with sequential pipelines)
    #[arg(long, default_value_t = 0)]
    refit: usize,
    /// Added to the diagonal of the Hessian, times its mean
    #[arg(long, default_value_t = 0.01)]
    damping: f64,
    /// What each of a mixture of experts is calibrated on: the tokens sent to it, or all
    #[arg(long, value_enum, default_value = "routed")]
    expert_tokens: Experts,
    /// Reproduce the reference implementations, quirks included
    #[arg(long)]
    reference_compat: bool,
}

impl SolverArgs {
    /// The recipe, checked.
    pub(crate) fn recipe(&self, targets: Targets) -> sparq::Result<Recipe> {
        let sparsity = match (self.pattern.as_str(), self.sparsity) {
            ("unstructured", fraction) => Sparsity::unstructured(fraction.unwrap_or(0.25))?,
            (pattern, fraction) => {
                let pattern = Sparsity::from_str(pattern)?;
                if let Some(fraction) = fraction.filter(|fraction| (fraction - pattern.fraction()).abs() > 1e-9) {
                    return Err(CompressError::Conflict {
                        first: format!("--sparsity {fraction}"),
                        second: format!("--pattern {pattern}"),
                        reason: format!("the pattern removes {}; leave --sparsity out", pattern.fraction()),
                    }
                    .into());
                }
                pattern
            }
        };
        let scheme = if self.bits == 16 {
            None
        } else {
            let mut scheme = Recipe::default_scheme(Bits::new(self.bits)?);
            scheme.granularity = match self.group_size.as_str() {
                "channel" => Granularity::Channel,
                "tensor" => Granularity::Tensor,
                size => {
                    scheme
                        .group(size.parse().map_err(|_| CompressError::Setting {
                            name: "--group-size",
                            value: size.to_owned(),
                            expected: "a number of channels, `channel` or `tensor`".into(),
                        })?)?
                        .granularity
                }
            };
            if self.reference_compat {
                scheme.scale_type = sparq::ScaleType::F32;
            }
            if let Some(scale) = self.scale_type {
                scheme.scale_type = match scale {
                    Scale::F16 => sparq::ScaleType::F16,
                    Scale::Bf16 => sparq::ScaleType::Bf16,
                    Scale::F32 => sparq::ScaleType::F32,
                };
            }
            scheme.symmetric = !self.asymmetric;
            Some(scheme)
        };
        let recipe = Recipe {
            sparsity,
            pruner: match self.pruner {
                Pruner::Magnitude => PrunerKind::Magnitude,
                Pruner::Wanda => PrunerKind::Wanda,
                Pruner::Sparsegpt => PrunerKind::SparseGpt,
            },
            scheme,
            quantizer: match self.quantizer {
                Quantizer::Rtn => QuantizerKind::Rtn,
                Quantizer::Gptq => QuantizerKind::Gptq,
            },
            clip: match self.clip {
                ClipKind::Minmax => Clip::MinMax,
                ClipKind::Mse => Clip::Mse,
            },
            act_order: self.act_order,
            pipeline: self.pipeline.map(|pipeline| match pipeline {
                Pipeline::SequentialA => PipelineKind::SequentialA,
                Pipeline::SequentialB => PipelineKind::SequentialB,
                Pipeline::Joint => PipelineKind::Joint,
            }),
            refit: self.refit,
            damping: self.damping,
            expert_tokens: match self.expert_tokens {
                Experts::Routed => ExpertTokens::Routed,
                Experts::All => ExpertTokens::All,
            },
            reference_compat: self.reference_compat,
            targets,
        };
        recipe.compressor()?;
        Ok(recipe)
    }
}
