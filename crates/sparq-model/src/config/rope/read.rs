use super::{RopeConfig, RopeScaling};
use crate::config::Fields;
use crate::{Error, Result};

const SUPPORTED: &str = "default, linear, dynamic, yarn, longrope, llama3";

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
    use crate::config::rope::testing::parse;
    use serde_json::json;

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
}
