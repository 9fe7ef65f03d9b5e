//! The table of settings: everything that knows a recipe's keys (its text, its JSON, command lines, documentation) reads it.

use super::{MOST_DRIFT, MOST_HELD_OUT, Recipe};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sparq_core::{Bits, Damping, Sparsity};
use sparq_quant::Step;

/// The value of a setting in a recipe, as text.
type Get = fn(&Recipe) -> String;
/// Sets it from text, or says what is wrong with the text.
type Set = fn(&mut Recipe, &str) -> Result<(), String>;

/// One setting of a [`Recipe`].
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in text, JSON and documentation.
    pub name: &'static str,
    /// What it means, with the values it takes.
    pub meaning: &'static str,
    /// Whether it names a part of a published method: a recipe that gives such a key and no preset starts from
    /// [`Preset::Reference`](crate::Preset::Reference).
    pub(super) names_method: bool,
    /// Whether it says what is done, not how. These keys belong to no preset.
    pub(super) is_budget: bool,
    get: Get,
    set: Set,
}

impl Key {
    /// The value in `recipe`, as text.
    pub fn get(&self, recipe: &Recipe) -> String {
        (self.get)(recipe)
    }

    /// Sets the value in `recipe`, or says what is wrong with it.
    pub(super) fn set(&self, recipe: &mut Recipe, value: &str) -> Result<(), String> {
        (self.set)(recipe, value)
    }

    /// The key of this name.
    pub(super) fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }
}

/// A setting of how layers are solved.
const fn solver(name: &'static str, meaning: &'static str, get: Get, set: Set) -> Key {
    Key { name, meaning, names_method: false, is_budget: false, get, set }
}

/// A setting of what is done to layers.
const fn budget(name: &'static str, meaning: &'static str, get: Get, set: Set) -> Key {
    Key { is_budget: true, ..solver(name, meaning, get, set) }
}

/// A setting that names a part of a published method.
const fn method(name: &'static str, meaning: &'static str, get: Get, set: Set) -> Key {
    Key { names_method: true, ..solver(name, meaning, get, set) }
}

