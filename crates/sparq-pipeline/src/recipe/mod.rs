mod allocation;
mod builder;
mod keys;
mod preset;
mod text;

pub use allocation::{Allocation, LayerBudget};
pub use builder::RecipeBuilder;
pub use keys::Key;
pub use preset::Preset;

use crate::{Result, Targets};
use serde::{Deserialize, Serialize};
use sparq_core::{
    Bits, CodeLayout, Composition, CompressError, Damping, Granularity, LayerCompressor, QuantScheme, ScaleType,
    Solver, Sparsity, Statistics,
};
use sparq_model::{ExpertTokens, Precision};
use sparq_prune::{Magnitude, Obs, SparseGpt, Wanda};
use sparq_quant::{Clip, Gptq, RowStep, Rtn, Step};

/// The largest share of the drift that a layer corrects.
const MOST_DRIFT: f64 = 1.0;
/// The largest share of the calibration text that is held out.
const MOST_HELD_OUT: f64 = 0.5;

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

/// What is done to every linear layer.
///
/// A recipe is built ([`Recipe::builder`]) or read from text, as in `s=0.25,q=4,group=64`.
/// [`Display`](std::fmt::Display) writes the text, only what differs from the defaults. [`Recipe::keys`] lists every
/// setting with its meaning; docs/methods.md has the same list with the defaults of each [`Preset`].
///
/// The default recipe is the recommended mix: a quarter of the weights removed, 4 bits, [`Preset::Balanced`].
///
/// `pruner`, `quantizer`, `pipeline` and `reference-compat` name published methods: settings that give one of them and
/// no preset start from [`Preset::Reference`], where nothing is added to them.
///
/// # Examples
/// ```
/// use sparq_pipeline::Recipe;
/// let recipe = Recipe::builder().sparsity(0.25).bits(4).group(64).build()?;
/// assert_eq!(recipe, "s=0.25,q=4,group=64".parse()?);
/// assert_eq!(recipe.tcr(), 0.8125);
/// assert!("s=0.25,bits=4".parse::<Recipe>().is_err()); // the key is q
/// # Ok::<(), sparq_pipeline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools, reason = "settings that do not depend on each other")]
pub struct Recipe {
    /// How much is removed, in which pattern.
    pub sparsity: Sparsity,
    /// Bits of a weight that stays; none leaves weights unquantized.
    pub bits: Option<Bits>,
    /// Bits a weight once its codes are coded, of codes without a fixed width; none if they have one ([`Step`]).
    pub rate: Option<f64>,
    /// Bits a weight, once coded, of embedding and output matrix; none leaves them as they are.
    pub embeddings: Option<f64>,
    /// Who shares a scale.
    pub granularity: Granularity,
    /// Whether each group has a zero point.
    pub asymmetric: bool,
    /// Storage type of scales.
    pub scale_type: ScaleType,
    /// Whether grids are those of ggml's block types, [`QuantScheme::of_ggml`]; `granularity` and `scale_type` do not count then.
    pub ggml: bool,
    /// By which pruner.
    pub pruner: PrunerKind,
    /// By which quantizer.
    pub quantizer: QuantizerKind,
    /// How both are put together; none takes what fits the other settings.
    pub pipeline: Option<Composition>,
    /// How ranges are found.
    pub clip: Clip,
    /// Whether the most active channels are visited first.
    pub act_order: bool,
    /// Steps of conjugate gradients that refit what the pruner keeps; 0 leaves it at the pruner's weights.
    pub refit: usize,
    /// Rounds in which the mask is reached, each choosing among refitted weights; 1 chooses once.
    pub mask_rounds: usize,
    /// Rounds of coordinate descent after rounding; 0 leaves it at the quantizer's codes.
    pub descent: usize,
    /// Share of the drift from the dense model that a layer corrects ([`InputDrift`](sparq_core::InputDrift)); 0 needs no
    /// second stream of activations.
    pub drift: f64,
    /// Fraction of the mean diagonal added to the Hessian.
    pub damping: f64,
    /// Added to it, times a layer's input channels over its calibration tokens.
    pub shrinkage: f64,
    /// Share of the calibration text that chooses among dampings around this one, stage by stage. Solutions that were
    /// fitted to the rest are compared on it. It applies to layers that write to the residual stream, experts excepted.
    /// 0 leaves damping as it is.
    pub held_out: f64,
    /// Steps in which codes, scales, norms and biases follow the gradient of the divergence from the dense model, once all
    /// layers are solved; 0 leaves them as solved. Masks stay, and codes at a rate.
    pub tune: usize,
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
        Self { sparsity: Sparsity::Unstructured(0.25), bits: Some(Bits::B4), ..Preset::default().recipe() }
    }
}

