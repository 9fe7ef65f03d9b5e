use super::Fields;
use crate::{Error, Result};
use std::f64::consts::TAU;

const SUPPORTED: &str = "default, linear, dynamic, yarn, longrope, llama3";

/// Rotary position embedding: the base and how its frequencies are stretched for long contexts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Components of a head that are rotated, the first ones; even.
    pub dimensions: usize,
    /// Change of the frequencies for contexts longer than trained on.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// The base grows with the length of a sequence beyond the context that the model was made for.
    Dynamic {
        /// How much.
        factor: f64,
        /// Length up to which nothing changes.
        original_positions: usize,
    },
    /// YaRN: long wavelengths are stretched by `factor`, short ones kept, those between blended along a ramp.
    Yarn {
        /// The divisor of the lowest frequencies.
        factor: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Turns over the original context from which on wavelengths are kept.
        beta_fast: f64,
        /// Turns over the original context up to which wavelengths are stretched.
        beta_slow: f64,
        /// Whether the ends of the ramp are whole numbers.
        truncate: bool,
        /// Context length before stretching.
        original_positions: usize,
    },
    /// LongRoPE: a divisor for each frequency, and other divisors for sequences beyond the original context.
    LongRope {
        /// Divisors up to the original context.
        short: Vec<f64>,
        /// Divisors beyond.
        long: Vec<f64>,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Context length before stretching.
        original_positions: usize,
    },
    /// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
    Llama3 {
        /// The divisor of the lowest frequencies.
        factor: f64,
        /// Wavelengths above `original_positions / low_frequency_factor` are stretched.
        low_frequency_factor: f64,
        /// Wavelengths below `original_positions / high_frequency_factor` are kept.
        high_frequency_factor: f64,
        /// Context length before stretching.
        original_positions: usize,
    },
}

/// What reading the rotary embedding needs to know of the rest of the config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RopeContext {
    /// Base of a config that names none.
    pub(crate) theta: f64,
    pub(crate) head_dim: usize,
    pub(crate) max_positions: usize,
    /// Context length before stretching, where the family keeps it outside of the rotary settings.
    pub(crate) original_positions: Option<usize>,
    /// Whether the family may rotate a part of each head only.
    pub(crate) partial: bool,
}

impl RopeConfig {
    /// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (transformers 4).
    pub(crate) fn parse(config: Fields<'_>, context: RopeContext) -> Result<Self> {
        let parameters = config.object("rope_parameters")?;
        let scaling = match parameters {
            Some(parameters) => Some(parameters),
            None => config.object("rope_scaling")?,
        };
        Self::from_parts(config, parameters, scaling, "rope_theta", context)
    }

    /// As [`parse`](Self::parse), from an object of `rope_parameters` (`parameters`), one that describes scaling, and
    /// the whole config, in which the base may be called `theta`.
    pub(crate) fn from_parts(
        config: Fields<'_>,
        parameters: Option<Fields<'_>>,
        scaling: Option<Fields<'_>>,
        theta: &'static str,
        context: RopeContext,
    ) -> Result<Self> {
        // Both places are read, whichever style the file has: some tools write a mixture.
        let theta = match parameters.map(|fields| fields.optional_positive("rope_theta")).transpose()?.flatten() {
            Some(theta) => theta,
            None => config.optional_positive(theta)?.unwrap_or(context.theta),
        };
        let mut dimensions = context.head_dim;
        for fields in [Some(config), parameters].into_iter().flatten() {
            let Some(part) = fields.optional_positive("partial_rotary_factor")? else { continue };
            if part != 1.0 && !context.partial {
                return Err(Error::config("partial_rotary_factor", format!("only 1 is supported, got {part}")));
            }
            dimensions = (context.head_dim as f64 * part) as usize;
            if part > 1.0 || dimensions == 0 || !dimensions.is_multiple_of(2) {
                let reason = format!("{part} of {} components is no even number of them", context.head_dim);
                return Err(Error::config("partial_rotary_factor", reason));
            }
        }
        let scaling = match scaling {
            Some(fields) => RopeScaling::parse(fields, theta, dimensions, context)?,
            None => RopeScaling::Default,
        };
        Ok(Self { theta, dimensions, scaling })
    }

