//! Rotary position embedding: what a config says of it, and the frequencies that follow.

mod frequencies;
mod read;
#[cfg(test)]
mod testing;

pub(crate) use read::RopeContext;

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
