use super::{RopeConfig, RopeScaling};
use std::f64::consts::TAU;

impl RopeConfig {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rope::testing::parse;
    use serde_json::json;

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
