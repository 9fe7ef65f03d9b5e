/// Below this the result would be subnormal; it is flushed to the value at this point, about 1.2e-38.
const LOWEST: f32 = -87.33;
/// Above this the result would overflow; it is held at the value at this point, about 1.7e38.
const HIGHEST: f32 = 88.02;
/// Adding 1.5 · 2²³ rounds an f32 of modest size to the nearest integer, which then sits in the low mantissa bits.
/// (SSE2, the baseline of x86-64, has no instruction for rounding.)
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts: the first has few enough bits for `n * LN2_HIGH` to be exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `eˣ` to about 1e-7 relative, with the same bits on every platform, and free of branches so that loops vectorise.
///
/// Arguments are clamped to `[-87.33, 88.02]`; NaN stays NaN.
#[inline(always)]
#[allow(clippy::inline_always)] // A call would stop the loops around it from vectorising.
pub(crate) fn exp(x: f32) -> f32 {
    // Comparisons rather than f32::max: they compile to one instruction each and keep NaN.
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    // x = n ln 2 + r, |r| <= ln 2 / 2
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Taylor to degree 7, whose remainder on |r| <= 0.347 is 5e-9.
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = r + r * r * p;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    scale + scale * p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_accurate_over_its_whole_range() {
        let mut worst = 0.0_f64;
        for step in 0..=1_750_000 {
            let x = -87.0 + step as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 1.5e-7, "{worst:e}");
    }

    #[test]
    fn ends_are_tame() {
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38 && exp(f32::NEG_INFINITY) >= 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(-1000.0) < 1.3e-38);
    }
}
