mod allocation;
mod preset;
mod text;

pub use allocation::{Allocation, LayerBudget};
pub use preset::Preset;

use crate::{Result, Targets};
use serde::{Deserialize, Serialize};
use sparq_core::{Bits, CompressError, Granularity, LayerCompressor, QuantScheme, Sparsity, Statistics};
use sparq_joint::{OnePass, SequentialA, SequentialB};
use sparq_model::{ExpertTokens, Precision};
use sparq_obs::{CoordinateDescent, Damping, Refit};
use sparq_prune::{Magnitude, Obs, Pruner, Refitted, SparseGpt, Wanda};
use sparq_quant::{Clip, Descended, Gptq, Quantizer, Rtn};

/// Which pruner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PrunerKind {
    /// [`Magnitude`].
    Magnitude,
    /// [`Wanda`].
    Wanda,
    /// [`Obs`].
    Obs,
    /// [`SparseGpt`].
    #[default]
    #[serde(rename = "sparsegpt")]
    SparseGpt,
}

/// Which quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum QuantizerKind {
    /// [`Rtn`].
    Rtn,
    /// [`Gptq`].
    #[default]
    Gptq,
}

/// How pruning and quantization are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PipelineKind {
    /// [`SequentialA`].
    SequentialA,
    /// [`SequentialB`].
    SequentialB,
    /// [`OnePass`].
    Joint,
}

