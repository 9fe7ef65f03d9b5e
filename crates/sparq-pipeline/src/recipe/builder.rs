use super::keys::name_of;
use super::{Preset, PrunerKind, QuantizerKind, Recipe};
use crate::{Result, Targets};
use sparq_core::Composition;

/// Builds a [`Recipe`]. Each method sets the key of its name; [`set`](Self::set) reaches those without a method. Values are
/// checked by [`build`](Self::build).
///
/// | method | default |
/// |---|---|
/// | [`preset`](Self::preset) | balanced; reference if a published method is named |
/// | [`sparsity`](Self::sparsity), [`pattern`](Self::pattern) | nothing is removed |
/// | [`bits`](Self::bits) | 16: nothing is quantized |
/// | [`rate`](Self::rate) | none: codes have the width of `bits` |
/// | [`group`](Self::group) | 128 |
/// | [`asymmetric`](Self::asymmetric) | no |
/// | [`pruner`](Self::pruner), [`quantizer`](Self::quantizer), [`act_order`](Self::act_order) | by preset |
/// | [`pipeline`](Self::pipeline) | joint with GPTQ and no refit, else sequential B |
/// | [`targets`](Self::targets) | every linear layer inside the blocks |
///
/// # Examples
/// ```
/// use sparq_pipeline::{Preset, Recipe};
/// let recipe = Recipe::builder().preset(Preset::Best).pattern(2, 4).bits(4).set("damping", 0.1).build()?;
/// assert_eq!(recipe.to_string(), "s=2:4,q=4,preset=best,damping=0.1");
/// # Ok::<(), sparq_pipeline::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct RecipeBuilder {
    settings: Vec<(String, String)>,
    targets: Targets,
}

impl RecipeBuilder {
    /// What the settings not given are.
    #[must_use]
    pub fn preset(self, preset: Preset) -> Self {
        self.set("preset", name_of(&preset))
    }

    /// Fraction of the weights to remove, in `[0, 1)`.
    #[must_use]
    pub fn sparsity(self, fraction: f64) -> Self {
        self.set("s", fraction)
    }

    /// Keeps `kept` of every `of` consecutive weights of a row.
    #[must_use]
    pub fn pattern(self, kept: usize, of: usize) -> Self {
        self.set("s", format!("{kept}:{of}"))
    }

    /// Bits of a weight that stays, 2 to 8; 16 does not quantize.
    #[must_use]
    pub fn bits(self, bits: u8) -> Self {
        self.set("q", bits)
    }

    /// Bits a weight once its codes are entropy-coded, instead of a width.
    #[must_use]
    pub fn rate(self, bits: f64) -> Self {
        self.set("rate", bits)
    }

    /// Input channels that share a scale.
    #[must_use]
    pub fn group(self, size: usize) -> Self {
        self.set("group", size)
    }

    /// Whether each group has a zero point.
    #[must_use]
    pub fn asymmetric(self, on: bool) -> Self {
        self.set("asymmetric", on)
    }

    /// How weights to remove are chosen.
    #[must_use]
    pub fn pruner(self, pruner: PrunerKind) -> Self {
        self.set("pruner", name_of(&pruner))
    }

    /// How weights are rounded.
    #[must_use]
    pub fn quantizer(self, quantizer: QuantizerKind) -> Self {
        self.set("quantizer", name_of(&quantizer))
    }

    /// How both are put together.
    #[must_use]
    pub fn pipeline(self, pipeline: Composition) -> Self {
        self.set("pipeline", name_of(&pipeline))
    }

    /// Whether the most active channels are visited first.
    #[must_use]
    pub fn act_order(self, on: bool) -> Self {
        self.set("act-order", on)
    }

    /// Any setting by its key ([`Recipe::keys`]).
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Which layers.
    #[must_use]
    pub fn targets(self, targets: Targets) -> Self {
        Self { targets, ..self }
    }

    /// The recipe.
    ///
    /// # Errors
    /// Those of [`Recipe::from_settings`].
    pub fn build(self) -> Result<Recipe> {
        let settings = self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Ok(Recipe::from_settings(settings)?.with_targets(self.targets))
    }
}
