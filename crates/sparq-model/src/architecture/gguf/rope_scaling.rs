//! The rotary embedding's scaling, from and to GGUF metadata and tensors of divisors.

use std::f64::consts::TAU;

use serde_json::{Value, json};
use sparq_tensor::Result;
use sparq_tensor::gguf::GgufModel;

use super::{ALL_LENGTHS, LONG, SHORT};

/// The value of `rope_scaling` in `config.json`: null, or an object with `rope_type` linear, yarn, llama3 or longrope.
pub(super) fn from_metadata(model: &GgufModel<'_>, theta: f64) -> Result<Value> {
    const TYPE: &str = "rope.scaling.type";
    let keys = &model.keys;
    match (model.rope_factors(ALL_LENGTHS), model.rope_factors(SHORT), model.rope_factors(LONG)) {
        (Some(factors), ..) => return llama3(model, theta, factors),
        (None, Some(short), Some(long)) => return longrope(model, short, long),
        (None, None, None) => {}
        _ => return Err(keys.unsupported("rotary divisors", "short ones without long ones, or the reverse")),
    }
    let (rope_type, factor) = match keys.string(TYPE)? {
        Some("none") => return Ok(Value::Null),
        // Before there were types.
        None => ("linear", keys.float("rope.scale_linear")?.filter(|&factor| factor != 1.0)),
        Some("linear") => ("linear", keys.float("rope.scaling.factor")?),
        Some("yarn") => ("yarn", keys.float("rope.scaling.factor")?),
        Some(other) => return Err(keys.unsupported(keys.key(TYPE), other)),
    };
    let Some(factor) = factor.filter(|&factor| factor != 0.0) else { return Ok(Value::Null) };
    let mut scaling = json!({ "rope_type": rope_type, "factor": factor });
    if let Some(length) = keys.integer("rope.scaling.original_context_length")? {
        scaling["original_max_position_embeddings"] = length.into();
    }
    Ok(scaling)
}

fn longrope(model: &GgufModel<'_>, short: &[f32], long: &[f32]) -> Result<Value> {
    let attention_factor = model.keys.float("rope.scaling.attn_factor")?;
    for (name, factors) in [(SHORT, short), (LONG, long)] {
        if factors.len() != model.sizes.rotated / 2 {
            let reason = "it needs one element per pair of a head's rotated elements";
            return Err(model.keys.wrong_length(name, factors.len(), reason));
        }
    }
    let mut scaling = json!({ "rope_type": "longrope", "short_factor": short, "long_factor": long });
    if let Some(factor) = attention_factor {
        scaling["attention_factor"] = factor.into();
    }
    Ok(scaling)
}

/// Llama 3.1's rule: long wavelengths are divided by `factor`, short ones are not, and between the two the divisor is
/// blended.
#[derive(Debug, Clone, Copy)]
struct Llama3 {
    factor: f64,
    low_frequency_factor: f64,
    high_frequency_factor: f64,
    original_length: f64,
}

impl Llama3 {
    /// By how much the frequency with this wavelength (in tokens) is divided.
    fn divisor(&self, wavelength: f64) -> f64 {
        if wavelength < self.original_length / self.high_frequency_factor {
            1.0
        } else if wavelength > self.original_length / self.low_frequency_factor {
            self.factor
        } else {
            let smooth = (self.original_length / wavelength - self.low_frequency_factor)
                / (self.high_frequency_factor - self.low_frequency_factor);
            1.0 / ((1.0 - smooth) / self.factor + smooth)
        }
    }
}

/// What a file says of the scaling that `config.json` describes: metadata, or the values of `rope_freqs.weight`.
pub(super) enum Written {
    Nothing,
    /// Type, factor, original length.
    Keys(&'static str, f32, Option<u32>),
    Divisors(Vec<f32>),
    /// Values of `rope_factors_short.weight` and `rope_factors_long.weight`, factor on cosines and sines.
    LongRope(Vec<f32>, Vec<f32>, f32),
}

/// Context lengths of a model, now and before it was stretched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) now: f64,
    pub(super) before: f64,
}

/// Settings of YaRN that files have no word for here.
const YARN_SETTINGS: [&str; 6] = ["attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow", "truncate"];