/// What is done to every linear layer.
///
/// In text form a recipe is a list of settings, as in `s=0.25,q=4,group=64`; [`Display`](std::fmt::Display) writes only
/// what differs from the defaults.
///
/// | key | default | meaning |
/// |---|---|---|
/// | `preset` | balanced | what the settings not given are: `fast`, `balanced`, `best`, `reference` ([`Preset`]) |
/// | `s` | 0 | fraction removed, or `kept:of`; with `pattern=kept:of` the pattern wins |
/// | `pattern` | unstructured | `unstructured` or `kept:of` |
/// | `q` | 16 | bits; 16 leaves weights unquantized |
/// | `group` | 128 | input channels sharing a scale, or `channel`, `tensor` |
/// | `asymmetric` | false | a zero point for each group |
/// | `scale` | f16 | storage type of scales: `f16`, `bf16`, `f32` |
/// | `pruner` | by preset | `magnitude`, `wanda`, `obs`, `sparsegpt` |
/// | `quantizer` | gptq | `rtn`, `gptq` |
/// | `pipeline` | sequential-b; joint if nothing refits and gptq rounds | `sequential-a`, `sequential-b`, `joint` |
/// | `clip` | by preset | how the range of a group is found: `minmax`, `mse` |
/// | `act-order` | false | visit the most active channels first |
/// | `refit` | by preset | steps that refit the kept weights together before they are rounded; not with `pipeline=joint` |
/// | `mask-rounds` | by preset | rounds in which a refitted mask is reached, each choosing among refitted weights |
/// | `descent` | by preset | rounds of coordinate descent over scales and codes after rounding |
/// | `scale-fit` | true | whether descent moves scales as well as codes |
/// | `drift` | by preset | share of the drift from the dense model that a layer is asked to undo, 0 to 1 |
/// | `residual-drift` | true | whether that includes the drift of the residual stream |
/// | `damping` | 0.01 | added to the diagonal of the Hessian, times its mean |
/// | `shrinkage` | by preset | added to damping, times a layer's input channels over its calibration tokens ([`Damping`](sparq_obs::Damping)) |
/// | `held-out` | by preset | share of the calibration text, 0 to 0.5, by which the damping of layers that give to the residual stream is chosen around these two; 0 leaves it at them. Of sequences of one length: it is counted in batches |
/// | `forward` | f32 | what the model is run in for calibration: `f32`, `bf16` ([`Precision`]) |
/// | `reference-compat` | by preset | do as the reference implementations do, quirks included |
/// | `expert-tokens` | routed | what each of a mixture of experts is calibrated on: `routed` (its own tokens), `all` |
///
/// `pruner`, `quantizer`, `pipeline` and `reference-compat` name published methods: a recipe that gives one of them and
/// no preset starts from `reference`, where nothing is added to them.
///
/// # Examples
/// ```
/// use sparq_pipeline::Recipe;
/// let recipe: Recipe = "s=0.25,q=4,group=64".parse()?;
/// assert_eq!(recipe.tcr(), 0.8125);
/// assert_eq!(recipe.to_string(), "s=0.25,q=4,group=64");
/// assert!("s=0.25,bits=4".parse::<Recipe>().is_err()); // the key is q
/// # Ok::<(), sparq_pipeline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default = "reference", deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches, each a key of the text form")]
pub struct Recipe {
    /// How much is removed, in which pattern.
    pub sparsity: Sparsity,
    /// By which pruner.
    pub pruner: PrunerKind,
    /// The grid; none leaves weights unquantized.
    pub scheme: Option<QuantScheme>,
    /// By which quantizer.
    pub quantizer: QuantizerKind,
    /// How ranges are found.
    pub clip: Clip,
    /// Whether the most active channels are visited first.
    pub act_order: bool,
    /// How both are put together; none takes what fits the other settings.
    pub pipeline: Option<PipelineKind>,
    /// Steps of conjugate gradients that refit what the pruner keeps; 0 leaves it at the pruner's weights.
    pub refit: usize,
    /// Rounds in which the mask is reached, each choosing among refitted weights; 1 chooses once.
    pub mask_rounds: usize,
    /// Rounds of coordinate descent after rounding; 0 leaves it at the quantizer's codes.
    pub descent: usize,
    /// Whether descent moves scales as well as codes.
    pub scale_fit: bool,
    /// Share of the drift from the dense model that a layer is asked to undo ([`InputDrift`](sparq_obs::InputDrift)); 0 needs no
    /// second stream of activations.
    pub drift: f64,
    /// Whether that includes the drift of the residual stream.
    pub residual_drift: bool,
    /// Fraction of the mean diagonal added to the Hessian.
    pub damping: f64,
    /// Added to it, times a layer's input channels over its calibration tokens.
    pub shrinkage: f64,
    /// Share of the calibration text that chooses among dampings around this one, stage by stage, by what solutions fitted
    /// to the rest do to it; 0 leaves damping as it is. Only layers that give to the residual stream have such a choice,
    /// those of experts excepted.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_out: f64,
    /// What linear layers are multiplied in while the model runs on calibration text; statistics are always `f32`.
    pub forward: Precision,
    /// Which tokens each of a mixture of experts is calibrated on.
    pub expert_tokens: ExpertTokens,
    /// Reproduce the reference implementations, quirks included.
    pub reference_compat: bool,
    /// Sparsity and bits of single layers, where they are not those above.
    pub allocation: Option<Allocation>,
    /// Which layers.
    pub targets: Targets,
}

impl Default for Recipe {
    fn default() -> Self {
        Preset::default().recipe()
    }
}