impl Recipe {
    /// A recipe step by step, from [`Preset::Balanced`] unless told otherwise.
    pub fn builder() -> RecipeBuilder {
        RecipeBuilder::default()
    }

    /// Every setting but the preset, in the order of text.
    pub fn keys() -> impl Iterator<Item = &'static Key> {
        keys::KEYS.iter()
    }

    /// For these layers.
    #[must_use]
    pub fn with_targets(self, targets: Targets) -> Self {
        Self { targets, ..self }
    }

    /// With sparsity and bits layer by layer.
    #[must_use]
    pub fn with_allocation(self, allocation: Allocation) -> Self {
        Self { allocation: Some(allocation), ..self }
    }

    /// The same recipe with this sparsity and these bits for every layer.
    #[must_use]
    pub fn with_budget(&self, budget: LayerBudget) -> Self {
        Self { sparsity: budget.sparsity, bits: budget.bits, rate: budget.rate, allocation: None, ..self.clone() }
    }

    /// The same without what takes most of the time (refit, mask rounds, descent, tuning), for solutions that are only
    /// compared with one another.
    #[must_use]
    pub fn sketch(&self) -> Self {
        Self { refit: 0, mask_rounds: 1, descent: 0, tune: 0, ..self.clone() }
    }

    /// What every layer without an allocation gets.
    fn own_budget(&self) -> LayerBudget {
        LayerBudget { sparsity: self.sparsity, bits: self.bits, rate: self.rate }
    }

    /// What the layer of this name gets.
    pub fn budget(&self, layer: &str) -> LayerBudget {
        let allocated = self.allocation.as_ref().and_then(|allocation| allocation.layers.get(layer));
        allocated.copied().unwrap_or(self.own_budget())
    }

    /// The grid of a layer with this budget; none leaves it unquantized.
    pub fn scheme_of(&self, budget: LayerBudget) -> Option<QuantScheme> {
        let (granularity, symmetric, scale_type) = (self.granularity, !self.asymmetric, self.scale_type);
        budget.bits.map(|bits| {
            if self.ggml {
                QuantScheme::of_ggml(bits, symmetric)
            } else {
                QuantScheme { bits, granularity, symmetric, scale_type }
            }
        })
    }

    /// The form of the codes of a layer with this budget; none leaves it unquantized.
    pub fn code_layout(&self, budget: LayerBudget) -> Option<CodeLayout> {
        let steps = budget.rate.map(|_| CodeLayout::Steps);
        steps.or(self.scheme_of(budget).map(CodeLayout::Grid))
    }

    /// Mean fraction of weights removed.
    pub fn mean_sparsity(&self) -> f64 {
        self.allocation.as_ref().map_or(self.sparsity.fraction(), |allocation| allocation.sparsity)
    }

    /// Mean bits of a weight that stays; 16 if not quantized.
    pub fn mean_bits(&self) -> f64 {
        self.allocation.as_ref().map_or(self.own_budget().bits_or_16(), |allocation| allocation.bits)
    }

    /// Theoretical compression rate, `1 - (1 - s) · q / 16`; of an allocation, that over its layers.
    pub fn tcr(&self) -> f64 {
        self.allocation.as_ref().map_or(self.own_budget().tcr(), |allocation| allocation.tcr)
    }

    /// What is added to the diagonal of a Hessian.
    ///
    /// # Errors
    /// [`Error::Compress`](crate::Error::Compress) for settings out of range.
    pub fn damping(&self) -> Result<Damping> {
        Ok(Damping::new(self.damping)?.shrinkage(self.shrinkage)?)
    }

    /// Whether the mask is an N:M pattern that the column sweep chooses, which visits neighbouring channels together.
    fn chooses_pattern_along_sweep(&self) -> bool {
        self.pruner == PrunerKind::SparseGpt && matches!(self.sparsity, Sparsity::NOfM { .. })
    }

    /// The solver of layers without an allocation; none if the recipe neither prunes nor quantizes.
    ///
    /// # Errors
    /// [`Error::Compress`](crate::Error::Compress) for settings out of range or that cannot be combined.
    pub fn solver(&self) -> Result<Option<Solver>> {
        self.damping()?;
        for (name, value, most, expected) in [
            ("drift", self.drift, MOST_DRIFT, "a share of the drift to correct, 0 to 1"),
            ("held-out", self.held_out, MOST_HELD_OUT, "a share of the calibration text, 0 to 0.5 (usual: 0.25)"),
        ] {
            if !(0.0..=most).contains(&value) {
                let (value, expected) = (value.to_string(), expected.into());
                return Err(CompressError::Setting { name, value, expected }.into());
            }
        }
        let conflict = |first: &str, second: String, reason: &str| {
            Err(CompressError::Conflict { first: first.into(), second, reason: reason.into() }.into())
        };
        if self.act_order && self.chooses_pattern_along_sweep() {
            let reason = "SparseGPT chooses among neighbouring channels as it visits them; use another pruner, or act-order=false";
            return conflict("act-order", format!("sparsegpt {}", self.sparsity), reason);
        }
        let composition = self.pipeline.unwrap_or(if self.quantizer == QuantizerKind::Gptq && self.refit == 0 {
            Composition::Joint
        } else {
            Composition::SequentialB
        });
        let mut solver = Solver::new();
        if !self.sparsity.is_dense() {
            solver = match self.pruner {
                PrunerKind::Magnitude => solver.prune(Magnitude::new(self.sparsity)),
                PrunerKind::Wanda => solver.prune(Wanda::new(self.sparsity)),
                PrunerKind::Obs => solver.prune(Obs::new(self.sparsity)),
                PrunerKind::SparseGpt => {
                    solver.prune(SparseGpt::new(self.sparsity).reference_compat(self.reference_compat))
                }
            };
            solver = solver.refit(self.refit).mask_rounds(self.mask_rounds);
        }
        if let Some(scheme) = self.scheme_of(self.own_budget()) {
            let compat = self.reference_compat;
            solver = match self.quantizer {
                QuantizerKind::Rtn => solver.quantize(Rtn::new(scheme).clip(self.clip).reference_compat(compat)),
                QuantizerKind::Gptq => solver.quantize(Gptq::new(scheme).clip(self.clip).reference_compat(compat)),
            };
            solver = solver.descent(self.descent).composition(composition);
        }
        if let Some(rate) = self.embeddings {
            RowStep::new(rate)?;
        }
        if let Some(rate) = self.rate {
            if self.bits.is_some() {
                return conflict("rate", "q".into(), "codes at a rate have no width; give one of the two");
            }
            if self.quantizer != QuantizerKind::Gptq {
                return conflict("rate", "quantizer=rtn".into(), "steps are those of the column sweep; use gptq");
            }
            solver = solver.quantize(Step::new(rate)?.descent(self.descent)).composition(composition);
        }
        if self.sparsity.is_dense() && self.bits.is_none() && self.rate.is_none() {
            return Ok(None);
        }
        solver.check()?;
        if solver.needs() < Statistics::Hessian {
            let name = solver.name().into_owned();
            let advice = |first| format!("{name} does without one; use obs, sparsegpt or gptq, or {first}=0");
            if self.drift > 0.0 {
                return conflict("drift", "a method without a Hessian".into(), &advice("drift"));
            }
            if self.held_out > 0.0 {
                return conflict("held-out", "a method without a Hessian".into(), &advice("held-out"));
            }
        }
        Ok(Some(solver))
    }
}
