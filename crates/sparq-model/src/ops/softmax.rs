use super::{exp, wide};

/// Independent partial sums, so that loops vectorise and still add in one order.
const LANES: usize = 16;
/// Values summed in f32 before going on in f64: 64 per lane, so that rounding stays near 1e-6 for any vocabulary.
const CHUNK: usize = 1024;

/// Softmax statistics of one row of logits: `log p(t) = (z_t − max) − log_sum`, in nats.
///
/// Same bits on every machine.
///
/// # Examples
/// ```
/// use sparq_model::Softmax;
/// let logits = [0.0_f32, 3.0_f32.ln()]; // probabilities 1/4 and 3/4
/// let softmax = Softmax::of(&logits);
/// assert_eq!(softmax.best, 1);
/// assert!((softmax.log_probability(&logits, 0) - 0.25_f64.ln()).abs() < 1e-6);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Softmax {
    /// Largest logit.
    pub max: f32,
    /// Index of the largest logit; of equal ones, the first.
    pub best: u32,
    /// `ln Σ exp(z − max)`.
    pub log_sum: f64,
}

impl Softmax {
    /// Statistics of one row. A row with NaN or without any finite largest value gives a `log_sum` that is not finite.
    pub fn of(logits: &[f32]) -> Self {
        let (max, sum) = wide(
            #[inline(always)]
            || {
                let max = largest(logits);
                (max, sum_of(logits, logits, |logit, _| exp(logit - max)))
            },
        );
        // A second pass finds the index: in the loop above it would prevent vectorising.
        let best = logits.iter().position(|logit| *logit == max).unwrap_or(0) as u32;
        // exp clamps infinities, so they are checked for here. NaN makes the sum NaN.
        let log_sum = if max.is_finite() { sum.ln() } else { f64::NAN };
        Self { max, best, log_sum }
    }

    /// Logarithm of the probability of `token`; NaN for one that the row does not have.
    pub fn log_probability(&self, logits: &[f32], token: u32) -> f64 {
        let logit = logits.get(token as usize).copied().unwrap_or(f32::NAN);
        f64::from(logit) - f64::from(self.max) - self.log_sum
    }

    /// KL(self ‖ other) of two rows of one length, each with its statistics, in nats: never negative, exactly 0 for equal rows.
    pub fn divergence(&self, logits: &[f32], other: &Self, other_logits: &[f32]) -> f64 {
        let weighted = wide(
            #[inline(always)]
            || {
                sum_of(logits, other_logits, |logit, other_logit| {
                    let z = logit - self.max;
                    exp(z) * (z - (other_logit - other.max))
                })
            },
        );
        // Rounding alone can make it negative.
        let divergence = weighted / self.log_sum.exp() + (other.log_sum - self.log_sum);
        if divergence < 0.0 { 0.0 } else { divergence }
    }
}

#[inline(always)]
#[allow(clippy::inline_always)] // must be compiled with its caller, for the machine at hand
fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, larger);
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    lanes.into_iter().fold(rest, larger)
}

/// Sum of `term` over pairs of elements: in f32 within chunks, in f64 over chunks.
#[inline(always)]
#[allow(clippy::inline_always)] // `term` must be inlined into the loop for it to vectorise
fn sum_of(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    let mut total = 0.0_f64;
    for (a, b) in a.chunks(CHUNK).zip(b.chunks(CHUNK)) {
        let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = a_lanes.remainder().iter().zip(b_lanes.remainder());
        let rest: f64 = rest.map(|(a, b)| f64::from(term(*a, *b))).sum();
        let mut lanes = [0.0_f32; LANES];
        for (a, b) in a_lanes.zip(b_lanes) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += term(*a, *b);
            }
        }
        total += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + rest;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log_probabilities(logits: &[f32]) -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|z| (f64::from(*z) - f64::from(max)).exp()).sum();
        logits.iter().map(|z| f64::from(*z) - f64::from(max) - sum.ln()).collect()
    }

    fn row(length: usize, seed: usize) -> Vec<f32> {
        (0..length).map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 50.0 - 10.0).collect()
    }

    #[test]
    fn agrees_with_f64_for_any_length() {
        for length in [1, 2, 15, 16, 17, 1000, 1024, 1025, 2065, 50_001] {
            let (base, other) = (row(length, 1), row(length, 2));
            let (base_row, other_row) = (Softmax::of(&base), Softmax::of(&other));
            let (p, q) = (log_probabilities(&base), log_probabilities(&other));
            for token in [0, length / 2, length - 1] {
                assert!((base_row.log_probability(&base, token as u32) - p[token]).abs() < 2e-6);
            }
            let expected: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
            let divergence = base_row.divergence(&base, &other_row, &other);
            assert!((divergence - expected).abs() < 2e-6 * expected.max(1.0), "{length}: {divergence} {expected}");
            assert_eq!(base_row.divergence(&base, &base_row, &base), 0.0);
        }
    }

    #[test]
    fn first_of_equal_logits_is_best() {
        assert_eq!(Softmax::of(&[1.0, 3.0, 3.0]).best, 1);
    }

    #[test]
    fn damage_is_visible() {
        let mut logits = row(100, 0);
        logits[40] = f32::NAN;
        assert!(!Softmax::of(&logits).log_sum.is_finite());
        assert!(!Softmax::of(&[0.0, f32::INFINITY]).log_sum.is_finite());
        assert!(!Softmax::of(&[f32::NEG_INFINITY; 3]).log_sum.is_finite());
        assert!(Softmax::of(&[0.0]).log_probability(&[0.0], 7).is_nan());
    }

    proptest! {
        #[test]
        fn divergence_is_never_negative(pairs in prop::collection::vec((-30.0..30.0_f32, -30.0..30.0_f32), 1..80)) {
            let (base, other): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            prop_assert!(Softmax::of(&base).divergence(&base, &Softmax::of(&other), &other) >= 0.0);
        }
    }
}
