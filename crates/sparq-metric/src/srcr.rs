use crate::tcr::check;
use crate::{Error, Result, tcr};
use serde::{Deserialize, Serialize};

/// How retention and compression are joined into one number to be maximised over sparsity and bits.
///
/// SrCr chooses a configuration for one model; configurations are compared by Sr at equal TCr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SrcrForm {
    /// OURS, of the published shape (square root of the pruning ratio, logarithm of the bit width):
    ///
    /// ```text
    /// C_s = √s      C_q = log₂(16 / q) / 4      SrCr = Sr · [1 − (1 − C_s)(1 − C_q)]
    /// ```
    ///
    /// It is `Sr · √s` for pruning only, `Sr · log₂(16/q) / 4` for quantization only, 0 for the uncompressed model and
    /// never above Sr.
    #[default]
    SqrtLog,
    /// OURS: `Sr · TCr`, for readers who want no extra credit for sparsity.
    Tcr,
    /// OURS: `Sr · MCr`, with the measured compression rate, `MCr = 1 − b / 16`: `b` are the bits that a weight takes in a
    /// file whose codes are entropy-coded, scales and tables included. Zeros are among what is coded, so sparsity is not
    /// looked at a second time.
    Measured,
}

impl SrcrForm {
    /// The factor, from 0 to 1, that multiplies Sr. `bits` are those of a weight that stays, for
    /// [`Measured`](Self::Measured) those of every weight as coded.
    ///
    /// # Errors
    /// [`Error::Sparsity`] outside of `[0, 1)`, [`Error::Bits`] outside of `[1, 16]`.
    ///
    /// # Examples
    /// ```
    /// use sparq_metric::SrcrForm;
    /// assert!((SrcrForm::SqrtLog.weight(0.0, 3.0)? - 0.603759).abs() < 1e-6);
    /// assert_eq!(SrcrForm::Tcr.weight(0.0, 3.0)?, 0.8125);
    /// assert_eq!(SrcrForm::Measured.weight(0.25, 3.0)?, 0.8125);
    /// # Ok::<(), sparq_metric::Error>(())
    /// ```
    pub fn weight(self, sparsity: f64, bits: f64) -> Result<f64> {
        match self {
            Self::SqrtLog => {
                check(sparsity, bits)?;
                let pruned = sparsity.sqrt();
                let quantized = (16.0 / bits).log2() / 4.0;
                Ok(1.0 - (1.0 - pruned) * (1.0 - quantized))
            }
            Self::Tcr => tcr(sparsity, bits),
            Self::Measured => tcr(0.0, bits.max(1.0)),
        }
    }

    /// SrCr of a configuration that keeps `sr` of the base model's performance.
    ///
    /// # Errors
    /// Those of [`weight`](Self::weight); [`Error::Retention`] if `sr` is negative or not finite.
    ///
    /// # Examples
    /// ```
    /// use sparq_metric::SrcrForm;
    /// assert_eq!(SrcrForm::SqrtLog.score(0.8, 0.25, 4.0)?, 0.8 * 0.75);
    /// # Ok::<(), sparq_metric::Error>(())
    /// ```
    pub fn score(self, sr: f64, sparsity: f64, bits: f64) -> Result<f64> {
        if !(sr >= 0.0 && sr.is_finite()) {
            return Err(Error::Retention { value: sr });
        }
        Ok(sr * self.weight(sparsity, bits)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn check_values_of_the_definition() {
        for (sparsity, bits, expected) in [
            (0.25, 4.0, 0.75),
            (0.0, 3.0, 0.603759),
            (0.5, 4.0, 0.853553),
            (0.0, 2.0, 0.75),
            (0.5, 16.0, std::f64::consts::FRAC_1_SQRT_2),
        ] {
            let score = SrcrForm::SqrtLog.score(1.0, sparsity, bits).unwrap();
            assert!((score - expected).abs() < 5e-7, "({sparsity}, {bits}): {score}");
        }
        assert_eq!(SrcrForm::SqrtLog.score(1.0, 0.0, 16.0).unwrap(), 0.0);
        assert_eq!(SrcrForm::Tcr.score(0.5, 0.5, 4.0).unwrap(), 0.4375);
        assert_eq!(SrcrForm::default(), SrcrForm::SqrtLog);
    }

    #[test]
    fn bad_numbers_are_refused() {
        for sr in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(SrcrForm::SqrtLog.score(sr, 0.5, 4.0), Err(Error::Retention { .. })));
        }
        assert!(SrcrForm::SqrtLog.weight(1.0, 4.0).is_err());
        assert!(SrcrForm::Tcr.weight(0.5, 0.5).is_err());
    }

    proptest! {
        #[test]
        fn never_above_sr_and_monotonic(
            sr in 0.0..1.5_f64, s in 0.0..0.99_f64, t in 0.0..0.99_f64, q in 1.0..16.0_f64, r in 1.0..16.0_f64
        ) {
            for form in [SrcrForm::SqrtLog, SrcrForm::Tcr] {
                let score = form.score(sr, s, q).unwrap();
                prop_assert!(score >= 0.0 && score <= sr + 1e-12);
                prop_assert!(form.score(sr, s.min(t), q).unwrap() <= form.score(sr, s.max(t), q).unwrap() + 1e-12);
                prop_assert!(form.score(sr, s, q.min(r)).unwrap() + 1e-12 >= form.score(sr, s, q.max(r)).unwrap());
                prop_assert!(form.score(sr / 2.0, s, q).unwrap() <= score);
            }
        }

        #[test]
        fn reduces_to_its_parts(sr in 0.0..1.5_f64, s in 0.0..0.99_f64, q in 1.0..16.0_f64) {
            let form = SrcrForm::SqrtLog;
            prop_assert!((form.score(sr, s, 16.0).unwrap() - sr * s.sqrt()).abs() < 1e-12);
            prop_assert!((form.score(sr, 0.0, q).unwrap() - sr * (16.0 / q).log2() / 4.0).abs() < 1e-12);
        }
    }
}
