use super::Fields;
use crate::{Error, Result};

const SUPPORTED: &str = "default, linear, llama3";

/// Rotary position embedding: the base and how its frequencies are stretched for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Change of the frequencies for contexts longer than trained on.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
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

impl RopeConfig {
    /// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (transformers 4).
    pub(super) fn parse(config: Fields<'_>, default_theta: f64) -> Result<Self> {
        let parameters = config.object("rope_parameters")?;
        let scaling = match parameters {
            Some(parameters) => Some(parameters),
            None => config.object("rope_scaling")?,
        };
        // Both places are read, whichever style the file has: some tools write a mixture.
        let theta = match parameters.map(|fields| fields.optional_positive("rope_theta")).transpose()?.flatten() {
            Some(theta) => theta,
            None => config.optional_positive("rope_theta")?.unwrap_or(default_theta),
        };
        for fields in [Some(config), parameters].into_iter().flatten() {
            if let Some(part) = fields.optional_positive("partial_rotary_factor")?
                && part != 1.0
            {
                return Err(Error::config("partial_rotary_factor", format!("only 1 is supported, got {part}")));
            }
        }
        let scaling = match scaling {
            Some(fields) => RopeScaling::parse(fields)?,
            None => RopeScaling::Default,
        };
        Ok(Self { theta, scaling })
    }

    /// Angles per position, one for each pair of the `head_dim` components of a head, highest frequency first.
    pub(crate) fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|pair| {
                // The reference computes the exponent in f32 and the rest in f32 as well; f64 differs by one rounding.
                let exponent = (2 * pair) as f32 / head_dim as f32;
                let frequency = (1.0 / self.theta.powf(f64::from(exponent))) as f32;
                self.scaling.apply(frequency)
            })
            .collect()
    }
}

impl RopeScaling {
    fn parse(fields: Fields<'_>) -> Result<Self> {
        let rope_type = match fields.text("rope_type")? {
            Some(rope_type) => rope_type,
            None => fields.text("type")?.unwrap_or("default"),
        };
        match rope_type {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear { factor: fields.positive("factor")? }),
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

    fn apply(&self, frequency: f32) -> f32 {
        match *self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => {
                let original = original_positions as f64;
                let wavelength = std::f64::consts::TAU / f64::from(frequency);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(value: &Value) -> Result<RopeConfig> {
        RopeConfig::parse(Fields::new(value)?, 10000.0)
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
        assert_eq!(parse(&json!({})).unwrap(), RopeConfig { theta: 10000.0, scaling: RopeScaling::Default });
        assert_eq!(parse(&json!({"rope_scaling": null, "rope_theta": 7})).unwrap().theta, 7.0);
    }

    #[test]
    fn unknown_types_say_what_is_supported() {
        let message = parse(&json!({"rope_scaling": {"type": "yarn", "factor": 4}})).unwrap_err().to_string();
        assert!(message.contains("yarn") && message.contains("llama3"), "{message}");
    }

    #[test]
    fn llama3_keeps_high_and_stretches_low_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_positions: 8192,
        };
        let plain = RopeConfig { theta: 5e5, scaling: RopeScaling::Default }.inverse_frequencies(128);
        let scaled = RopeConfig { theta: 5e5, scaling }.inverse_frequencies(128);
        assert_eq!(plain[0], scaled[0]);
        assert!((scaled[63] - plain[63] / 8.0).abs() < 1e-12);
        let blended = plain.iter().zip(&scaled).filter(|(p, s)| *s < *p && **s > **p / 7.9).count();
        assert!(blended > 0);
        assert!(scaled.windows(2).all(|pair| pair[1] < pair[0]));
    }
}
