use super::{PrunerKind, QuantizerKind, Recipe};
use crate::Targets;
use serde::{Deserialize, Serialize};
use sparq_core::{Granularity, ScaleType, Sparsity};
use sparq_model::{ExpertTokens, Precision};
use sparq_quant::Clip;

/// Input channels that share a scale unless a recipe says otherwise.
const DEFAULT_GROUP: usize = 128;

/// How much work goes into a solve, under a name.
///
/// | preset | what it is | relative time |
/// |---|---|---|
/// | `fast` | Wanda's mask and plain rounding: channel norms are all it needs | the forward pass |
/// | `balanced` | OBS mask, a refit of what it keeps, GPTQ with act-order, coordinate descent, half of the drift corrected, damping chosen on held-out tokens | 3 to 5 times `reference` |
/// | `best` | as `balanced`, with the mask in four rounds and more descent | 5 to 8 times `reference` |
/// | `reference` | the published methods as they are: SparseGPT, GPTQ, both in one pass | 1 |
///
/// # Examples
/// ```
/// use sparq_pipeline::{Preset, Recipe};
/// let recipe = Recipe::builder().preset(Preset::Fast).sparsity(0.25).bits(4).build()?;
/// assert_eq!(recipe, "preset=fast,s=0.25,q=4".parse()?);
/// assert_eq!(recipe.descent, Preset::Fast.recipe().descent);
/// # Ok::<(), sparq_pipeline::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// Seconds: no Hessian, nothing compensated.
    Fast,
    /// What most should use.
    #[default]
    Balanced,
    /// As good as it gets here.
    Best,
    /// Published methods with nothing added.
    Reference,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Balanced, Self::Reference, Self::Fast, Self::Best];

    /// Its settings, for a model left as it is: sparsity and grid are to be set.
    pub fn recipe(self) -> Recipe {
        let reference = Recipe {
            sparsity: Sparsity::DENSE,
            bits: None,
            rate: None,
            embeddings: None,
            granularity: Granularity::Group(DEFAULT_GROUP),
            asymmetric: false,
            scale_type: ScaleType::default(),
            ggml: false,
            pruner: PrunerKind::SparseGpt,
            quantizer: QuantizerKind::Gptq,
            clip: Clip::MinMax,
            act_order: false,
            pipeline: None,
            refit: 0,
            mask_rounds: 1,
            descent: 0,
            drift: 0.0,
            damping: 0.01,
            shrinkage: 0.0,
            held_out: 0.0,
            tune: 0,
            forward: Precision::default(),
            expert_tokens: ExpertTokens::default(),
            reference_compat: false,
            allocation: None,
            targets: Targets::default(),
        };
        match self {
            Self::Reference => reference,
            Self::Fast => {
                Recipe { pruner: PrunerKind::Wanda, quantizer: QuantizerKind::Rtn, clip: Clip::Mse, ..reference }
            }
            Self::Balanced => Recipe {
                pruner: PrunerKind::Obs,
                clip: Clip::Mse,
                // Takes no time; its gain on SmolLM2-135M is within noise (docs/results.md).
                act_order: true,
                refit: 5,
                descent: 3,
                drift: 0.5,
                // Served SmolLM2-135M best of 0, 2, 4 and 8 on text that no table is judged by.
                shrinkage: 4.0,
                held_out: 0.25,
                ..reference
            },
            Self::Best => Recipe { mask_rounds: 4, descent: 10, ..Self::Balanced.recipe() },
        }
    }
}