/// The inverse of [`from_metadata`]; `Err` holds a kind of scaling that files have no word for.
pub(super) fn to_gguf(
    scaling: Option<&Value>,
    theta: f64,
    head_dimension: usize,
    lengths: Lengths,
) -> Result<Written, String> {
    let Some(scaling) = scaling.filter(|scaling| !scaling.is_null()) else { return Ok(Written::Nothing) };
    let number = |key: &str| scaling.get(key).and_then(Value::as_f64);
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
    let needed = |key: &str| number(key).ok_or_else(|| format!("{kind} without {key}"));
    let length = number("original_max_position_embeddings");
    let list = |key: &str| -> Result<Vec<f32>, String> {
        let values = scaling.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let values: Option<Vec<f32>> = values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect();
        let fits = |values: &Vec<f32>| values.len() == head_dimension / 2;
        values.filter(fits).ok_or_else(|| format!("{kind} without {} numbers of {key}", head_dimension / 2))
    };
    match kind {
        "default" => Ok(Written::Nothing),
        "linear" => Ok(Written::Keys("linear", needed("factor")? as f32, None)),
        "yarn" if YARN_SETTINGS.iter().any(|key| scaling.get(key).is_some_and(|value| !value.is_null())) => {
            Err(format!("yarn with any of {}, which llama.cpp chooses itself", YARN_SETTINGS.join(", ")))
        }
        "longrope" | "su" => {
            let factor = lengths.now / lengths.before;
            let recommended = if factor > 1.0 { (1.0 + factor.ln() / lengths.before.ln()).sqrt() } else { 1.0 };
            let attention_factor = number("attention_factor").unwrap_or(recommended);
            Ok(Written::LongRope(list("short_factor")?, list("long_factor")?, attention_factor as f32))
        }
        "yarn" => Ok(Written::Keys("yarn", needed("factor")? as f32, length.map(|length| length as u32))),
        "llama3" => {
            let rule = Llama3 {
                factor: needed("factor")?,
                low_frequency_factor: needed("low_freq_factor")?,
                high_frequency_factor: needed("high_freq_factor")?,
                original_length: needed("original_max_position_embeddings")?,
            };
            let wavelengths = (0..head_dimension / 2).map(|i| wavelength(theta, i, head_dimension));
            Ok(Written::Divisors(wavelengths.map(|wavelength| rule.divisor(wavelength) as f32).collect()))
        }
        other => Err(other.chars().take(100).collect()),
    }
}

/// Tokens in one turn of pair `i` of a head.
fn wavelength(theta: f64, i: usize, head_dimension: usize) -> f64 {
    TAU * theta.powf(2.0 * i as f64 / head_dimension as f64)
}

/// Finds the parameters that give these divisors. The file has only the result; published models differ in factor and
/// original length.
fn llama3(model: &GgufModel<'_>, theta: f64, factors: &[f32]) -> Result<Value> {
    let half = model.sizes.head_dimension / 2;
    if factors.len() != half {
        let reason = "it needs one element per pair of a head's elements";
        return Err(model.keys.wrong_length(ALL_LENGTHS, factors.len(), reason));
    }
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(Value::Null);
    }
    let wavelengths: Vec<f64> = (0..half).map(|i| wavelength(theta, i, model.sizes.head_dimension)).collect();
    let factor = f64::from(factors.iter().copied().fold(f32::MIN, f32::max));
    for original_length in (10..=20).map(|power| f64::from(1 << power)) {
        let rule = Llama3 { factor, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_length };
        let fits = |(&found, &wavelength): (&f32, &f64)| {
            let expected = rule.divisor(wavelength);
            (f64::from(found) - expected).abs() <= 1e-4 * expected
        };
        if factors.iter().zip(&wavelengths).all(fits) {
            return Ok(json!({
                "rope_type": "llama3",
                "factor": rule.factor,
                "low_freq_factor": rule.low_frequency_factor,
                "high_freq_factor": rule.high_frequency_factor,
                "original_max_position_embeddings": original_length as u64,
            }));
        }
    }
    let shown: Vec<String> = factors.iter().take(8).map(ToString::to_string).collect();
    Err(model.keys.unsupported("rope_freqs.weight other than by the rule of Llama 3", shown.join(", ")))
}