    /// Whether frequencies depend on the length of the sequence.
    pub(crate) fn varies(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
    }

    /// Which frequencies a sequence of this length has: lengths of the same regime have the same.
    pub(crate) fn regime(&self, length: usize) -> usize {
        match &self.scaling {
            RopeScaling::Dynamic { original_positions, .. } => length.max(*original_positions),
            RopeScaling::LongRope { original_positions, .. } => usize::from(length > *original_positions),
            _ => 0,
        }
    }

    /// Factor on cosines and sines.
    pub(crate) fn attention_factor(&self) -> f32 {
        match &self.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                *attention_factor as f32
            }
            _ => 1.0,
        }
    }

    /// Angles per position in a [`regime`](Self::regime), one for each pair of the rotated components of a head, highest
    /// frequency first.
    pub(crate) fn inverse_frequencies(&self, regime: usize) -> Vec<f32> {
        let theta = match &self.scaling {
            RopeScaling::Dynamic { factor, original_positions } => {
                let stretch = factor * (regime as f64 / *original_positions as f64) - (factor - 1.0);
                self.theta * stretch.powf(self.dimensions as f64 / (self.dimensions as f64 - 2.0))
            }
            _ => self.theta,
        };
        (0..self.dimensions / 2)
            .map(|pair| {
                // The reference computes the exponent in f32 and the rest in f32 as well; f64 differs by one rounding.
                let exponent = (2 * pair) as f32 / self.dimensions as f32;
                let frequency = (1.0 / theta.powf(f64::from(exponent))) as f32;
                self.apply(frequency, pair, regime)
            })
            .collect()
    }

    fn apply(&self, frequency: f32, pair: usize, regime: usize) -> f32 {
        match &self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => frequency,
            RopeScaling::Linear { factor } => frequency / *factor as f32,
            RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_positions, .. } => {
                // The pair that makes this many turns over the original context.
                let pair_of = |turns: f64| {
                    let dimensions = self.dimensions as f64;
                    dimensions * (*original_positions as f64 / (turns * TAU)).ln() / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (pair_of(*beta_fast), pair_of(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(self.dimensions as f64 - 1.0));
                if (high - low).abs() < f64::EPSILON {
                    high += 0.001;
                }
                let stretched = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                (f64::from(frequency) / factor * stretched + f64::from(frequency) * (1.0 - stretched)) as f32
            }
            RopeScaling::LongRope { short, long, .. } => {
                let divisors = if regime == 0 { short } else { long };
                (f64::from(frequency) / divisors.get(pair).copied().unwrap_or(1.0)) as f32
            }
            RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => {
                let original = *original_positions as f64;
                let wavelength = TAU / f64::from(frequency);
                let stretched = f64::from(frequency) / factor;
                if wavelength > original / low_frequency_factor {
                    stretched as f32
                } else if wavelength < original / high_frequency_factor {
                    frequency
                } else {
                    let smooth =
                        (original / wavelength - low_frequency_factor) / (high_frequency_factor - low_frequency_factor);
                    ((1.0 - smooth) * stretched + smooth * f64::from(frequency)) as f32
                }
            }
        }
    }
}