/// What a stored recipe means by a setting it does not name: it was written before that setting existed.
fn reference() -> Recipe {
    Preset::Reference.recipe()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// Input channels that share a scale unless a recipe says otherwise.
const DEFAULT_GROUP: usize = 128;
/// Bits of an unquantized weight, the paper's baseline.
const BASELINE_BITS: f64 = 16.0;

impl Recipe {
    /// Bits of a weight that stays; 16 if not quantized.
    pub fn bits(&self) -> u8 {
        self.scheme.map_or(BASELINE_BITS as u8, |scheme| scheme.bits.get())
    }

    /// What the layer of this name gets.
    pub fn budget(&self, layer: &str) -> LayerBudget {
        let own = LayerBudget { sparsity: self.sparsity, bits: self.scheme.map(|scheme| scheme.bits) };
        self.allocation.as_ref().and_then(|allocation| allocation.layers.get(layer)).copied().unwrap_or(own)
    }

    /// The grid of a layer with this budget; none leaves it unquantized.
    pub fn scheme_of(&self, budget: LayerBudget) -> Option<QuantScheme> {
        let grid = self.scheme.unwrap_or_else(|| Self::default_scheme(Bits::B4));
        budget.bits.map(|bits| QuantScheme { bits, ..grid })
    }

    /// The same recipe with this sparsity and these bits for every layer.
    pub fn with_budget(&self, budget: LayerBudget) -> Self {
        let scheme = self.scheme_of(budget);
        Self { sparsity: budget.sparsity, scheme, allocation: None, ..self.clone() }
    }

    /// The same without what takes most of a solve's time (refit, mask rounds, descent), for solutions that are only compared
    /// with one another.
    #[must_use]
    pub fn sketch(&self) -> Self {
        Self { refit: 0, mask_rounds: 1, descent: 0, ..self.clone() }
    }

    /// Mean fraction of weights removed.
    pub fn mean_sparsity(&self) -> f64 {
        self.allocation.as_ref().map_or(self.sparsity.fraction(), |allocation| allocation.sparsity)
    }

    /// Mean bits of a weight that stays; 16 if not quantized.
    pub fn mean_bits(&self) -> f64 {
        self.allocation.as_ref().map_or(f64::from(self.bits()), |allocation| allocation.bits)
    }

    /// Which form of the algorithms these settings mean: larger whenever a change of this crate or of those below it changed what
    /// they make of a model. Two results of equal settings are comparable only at one revision.
    pub fn revision(&self) -> u32 {
        let cuts_patterns = matches!(self.sparsity, Sparsity::NOfM { of, .. } if !128_usize.is_multiple_of(of));
        if (self.act_order && self.descent > 0)
            || self.pruner == PrunerKind::Wanda
            || (self.reference_compat && cuts_patterns)
        {
            // 3: descent moves codes of layers that were rounded in another order of channels too; Wanda goes by magnitudes where
            // nothing was active; blocks of the reference cut no pattern.
            3
        } else if self.held_out > 0.0 {
            // 2: damping climbs from the recipe's own, and only where layers give to the residual stream.
            2
        } else {
            1
        }
    }

    /// Theoretical compression rate, `1 - (1 - s) · q / 16`; of an allocation, that over its layers.
    pub fn tcr(&self) -> f64 {
        if let Some(allocation) = &self.allocation {
            return allocation.tcr;
        }
        1.0 - (1.0 - self.sparsity.fraction()) * f64::from(self.bits()) / BASELINE_BITS
    }

    /// The default grid with this many bits: symmetric, groups of 128, scales in `f16`.
    pub fn default_scheme(bits: Bits) -> QuantScheme {
        QuantScheme::new(bits).granularity(Granularity::Group(DEFAULT_GROUP))
    }

    /// How pruning and quantization are put together, defaults resolved.
    pub fn pipeline_kind(&self) -> PipelineKind {
        self.pipeline.unwrap_or(match self.quantizer {
            QuantizerKind::Gptq if self.refit == 0 => PipelineKind::Joint,
            _ => PipelineKind::SequentialB,
        })
    }

    /// The method; none if the recipe neither prunes nor quantizes.
    ///
    /// # Errors
    /// [`Error::Compress`](crate::Error::Compress) for settings out of range or that cannot be combined.
    pub fn compressor(&self) -> Result<Option<Box<dyn LayerCompressor>>> {
        let method = self.method()?;
        let Some(without_hessian) = method.as_ref().filter(|method| method.needs() < Statistics::Hessian) else {
            return Ok(method);
        };
        let conflict = |first: &str, reason: &str| CompressError::Conflict {
            first: first.into(),
            second: without_hessian.name().into_owned(),
            reason: format!("{reason}, which this method does without; use obs, sparsegpt or gptq, or {first}=0"),
        };
        if self.drift > 0.0 {
            return Err(conflict("drift", "what undoes drift is found with a Hessian").into());
        }
        if self.held_out > 0.0 {
            return Err(conflict("held-out", "what is chosen is the damping of a Hessian").into());
        }
        Ok(method)
    }

    /// What is added to the diagonal of a Hessian.
    ///
    /// # Errors
    /// [`Error::Compress`](crate::Error::Compress) for settings out of range.
    pub fn damping(&self) -> Result<Damping> {
        Ok(Damping::new(self.damping)?.shrinkage(self.shrinkage)?)
    }

    fn method(&self) -> Result<Option<Box<dyn LayerCompressor>>> {
        let damping = self.damping()?;
        for (name, value, most, expected) in [
            ("drift", self.drift, 1.0, "a share of the drift to undo, 0 to 1"),
            ("held-out", self.held_out, 0.5, "a share of the calibration text, 0 to 0.5 (usual: 0.25)"),
        ] {
            if !(0.0..=most).contains(&value) {
                let (value, expected) = (value.to_string(), expected.into());
                return Err(CompressError::Setting { name, value, expected }.into());
            }
        }
        if self.act_order && matches!(self.sparsity, Sparsity::NOfM { .. }) && self.scheme.is_some() {
            return Err(CompressError::Conflict {
                first: "act-order".into(),
                second: format!("the pattern {}", self.sparsity),
                reason: "a pattern chooses among neighbouring channels; use one or the other".into(),
            }
            .into());
        }
        if self.refit > 0 && self.pipeline == Some(PipelineKind::Joint) {
            return Err(CompressError::Conflict {
                first: "pipeline=joint".into(),
                second: "refit".into(),
                reason: "one pass chooses and rounds at once and leaves nothing to refit in between; use sequential-b"
                    .into(),
            }
            .into());
        }
        let plain_pruner = || -> Box<dyn Pruner> {
            match self.pruner {
                PrunerKind::Magnitude => Box::new(Magnitude::new(self.sparsity)),
                PrunerKind::Wanda => Box::new(Wanda::new(self.sparsity)),
                PrunerKind::Obs => Box::new(Obs::new(self.sparsity).damping(damping)),
                PrunerKind::SparseGpt => {
                    Box::new(SparseGpt::new(self.sparsity).damping(damping).reference_compat(self.reference_compat))
                }
            }
        };
        let pruner = || -> Box<dyn Pruner> {
            match self.refit {
                0 => plain_pruner(),
                steps => {
                    Box::new(Refitted::new(plain_pruner(), Refit::new(steps)).rounds(self.mask_rounds).damping(damping))
                }
            }
        };
        let descended = |compressor: Box<dyn LayerCompressor>| -> Box<dyn LayerCompressor> {
            match self.descent {
                0 => compressor,
                rounds => Box::new(
                    Descended::new(compressor, CoordinateDescent::new(rounds).scales(self.scale_fit)).damping(damping),
                ),
            }
        };
        let Some(scheme) = self.scheme else {
            return Ok(if self.sparsity.is_dense() { None } else { Some(Box::new(pruner())) });
        };
        let gptq = Gptq::new(scheme)
            .clip(self.clip)
            .damping(damping)
            .act_order(self.act_order)
            .reference_compat(self.reference_compat);
        let quantizer = || -> Box<dyn Quantizer> {
            match self.quantizer {
                QuantizerKind::Rtn => {
                    Box::new(Rtn::new(scheme).clip(self.clip).reference_compat(self.reference_compat))
                }
                QuantizerKind::Gptq => Box::new(gptq.clone()),
            }
        };
        if self.sparsity.is_dense() {
            return Ok(Some(descended(Box::new(quantizer()))));
        }
        Ok(Some(descended(match (self.pipeline_kind(), self.quantizer) {
            (PipelineKind::SequentialA, _) => Box::new(SequentialA::new(pruner(), quantizer())),
            (PipelineKind::SequentialB, _) => Box::new(SequentialB::new(pruner(), quantizer())),
            (PipelineKind::Joint, QuantizerKind::Gptq) => Box::new(OnePass::new(pruner(), gptq)),
            (PipelineKind::Joint, QuantizerKind::Rtn) => {
                return Err(CompressError::Conflict {
                    first: "pipeline=joint".into(),
                    second: "quantizer=rtn".into(),
                    reason: "one pass compensates rounding, rtn does not; use gptq, or pipeline=sequential-b".into(),
                }
                .into());
            }
        })))
    }
}
