use crate::{Error, Result, Targets};
use serde::{Deserialize, Serialize};
use sparq_core::{Bits, CompressError, Granularity, LayerCompressor, QuantScheme, ScaleType, Sparsity};
use sparq_joint::{OnePass, SequentialA, SequentialB};
use sparq_model::ExpertTokens;
use sparq_obs::{Damping, Refit};
use sparq_prune::{Magnitude, Pruner, Refitted, SparseGpt, Wanda};
use sparq_quant::{Clip, Gptq, Quantizer, Rtn};
use std::fmt;
use std::str::FromStr;

/// Which pruner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PrunerKind {
    /// [`Magnitude`].
    Magnitude,
    /// [`Wanda`].
    Wanda,
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
/// In text form a recipe is a list of settings, as in `s=0.25,q=4,group=64`; [`Display`](fmt::Display) writes only what
/// differs from the defaults.
///
/// | key | default | meaning |
/// |---|---|---|
/// | `s` | 0 | fraction removed, or `kept:of`; with `pattern=kept:of` the pattern wins |
/// | `pattern` | unstructured | `unstructured` or `kept:of` |
/// | `pruner` | sparsegpt | `magnitude`, `wanda`, `sparsegpt` |
/// | `q` | 16 | bits; 16 leaves weights unquantized |
/// | `group` | 128 | input channels sharing a scale, or `channel`, `tensor` |
/// | `asymmetric` | false | a zero point for each group |
/// | `scale` | f16 | storage type of scales: `f16`, `bf16`, `f32` |
/// | `quantizer` | gptq | `rtn`, `gptq` |
/// | `clip` | minmax | `minmax`, `mse` |
/// | `act-order` | false | visit the most active channels first |
/// | `pipeline` | joint (sequential-b with rtn or refit) | `sequential-a`, `sequential-b`, `joint` |
/// | `refit` | 0 | steps that refit the kept weights together before they are rounded; not with `pipeline=joint` |
/// | `damping` | 0.01 | added to the diagonal of the Hessian, times its mean |
/// | `expert-tokens` | routed | what each of a mixture of experts is calibrated on: `routed` (its own tokens), `all` |
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
#[serde(default, deny_unknown_fields)]
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
    /// How both are put together; none takes what fits the quantizer.
    pub pipeline: Option<PipelineKind>,
    /// Steps of conjugate gradients that refit what the pruner keeps; 0 leaves it at the pruner's weights.
    pub refit: usize,
    /// Fraction of the mean diagonal added to the Hessian.
    pub damping: f64,
    /// Which tokens each of a mixture of experts is calibrated on.
    pub expert_tokens: ExpertTokens,
    /// Reproduce the reference implementations, quirks included.
    pub reference_compat: bool,
    /// Which layers.
    pub targets: Targets,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            sparsity: Sparsity::DENSE,
            pruner: PrunerKind::default(),
            scheme: None,
            quantizer: QuantizerKind::default(),
            clip: Clip::default(),
            act_order: false,
            pipeline: None,
            refit: 0,
            damping: Damping::default().fraction(),
            expert_tokens: ExpertTokens::default(),
            reference_compat: false,
            targets: Targets::default(),
        }
    }
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

    /// Theoretical compression rate, `1 - (1 - s) · q / 16`.
    pub fn tcr(&self) -> f64 {
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
    /// [`Error::Compress`] for settings out of range or that cannot be combined.
    pub fn compressor(&self) -> Result<Option<Box<dyn LayerCompressor>>> {
        let damping = Damping::new(self.damping)?;
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
                PrunerKind::SparseGpt => {
                    Box::new(SparseGpt::new(self.sparsity).damping(damping).reference_compat(self.reference_compat))
                }
            }
        };
        let pruner = || -> Box<dyn Pruner> {
            match self.refit {
                0 => plain_pruner(),
                steps => Box::new(Refitted::new(plain_pruner(), Refit::new(steps)).damping(damping)),
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
            return Ok(Some(Box::new(quantizer())));
        }
        Ok(Some(match (self.pipeline_kind(), self.quantizer) {
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
        }))
    }
}

