use crate::{CompressError, Result};

/// What is added to the diagonal of the Hessian before it is factored, as a fraction of the mean of that diagonal.
///
/// The default is 0.01, what every reference implementation uses. [`shrinkage`](Self::shrinkage) adds more when there are
/// few calibration tokens for each input channel. If the damped matrix is not positive definite,
/// [`Curvature`](crate::Curvature) multiplies the damping by 10 until it is, up to 1 (or the fraction, if that is more).
///
/// # Examples
/// ```
/// use sparq_core::Damping;
/// let damping = Damping::new(0.01)?.shrinkage(2.0)?;
/// assert_eq!(damping.of(512, 16_384), 0.0725); // 0.01 + 2 · 512 / 16,384
/// assert_eq!(damping.of(512, 512), 1.0); // no more than that
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices": an estimated covariance
/// is shrunk towards a multiple of the identity, more so when there are few samples for each variable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Damping {
    fraction: f64,
    shrinkage: f64,
}

impl Default for Damping {
    fn default() -> Self {
        Self::USUAL
    }
}

impl Damping {
    /// The largest fraction, and the largest shrinkage.
    pub const MOST: f64 = 1000.0;
    /// 0.01, what every reference implementation uses.
    pub(crate) const USUAL: Self = Self { fraction: 0.01, shrinkage: 0.0 };

    /// Damping with this `fraction` of the mean diagonal.
    ///
    /// # Errors
    /// [`CompressError::Setting`] unless `0 <= fraction <= 1000`.
    pub fn new(fraction: f64) -> Result<Self> {
        if (0.0..=Self::MOST).contains(&fraction) {
            Ok(Self { fraction, ..Self::default() })
        } else {
            Err(CompressError::Setting {
                name: "damping",
                value: fraction.to_string(),
                expected: "a fraction of the mean diagonal of the Hessian, 0 to 1000 (usual: 0.01)".into(),
            })
        }
    }

    /// Adds `shrinkage` times input channels over calibration tokens to the fraction; together no more than 1, or the
    /// fraction if that is more.
    ///
    /// # Errors
    /// [`CompressError::Setting`] unless `0 <= shrinkage <= 1000`.
    pub fn shrinkage(self, shrinkage: f64) -> Result<Self> {
        if (0.0..=Self::MOST).contains(&shrinkage) {
            Ok(Self { shrinkage, ..self })
        } else {
            Err(CompressError::Setting {
                name: "shrinkage",
                value: shrinkage.to_string(),
                expected: "a factor on input channels over calibration tokens, 0 to 1000".into(),
            })
        }
    }

    /// The fraction for a layer of so many input channels whose Hessian was summed over so many tokens.
    pub fn of(self, channels: usize, tokens: u64) -> f64 {
        (self.fraction + self.shrinkage * channels as f64 / tokens.max(1) as f64).min(self.limit())
    }

    /// The most that is ever tried.
    fn limit(self) -> f64 {
        self.fraction.max(1.0)
    }

    /// The constant part.
    pub fn fraction(self) -> f64 {
        self.fraction
    }

    /// `factor` times what this damping is for a layer of so many input channels and calibration tokens, whatever their
    /// number; no more than [`MOST`](Self::MOST).
    pub fn scaled(self, factor: f64, channels: usize, tokens: u64) -> Self {
        Self { fraction: (factor * self.of(channels, tokens)).min(Self::MOST), shrinkage: 0.0 }
    }

    /// What is tried, from `first` on: ten times as much each time, the limit at last.
    pub(crate) fn ladder(self, first: f64) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(first), move |&last| {
            let next = if last == 0.0 { 1e-4 } else { last * 10.0 };
            (last < self.limit()).then_some(next.min(self.limit()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_grows_with_channels_over_tokens_up_to_the_limit() {
        let growing = Damping::new(0.01).and_then(|damping| damping.shrinkage(2.0)).expect("valid");
        assert_eq!(growing.of(3, 100), 0.01 + 2.0 * 3.0 / 100.0);
        assert_eq!(growing.of(3, 0), 1.0, "no tokens count as one");
        assert_eq!(Damping::new(5.0).and_then(|damping| damping.shrinkage(9.0)).expect("valid").of(3, 1), 5.0);
        assert!(Damping::default().shrinkage(-1.0).is_err() && Damping::default().shrinkage(f64::NAN).is_err());
        assert!(Damping::new(-0.1).is_err() && Damping::new(1000.1).is_err());
    }

    #[test]
    fn the_ladder_ends_at_the_limit() {
        let steps = |fraction: f64| Damping::new(fraction).expect("valid").ladder(fraction).collect::<Vec<_>>();
        assert_eq!(steps(0.3), [0.3, 1.0]);
        assert_eq!(steps(0.0), [0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]);
        assert_eq!(steps(7.0), [7.0]);
    }

    #[test]
    fn a_scaled_damping_no_longer_depends_on_tokens() {
        let damping = Damping::new(0.01).and_then(|damping| damping.shrinkage(2.0)).expect("valid");
        let scaled = damping.scaled(3.0, 3, 100);
        assert_eq!((scaled.of(3, 100), scaled.of(3, 7)), (3.0 * damping.of(3, 100), 3.0 * damping.of(3, 100)));
        assert_eq!(Damping::new(900.0).expect("valid").scaled(10.0, 1, 1).of(1, 1), Damping::MOST);
    }
}