/// Every setting but the preset, in the order of text.
pub(super) const KEYS: &[Key] = &[
    budget(
        "s",
        "fraction of weights removed, or kept:of such as 2:4",
        |r| r.sparsity.to_string(),
        |r, value| {
            r.sparsity = value.parse::<Sparsity>().map_err(|error| error.to_string())?;
            Ok(())
        },
    ),
    budget(
        "q",
        "bits of a weight, 2 to 8; 16 leaves weights unquantized",
        |r| r.bits.map_or(16, Bits::get).to_string(),
        |r, value| {
            let bits: u8 = plain(value, "a number of bits")?;
            r.bits = if bits == 16 { None } else { Some(Bits::new(bits).map_err(|error| error.to_string())?) };
            Ok(())
        },
    ),
    budget(
        "rate",
        "instead of q: bits a weight once the codes are entropy-coded, 0.1 to 12; codes have no width and zeros are an outcome",
        |r| r.rate.map_or_else(String::new, |rate| rate.to_string()),
        |r, value| rate(value).map(|rate| r.rate = Some(rate)),
    ),
    budget(
        "embeddings",
        "bits a weight of embedding and output matrix once entropy-coded, 0.1 to 12; without it they stay as they are",
        |r| r.embeddings.map_or_else(String::new, |rate| rate.to_string()),
        |r, value| rate(value).map(|rate| r.embeddings = Some(rate)),
    ),
    budget(
        "group",
        "input channels that share a scale, or channel, tensor",
        |r| r.granularity.to_string(),
        |r, value| {
            plain(value, "a number of channels, channel (which others write as -1) or tensor")
                .map(|size| r.granularity = size)
        },
    ),
    budget(
        "asymmetric",
        "whether each group has a zero point",
        |r| r.asymmetric.to_string(),
        |r, value| plain(value, "true or false").map(|on| r.asymmetric = on),
    ),
    budget(
        "scale",
        "storage type of scales: f16, bf16, f32, or 6bit, 8bit: multiples of an f16 that 16 groups of a row share",
        |r| name_of(&r.scale_type),
        |r, value| named(value).map(|scale_type| r.scale_type = scale_type),
    ),
    budget(
        "ggml",
        "whether grids are those of the block types of GGUF files: groups of 32; of 3 and 6 bits, without zero points, groups of \
         16 whose scales are multiples of a factor for 256 channels; group and scale do not count then",
        |r| r.ggml.to_string(),
        |r, value| plain(value, "true or false").map(|on| r.ggml = on),
    ),
    method(
        "pruner",
        "how weights to remove are chosen: magnitude, wanda, obs, sparsegpt",
        |r| name_of(&r.pruner),
        |r, value| named(value).map(|pruner| r.pruner = pruner),
    ),
    method(
        "quantizer",
        "how weights are rounded: rtn, gptq",
        |r| name_of(&r.quantizer),
        |r, value| named(value).map(|quantizer| r.quantizer = quantizer),
    ),
    method(
        "pipeline",
        "how pruning and rounding are put together: sequential-a, sequential-b, joint; default joint with gptq and no refit, \
         else sequential-b",
        |r| r.pipeline.as_ref().map_or_else(String::new, name_of),
        |r, value| named(value).map(|pipeline| r.pipeline = Some(pipeline)),
    ),
    solver(
        "clip",
        "how the range of a group is found: minmax, mse",
        |r| name_of(&r.clip),
        |r, value| named(value).map(|clip| r.clip = clip),
    ),
    solver(
        "act-order",
        "whether the most active channels are visited first",
        |r| r.act_order.to_string(),
        |r, value| plain(value, "true or false").map(|on| r.act_order = on),
    ),
    solver(
        "refit",
        "steps of conjugate gradients on the kept weights before they are rounded; not with pipeline=joint",
        |r| r.refit.to_string(),
        |r, value| plain(value, "a whole number").map(|steps| r.refit = steps),
    ),
    solver(
        "mask-rounds",
        "rounds in which the mask is reached, each choosing among refitted weights",
        |r| r.mask_rounds.to_string(),
        |r, value| plain(value, "a whole number").map(|rounds| r.mask_rounds = rounds),
    ),
    solver(
        "descent",
        "rounds of coordinate descent over scales and codes after rounding",
        |r| r.descent.to_string(),
        |r, value| plain(value, "a whole number").map(|rounds| r.descent = rounds),
    ),
    solver(
        "drift",
        "share of the drift from the dense model that a layer corrects, 0 to 1",
        |r| r.drift.to_string(),
        |r, value| number(value, MOST_DRIFT).map(|share| r.drift = share),
    ),
    solver(
        "damping",
        "added to the diagonal of the Hessian, as a fraction of its mean, 0 to 1000",
        |r| r.damping.to_string(),
        |r, value| number(value, Damping::MOST).map(|damping| r.damping = damping),
    ),
    solver(
        "shrinkage",
        "added to damping, times a layer's input channels over its calibration tokens, 0 to 1000",
        |r| r.shrinkage.to_string(),
        |r, value| number(value, Damping::MOST).map(|shrinkage| r.shrinkage = shrinkage),
    ),
    solver(
        "held-out",
        "share of the calibration text, 0 to 0.5, by which the damping of o and down is chosen; 0 does not choose",
        |r| r.held_out.to_string(),
        |r, value| number(value, MOST_HELD_OUT).map(|share| r.held_out = share),
    ),
    solver(
        "tune",
        "steps of gradient descent on codes, scales, norms and biases once all layers are solved; 0 leaves them",
        |r| r.tune.to_string(),
        |r, value| plain(value, "a whole number").map(|steps| r.tune = steps),
    ),
    solver(
        "forward",
        "number type the model runs in on calibration text: f32, bf16, int8",
        |r| name_of(&r.forward),
        |r, value| named(value).map(|forward| r.forward = forward),
    ),
    solver(
        "expert-tokens",
        "what each of a mixture of experts is calibrated on: routed (its own tokens), all",
        |r| name_of(&r.expert_tokens),
        |r, value| named(value).map(|tokens| r.expert_tokens = tokens),
    ),
    method(
        "reference-compat",
        "whether to do as the reference implementations do, quirks included",
        |r| r.reference_compat.to_string(),
        |r, value| plain(value, "true or false").map(|on| r.reference_compat = on),
    ),
];

/// A value that says itself how it is read.
fn plain<T: std::str::FromStr>(value: &str, what: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("is not {what}"))
}

/// Bits a weight once entropy-coded.
fn rate(value: &str) -> Result<f64, String> {
    let rate = plain(value, "a number of bits")?;
    Step::new(rate).map(|_| rate).map_err(|error| error.to_string())
}

/// A number from 0 to `most`.
fn number(value: &str, most: f64) -> Result<f64, String> {
    let number: f64 = plain(value, "a number")?;
    if (0.0..=most).contains(&number) { Ok(number) } else { Err(format!("is not between 0 and {most}")) }
}

/// A value of an enum, by its name.
pub(super) fn named<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(value)).map_err(|error| error.to_string())
}

/// Name of a value of an enum.
pub(super) fn name_of(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