/// Name of a plain enum value as serde writes it.
fn name_of(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn value_of<T: for<'a> Deserialize<'a>>(text: &str) -> std::result::Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| error.to_string())
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::default();
        write!(f, "s={},q={}", self.sparsity, self.bits())?;
        let mut put = |key: &str, value: String| write!(f, ",{key}={value}");
        if self.pruner != default.pruner {
            put("pruner", name_of(&self.pruner))?;
        }
        if let Some(scheme) = self.scheme {
            match scheme.granularity {
                Granularity::Group(DEFAULT_GROUP) => {}
                Granularity::Group(size) => put("group", size.to_string())?,
                other => put("group", name_of(&other))?,
            }
            if !scheme.symmetric {
                put("asymmetric", "true".into())?;
            }
            if scheme.scale_type != ScaleType::default() {
                put("scale", name_of(&scheme.scale_type))?;
            }
        }
        if self.quantizer != default.quantizer {
            put("quantizer", name_of(&self.quantizer))?;
        }
        if self.clip != default.clip {
            put("clip", "mse".into())?;
        }
        if self.act_order {
            put("act-order", "true".into())?;
        }
        if let Some(pipeline) = self.pipeline {
            put("pipeline", name_of(&pipeline))?;
        }
        if self.refit != default.refit {
            put("refit", self.refit.to_string())?;
        }
        if self.damping != default.damping {
            put("damping", self.damping.to_string())?;
        }
        if self.expert_tokens != default.expert_tokens {
            put("expert-tokens", name_of(&self.expert_tokens))?;
        }
        if self.reference_compat {
            put("reference-compat", "true".into())?;
        }
        Ok(())
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason: String| Error::Recipe { recipe: text.to_owned(), reason };
        let mut recipe = Self::default();
        let (mut bits, mut scheme, mut pattern) = (None, Self::default_scheme(Bits::B4), None);
        for setting in text.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (key, value) = setting.split_once('=').ok_or_else(|| bad(format!("{setting:?} is not key=value")))?;
            let (key, value) = (key.trim(), value.trim());
            let flag = || value.parse::<bool>().map_err(|_| bad(format!("{key}={value:?} is neither true nor false")));
            let named = |error: String| bad(format!("{key}={value:?}: {error}"));
            match key {
                "s" | "sparsity" => recipe.sparsity = value.parse()?,
                "pattern" if value == "unstructured" => pattern = None,
                "pattern" => pattern = Some(value.parse::<Sparsity>()?),
                "pruner" => recipe.pruner = value_of(value).map_err(named)?,
                "q" if value == "16" => bits = None,
                "q" => {
                    let number = value.parse().map_err(|_| bad(format!("q={value:?} is not a number of bits")))?;
                    bits = Some(Bits::new(number)?);
                }
                "group" | "group-size" => {
                    scheme.granularity = match value {
                        "channel" => Granularity::Channel,
                        "tensor" => Granularity::Tensor,
                        size => {
                            let size = size.parse().map_err(|_| bad(format!("group={size:?} is no size")))?;
                            scheme.group(size)?.granularity
                        }
                    }
                }
                "asymmetric" => scheme.symmetric = !flag()?,
                "scale" => scheme.scale_type = value_of(value).map_err(named)?,
                "quantizer" => recipe.quantizer = value_of(value).map_err(named)?,
                "clip" => recipe.clip = value_of(&value.replace("minmax", "min_max")).map_err(named)?,
                "act-order" => recipe.act_order = flag()?,
                "pipeline" => recipe.pipeline = Some(value_of(value).map_err(named)?),
                "refit" => {
                    recipe.refit =
                        value.parse().map_err(|_| bad(format!("refit={value:?} is not a number of steps")))?;
                }
                "damping" => {
                    recipe.damping = value.parse().map_err(|_| bad(format!("damping={value:?} is not a number")))?;
                }
                "expert-tokens" => recipe.expert_tokens = value_of(value).map_err(named)?,
                "reference-compat" => recipe.reference_compat = flag()?,
                _ => {
                    return Err(bad(format!(
                        "unknown key {key:?}; known: s, q, pattern, pruner, group, asymmetric, scale, quantizer, clip, act-order, pipeline, refit, damping, expert-tokens"
                    )));
                }
            }
        }
        if let Some(pattern) = pattern {
            let (asked, given) = (recipe.sparsity.fraction(), pattern.fraction());
            if asked != 0.0 && (asked - given).abs() > 1e-9 {
                return Err(bad(format!("s={asked} contradicts pattern={pattern}, which removes {given}")));
            }
            recipe.sparsity = pattern;
        }
        recipe.scheme = bits.map(|bits| QuantScheme { bits, ..scheme });
        recipe.compressor()?;
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in [
            "s=0,q=16",
            "s=0,q=4",
            "s=2:4,q=4,group=64",
            "s=0.5,q=16,pruner=wanda",
            "s=0.25,q=3,pruner=magnitude,group=channel,asymmetric=true,scale=f32,quantizer=rtn,clip=mse,pipeline=sequential-a,damping=0.1",
            "s=0.25,q=8,group=tensor,act-order=true,pipeline=joint",
            "s=0.5,q=4,refit=8,damping=0.1",
            "s=0.25,q=4,expert-tokens=all",
        ] {
            let recipe: Recipe = text.parse().expect(text);
            assert_eq!(recipe.to_string(), text);
            let json = serde_json::to_string(&recipe).expect("serializable");
            assert_eq!(serde_json::from_str::<Recipe>(&json).expect("round trip"), recipe);
        }
        assert_eq!("s=0.5,pattern=2:4,q=4".parse::<Recipe>().expect("valid").to_string(), "s=2:4,q=4");
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (text, word) in [
            ("s=1", "sparsity"),
            ("q=9", "bits"),
            ("q=four", "number of bits"),
            ("quantizer=awq", "awq"),
            ("s=0.25,pattern=2:4", "contradicts"),
            ("s=0.25,q=4,quantizer=rtn,pipeline=joint", "rtn"),
            ("s=2:4,q=4,act-order=true", "act-order"),
            ("damping=-1", "damping"),
            ("refit=-1", "steps"),
            ("s=0.5,q=4,refit=5,pipeline=joint", "refit"),
            ("group=0,q=4", "group"),
            ("expert-tokens=some", "some"),
            ("speed=9", "unknown key"),
            ("q", "key=value"),
        ] {
            let error = text.parse::<Recipe>().expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
