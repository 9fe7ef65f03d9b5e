use crate::{Error, Result};

/// Theoretical compression rate of a sparsity and a bit width against 16 bits: the paper's.
///
/// ```text
/// TCr(s, q) = 1 − (1 − s) · q / 16
/// ```
///
/// Masks, scales and zero points are ignored on purpose: it compares configurations, not file sizes.
///
/// # Errors
/// [`Error::Sparsity`] outside of `[0, 1)`, [`Error::Bits`] outside of `[1, 16]`.
///
/// # Examples
/// ```
/// use sparq_metric::tcr;
/// assert_eq!(tcr(0.0, 3.0)?, 0.8125);
/// assert_eq!(tcr(0.25, 4.0)?, 0.8125); // the same size as 3 bits alone
/// assert!(tcr(1.0, 4.0).is_err());
/// # Ok::<(), sparq_metric::Error>(())
/// ```
pub fn tcr(sparsity: f64, bits: f64) -> Result<f64> {
    check(sparsity, bits)?;
    Ok(1.0 - (1.0 - sparsity) * bits / 16.0)
}

/// Checks that `sparsity` and `bits` are in range; NaN is not.
pub(crate) fn check(sparsity: f64, bits: f64) -> Result<()> {
    if !(0.0..1.0).contains(&sparsity) {
        return Err(Error::Sparsity { value: sparsity });
    }
    if !(1.0..=16.0).contains(&bits) {
        return Err(Error::Bits { value: bits });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table_of_the_definition() {
        for (sparsity, bits, expected) in [
            (0.0, 4.0, 0.75),
            (0.5, 8.0, 0.75),
            (0.2, 5.0, 0.75),
            (0.0, 3.0, 0.8125),
            (0.25, 4.0, 0.8125),
            (0.5, 6.0, 0.8125),
            (0.0, 2.0, 0.875),
            (0.5, 4.0, 0.875),
            (1.0 / 3.0, 3.0, 0.875),
            (0.0, 16.0, 0.0),
        ] {
            assert!((tcr(sparsity, bits).unwrap() - expected).abs() < 1e-12, "({sparsity}, {bits})");
        }
    }

    #[test]
    fn out_of_range_is_refused() {
        for (sparsity, bits) in [(-0.1, 4.0), (1.0, 4.0), (f64::NAN, 4.0), (0.5, 0.0), (0.5, 17.0), (0.5, f64::NAN)] {
            assert!(tcr(sparsity, bits).is_err(), "({sparsity}, {bits})");
        }
    }

    proptest! {
        #[test]
        fn grows_with_sparsity_and_shrinks_with_bits(s in 0.0..0.99_f64, t in 0.0..0.99_f64, q in 1.0..16.0_f64, r in 1.0..16.0_f64) {
            let (low, high) = (s.min(t), s.max(t));
            prop_assert!(tcr(low, q).unwrap() <= tcr(high, q).unwrap());
            let (few, many) = (q.min(r), q.max(r));
            prop_assert!(tcr(s, few).unwrap() >= tcr(s, many).unwrap());
            prop_assert!((0.0..1.0).contains(&tcr(s, q).unwrap()));
        }
    }
}
