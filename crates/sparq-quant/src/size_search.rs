//! The size of steps at which codes have a given rate.

/// By how much of the rate a solution may miss it.
const TOLERANCE: f64 = 0.002;
/// Twice the size of steps halves a code: one bit less, somewhat less where most codes are zero.
const USUAL_SLOPE: f64 = 0.9;
/// Bits of a normal distribution beyond the logarithm of its deviation in steps: `log2 √(2πe)`.
const NORMAL_BITS: f64 = 2.047;

/// Finds the size by secants.
#[derive(Debug)]
pub(crate) struct SizeSearch {
    rate: f64,
    slope: f64,
    last: Option<(f64, f64)>,
}

impl SizeSearch {
    /// For this many bits a weight.
    pub(crate) fn new(rate: f64) -> Self {
        Self { rate, slope: USUAL_SLOPE, last: None }
    }

    /// The size to begin with, for weights of this deviation.
    pub(crate) fn start(&self, deviation: f64) -> f64 {
        (deviation * (NORMAL_BITS - self.rate).exp2()).max(f64::MIN_POSITIVE)
    }

    /// The size to try after `size` has given so many bits.
    pub(crate) fn next(&mut self, size: f64, bits: f64) -> f64 {
        if let Some((old_size, old_bits)) = self.last {
            let moved = (size / old_size).log2();
            let found = (old_bits - bits) / moved;
            if moved.abs() > 1e-3 && found.is_finite() {
                self.slope = found.clamp(0.3, 1.2);
            }
        }
        self.last = Some((size, bits));
        size * ((bits - self.rate) / self.slope).clamp(-3.0, 3.0).exp2()
    }

    /// Whether so many bits are near enough.
    pub(crate) fn is_met(&self, bits: f64) -> bool {
        (bits / self.rate - 1.0).abs() < TOLERANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_met_in_a_few_steps() {
        for rate in [0.3, 2.0, 7.5] {
            let bits = |size: f64| 0.1 + 0.7 * (1.0 + 1.0 / size).log2();
            let mut search = SizeSearch::new(rate);
            let mut size = search.start(1.0);
            let mut tries = 0;
            while !search.is_met(bits(size)) {
                size = search.next(size, bits(size));
                tries += 1;
                assert!(tries < 12, "{rate}: {size}");
            }
        }
    }
}