impl RopeScaling {
    fn parse(fields: Fields<'_>, theta: f64, dimensions: usize, context: RopeContext) -> Result<Self> {
        let rope_type = match fields.text("rope_type")? {
            Some(rope_type) => rope_type,
            None => fields.text("type")?.unwrap_or("default"),
        };
        let original_positions = || -> Result<usize> {
            Ok(match context.original_positions {
                Some(positions) => positions,
                None => fields.optional_dimension("original_max_position_embeddings")?.unwrap_or(context.max_positions),
            })
        };
        // Without a factor it is how much longer the context has become.
        let factor_of = |original: usize| {
            Ok(fields.optional_positive("factor")?.unwrap_or(context.max_positions as f64 / original as f64))
        };
        match rope_type {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear { factor: fields.positive("factor")? }),
            "dynamic" => {
                if dimensions <= 2 {
                    return Err(Error::config("head_dim", "dynamic rotary scaling needs more than 2 components"));
                }
                Ok(Self::Dynamic { factor: fields.positive("factor")?, original_positions: context.max_positions })
            }
            "yarn" => {
                if theta <= 1.0 {
                    return Err(Error::config("rope_theta", format!("yarn needs more than 1, got {theta}")));
                }
                let original_positions = original_positions()?;
                let factor = factor_of(original_positions)?;
                let attention_factor = match fields.optional_positive("attention_factor")? {
                    Some(attention_factor) => attention_factor,
                    None => yarn_attention_factor(fields, factor)?,
                };
                Ok(Self::Yarn {
                    factor,
                    attention_factor,
                    beta_fast: fields.optional_positive("beta_fast")?.unwrap_or(32.0),
                    beta_slow: fields.optional_positive("beta_slow")?.unwrap_or(1.0),
                    truncate: fields.flag("truncate", true)?,
                    original_positions,
                })
            }
            "longrope" | "su" => Self::parse_longrope(fields, dimensions, original_positions()?, factor_of),
            "llama3" => {
                let low_frequency_factor = fields.positive("low_freq_factor")?;
                let high_frequency_factor = fields.positive("high_freq_factor")?;
                if high_frequency_factor <= low_frequency_factor {
                    return Err(Error::config(
                        "high_freq_factor",
                        format!("must exceed low_freq_factor {low_frequency_factor}, got {high_frequency_factor}"),
                    ));
                }
                Ok(Self::Llama3 {
                    factor: fields.positive("factor")?,
                    low_frequency_factor,
                    high_frequency_factor,
                    original_positions: fields.dimension("original_max_position_embeddings")?,
                })
            }
            other => Err(Error::UnsupportedRope { rope_type: other.to_owned(), supported: SUPPORTED }),
        }
    }

    fn parse_longrope(
        fields: Fields<'_>,
        dimensions: usize,
        original_positions: usize,
        factor_of: impl Fn(usize) -> Result<f64>,
    ) -> Result<Self> {
        let divisors = |field: &'static str| match fields.positives(field)? {
            Some(divisors) if divisors.len() == dimensions / 2 => Ok(divisors),
            _ => Err(Error::config(field, format!("a list of {} positive numbers is needed", dimensions / 2))),
        };
        let factor = factor_of(original_positions)?;
        let attention_factor = match fields.optional_positive("attention_factor")? {
            Some(attention_factor) => attention_factor,
            None if factor <= 1.0 => 1.0,
            None if original_positions < 2 => {
                return Err(Error::config("original_max_position_embeddings", "longrope needs more than 1"));
            }
            None => (1.0 + factor.ln() / (original_positions as f64).ln()).sqrt(),
        };
        let (short, long) = (divisors("short_factor")?, divisors("long_factor")?);
        Ok(Self::LongRope { short, long, attention_factor, original_positions })
    }
}

/// The factor that the authors of YaRN recommend, or the ratio of two that a config may ask for.
fn yarn_attention_factor(fields: Fields<'_>, factor: f64) -> Result<f64> {
    let recommended = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    Ok(match (fields.optional_positive("mscale")?, fields.optional_positive("mscale_all_dim")?) {
        (Some(scale), Some(all)) => recommended(scale) / recommended(all),
        _ => recommended(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const CONTEXT: RopeContext =
        RopeContext { theta: 10000.0, head_dim: 8, max_positions: 64, original_positions: None, partial: false };

    fn parse(value: &Value) -> Result<RopeConfig> {
        RopeConfig::parse(Fields::new(value)?, CONTEXT)
    }

    #[test]
    fn both_styles_of_config_mean_the_same() {
        let llama3 = |kind: &str| {
            json!({kind: "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192})
        };
        let old = json!({"rope_theta": 5e5, "rope_scaling": llama3("rope_type")});
        let older = json!({"rope_theta": 5e5, "rope_scaling": llama3("type")});
        let mut parameters = llama3("rope_type");
        parameters["rope_theta"] = json!(5e5);
        let new = json!({"rope_parameters": parameters});
        assert_eq!(parse(&old).unwrap(), parse(&new).unwrap());
        assert_eq!(parse(&older).unwrap(), parse(&new).unwrap());
        let plain = RopeConfig { theta: 10000.0, dimensions: 8, scaling: RopeScaling::Default };
        assert_eq!(parse(&json!({})).unwrap(), plain);
        assert_eq!(parse(&json!({"rope_scaling": null, "rope_theta": 7})).unwrap().theta, 7.0);
    }

    #[test]
    fn unknown_types_say_what_is_supported() {
        let message = parse(&json!({"rope_scaling": {"type": "spiral", "factor": 4}})).unwrap_err().to_string();
        assert!(message.contains("spiral") && message.contains("llama3"), "{message}");
    }

    #[test]
    fn llama3_keeps_high_and_stretches_low_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192,
        };
        let plain = RopeConfig { theta: 5e5, dimensions: 128, scaling: RopeScaling::Default }.inverse_frequencies(0);
        let scaled = RopeConfig { theta: 5e5, dimensions: 128, scaling }.inverse_frequencies(0);
        assert_eq!(plain[0], scaled[0]);
        assert!((scaled[63] - plain[63] / 8.0).abs() < 1e-12);
        let blended = plain.iter().zip(&scaled).filter(|(p, s)| *s < *p && **s > **p / 7.9).count();
        assert!(blended > 0);
        assert!(scaled.windows(2).all(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn yarn_blends_along_a_ramp() {
        let yarn = parse(&json!({"rope_scaling": {"type": "yarn", "factor": 4.0}})).unwrap();
        assert_eq!(yarn.attention_factor(), (0.1 * 4.0_f64.ln() + 1.0) as f32);
        let plain = parse(&json!({})).unwrap().inverse_frequencies(0);
        let scaled = yarn.inverse_frequencies(0);
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[3] - plain[3] / 4.0).abs() < 1e-9);
        assert!(parse(&json!({"rope_theta": 1.0, "rope_scaling": {"type": "yarn", "factor": 4.0}})).is_err());
    }

    #[test]
    fn lengths_beyond_the_original_context_have_other_frequencies() {
        let dynamic = parse(&json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}})).unwrap();
        assert_eq!((dynamic.regime(3), dynamic.regime(64), dynamic.regime(65)), (64, 64, 65));
        let plain = parse(&json!({})).unwrap().inverse_frequencies(0);
        assert_eq!(dynamic.inverse_frequencies(64), plain);
        assert!(dynamic.inverse_frequencies(128)[3] < plain[3]);
        let factors = json!({"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 3, 4],
            "original_max_position_embeddings": 16});
        let long = parse(&json!({"rope_scaling": factors})).unwrap();
        assert_eq!((long.regime(16), long.regime(17)), (0, 1));
        assert_eq!(long.inverse_frequencies(0), plain);
        assert!((long.inverse_frequencies(1)[3] - plain[3] / 4.0).abs() < 1e-9);
        assert_eq!(long.attention_factor(), (1.0 + 4.0_f64.ln() / 16.0_f64.ln()).sqrt() as f32);
        let short = json!({"type": "longrope", "short_factor": [1, 1], "long_factor": [1, 2, 3, 4]});
        assert!(parse(&json!({"rope_scaling": short})).unwrap_err().to_string().contains("short_factor"));
    }
}
