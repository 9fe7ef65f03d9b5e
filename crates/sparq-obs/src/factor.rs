use ndarray::{Array2, ArrayView1, ArrayView2, s};
use sparq_core::{CompressError, Fallback, Hessian, LayerProblem, Result, SharedHessian};
use std::sync::Arc;

/// What is added to the diagonal of the Hessian before it is factored, as a fraction of the mean of that diagonal.
///
/// The default is 0.01, what every reference implementation uses. With [`shrinkage`](Self::shrinkage) it grows with what the
/// Hessian cannot know: a sum over few tokens says little about many channels. If the damped matrix is not positive
/// definite the damping is multiplied by 10 until it is, up to 1 (or the fraction, if that is more); then only the
/// diagonal is used; then nothing. Every step is reported.
///
/// # Examples
/// ```
/// use sparq_obs::Damping;
/// let damping = Damping::new(0.01)?.shrinkage(2.0)?;
/// assert_eq!(damping.of(512, 16_384), 0.0725); // 0.01 + 2 · 512 / 16,384
/// assert_eq!(damping.of(512, 512), 1.0); // no more than that
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// That an estimated covariance is to be shrunk towards a multiple of the identity, the more the fewer samples it has for
/// each variable: Ledoit & Wolf 2004 (A well-conditioned estimator for large-dimensional covariance matrices).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Damping {
    fraction: f64,
    shrinkage: f64,
}

impl Default for Damping {
    fn default() -> Self {
        Self { fraction: 0.01, shrinkage: 0.0 }
    }
}

impl Damping {
    /// The largest fraction.
    pub const MOST: f64 = 1000.0;

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
        if (0.0..=1000.0).contains(&shrinkage) {
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

    /// What it adds to the diagonal of a Hessian; none if that carries no information.
    pub(crate) fn shift(self, hessian: &Hessian) -> Option<f64> {
        let diagonal = hessian.diagonal()?;
        mean(diagonal.view()).map(|mean| self.of(diagonal.len(), hessian.tokens()) * mean)
    }

    /// What is tried, from `first` on: ten times as much each time, at last the limit.
    fn ladder(self, first: f64) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(first), move |&last| {
            let next = if last == 0.0 { 1e-4 } else { last * 10.0 };
            (last < self.limit()).then_some(next.min(self.limit()))
        })
    }
}

/// The mean of the diagonal of a Hessian, if it is positive and finite.
fn mean(diagonal: ArrayView1<'_, f32>) -> Option<f64> {
    let mean = diagonal.iter().map(|&value| f64::from(value)).sum::<f64>() / diagonal.len().max(1) as f64;
    (mean.is_finite() && mean > 0.0).then_some(mean)
}

/// `U` with `(H + damping)⁻¹ = UᵀU`, or as much of it as could be had.
#[derive(Debug, Clone, PartialEq)]
pub struct InverseFactor {
    upper: Option<Array2<f32>>,
    diagonal: Vec<f32>,
}

/// A factor with the story of how it was reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Factored {
    /// The factor.
    pub factor: InverseFactor,
    /// Damping used, as a fraction of the mean diagonal.
    pub damping: f64,
    /// Steps down the ladder.
    pub fallbacks: Vec<Fallback>,
}

impl InverseFactor {
    /// Factors `hessian` of a layer with `width` input channels.
    ///
    /// Never fails: what cannot be factored falls back to the diagonal, then to equal weights, and
    /// [`Factored::fallbacks`] says so. Same bits for any number of threads.
    pub fn factorize(hessian: &Hessian, width: usize, damping: Damping) -> Factored {
        let mut fallbacks = Vec::new();
        let asked = damping.of(width, hessian.tokens());
        let diagonal = hessian.diagonal().filter(|diagonal| diagonal.len() == width).unwrap_or_default();
        let dead = diagonal.iter().filter(|&&value| value == 0.0).count();
        if dead > 0 && dead < width {
            fallbacks.push(Fallback::DeadChannels { count: dead });
        }
        let Some(mean) = mean(diagonal.view()) else {
            fallbacks.push(Fallback::NoCurvature);
            return Factored { factor: Self::identity(width), damping: asked, fallbacks };
        };
        if let Hessian::Full { matrix, tokens } = hessian {
            if *tokens < width as u64 {
                fallbacks.push(Fallback::FewTokens { tokens: *tokens, channels: width });
            }
            for fraction in damping.ladder(asked) {
                if let Ok(upper) = sparq_linalg::inverse_factor(matrix.view(), fraction * mean) {
                    if fraction > asked {
                        fallbacks.push(Fallback::RaisedDamping { requested: asked, used: fraction });
                    }
                    let diagonal = upper.diag().to_vec();
                    return Factored { factor: Self { upper: Some(upper), diagonal }, damping: fraction, fallbacks };
                }
            }
        }
        fallbacks.push(Fallback::DiagonalHessian);
        let fraction = asked.max(1e-4);
        let factor = Self::from_diagonal(diagonal.view(), fraction * mean);
        Factored { factor, damping: fraction, fallbacks }
    }

    /// As [`factorize`](Self::factorize), of the statistics of `problem`: once for all that share them.
    pub fn of(problem: &LayerProblem<'_>, damping: Damping) -> Arc<Factored> {
        let width = problem.weight().ncols();
        let key = damping.of(width, problem.hessian().tokens()).to_bits();
        problem.derive(key, |hessian| Self::factorize(hessian, width, damping))
    }

    /// As [`factorize`](Self::factorize), of statistics over `width` channels: once for all that share them.
    pub fn of_shared(shared: &SharedHessian, width: usize, damping: Damping) -> Arc<Factored> {
        let key = damping.of(width, shared.hessian().tokens()).to_bits();
        shared.derive(key, |hessian| Self::factorize(hessian, width, damping))
    }

    /// The factor of the identity: every weight counts the same and nothing is compensated.
    pub fn identity(width: usize) -> Self {
        Self { upper: None, diagonal: vec![1.0; width] }
    }

    fn from_diagonal(diagonal: ArrayView1<'_, f32>, shift: f64) -> Self {
        let entry = |&value: &f32| (1.0 / (f64::from(value.max(0.0)) + shift).sqrt()) as f32;
        Self { upper: None, diagonal: diagonal.iter().map(entry).collect() }
    }

    /// Number of input channels.
    pub fn width(&self) -> usize {
        self.diagonal.len()
    }

    /// `U[j, j]`, `[in]`, all positive.
    pub fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    /// The diagonal of `(H + damping)⁻¹`, `[in]`, all positive.
    pub fn inverse_diagonal(&self) -> Vec<f32> {
        match &self.upper {
            Some(upper) => {
                let square =
                    |column: ArrayView1<'_, f32>| column.iter().map(|&u| f64::from(u) * f64::from(u)).sum::<f64>();
                upper.columns().into_iter().map(|column| square(column) as f32).collect()
            }
            None => self.diagonal.iter().map(|value| value * value).collect(),
        }
    }

    /// `b (H + damping)⁻¹` for `b` of shape `[rows, in]`: two matrix products.
    ///
    /// ```
    /// use ndarray::array;
    /// use sparq_core::Hessian;
    /// use sparq_obs::{Damping, InverseFactor};
    /// let hessian = Hessian::Full { matrix: array![[2.0, 0.0], [0.0, 4.0]], tokens: 8 };
    /// let factor = InverseFactor::factorize(&hessian, 2, Damping::new(0.0)?).factor;
    /// assert_eq!(factor.solve(array![[4.0, 4.0]].view()).mapv(f32::round), array![[2.0, 1.0]]);
    /// # Ok::<(), sparq_core::CompressError>(())
    /// ```
    ///
    /// # Panics
    /// In debug builds if the widths differ.
    pub fn solve(&self, b: ArrayView2<'_, f32>) -> Array2<f32> {
        let Some(upper) = &self.upper else {
            return &b * &ndarray::aview1(&self.diagonal).mapv(|value| value * value);
        };
        let mut half = Array2::zeros(b.dim());
        sparq_linalg::gemm(1.0, b, upper.t(), 0.0, half.view_mut());
        let mut solved = Array2::zeros(b.dim());
        sparq_linalg::gemm(1.0, half.view(), upper.view(), 0.0, solved.view_mut());
        solved
    }

    /// Rows and columns `columns` of `U`; none if nothing is compensated.
    pub(crate) fn block(&self, columns: std::ops::Range<usize>) -> Option<ArrayView2<'_, f32>> {
        self.upper.as_ref().map(|upper| upper.slice(s![columns.clone(), columns]))
    }

    /// Rows `columns` of `U` right of them; none if nothing is compensated.
    pub(crate) fn right_of(&self, columns: std::ops::Range<usize>) -> Option<ArrayView2<'_, f32>> {
        let end = columns.end;
        self.upper.as_ref().map(|upper| upper.slice(s![columns, end..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, array};

    fn full(matrix: Array2<f32>) -> Hessian {
        Hessian::Full { matrix, tokens: 100 }
    }

    #[test]
    fn the_ladder_is_climbed_and_reported() {
        let singular = full(Array2::ones((3, 3)));
        let good = InverseFactor::factorize(&singular, 3, Damping::new(0.01).expect("valid"));
        assert!(good.fallbacks.is_empty(), "{:?}", good.fallbacks);
        let indefinite = full(array![[1.0, 1.05], [1.05, 1.0]]);
        let raised = InverseFactor::factorize(&indefinite, 2, Damping::new(0.01).expect("valid"));
        assert_eq!(raised.fallbacks, [Fallback::RaisedDamping { requested: 0.01, used: 0.1 }]);
        let steps: Vec<f64> = Damping::new(0.3).expect("valid").ladder(0.3).collect();
        assert_eq!(steps, [0.3, 1.0], "the limit is tried, however it is reached");
        let hopeless = full(array![[1.0, 9.0], [9.0, 1.0]]);
        let diagonal = InverseFactor::factorize(&hopeless, 2, Damping::default());
        assert_eq!(diagonal.fallbacks, [Fallback::DiagonalHessian]);
        assert!(diagonal.factor.block(0..1).is_none());
    }

    #[test]
    fn shrinkage_is_damping_by_channels_over_tokens() {
        let hessian = full(array![[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]]);
        let constant = Damping::new(0.01 + 2.0 * 3.0 / 100.0).expect("valid");
        let growing = Damping::new(0.01).and_then(|damping| damping.shrinkage(2.0)).expect("valid");
        assert_eq!(
            InverseFactor::factorize(&hessian, 3, growing),
            InverseFactor::factorize(&hessian, 3, constant),
            "the same factor, and what was used is reported"
        );
        assert_eq!(growing.shift(&hessian), constant.shift(&hessian));
        assert_eq!(growing.of(3, 0), 1.0, "no tokens are as good as one");
        assert_eq!(Damping::new(5.0).and_then(|damping| damping.shrinkage(9.0)).expect("valid").of(3, 1), 5.0);
        assert!(Damping::default().shrinkage(-1.0).is_err() && Damping::default().shrinkage(f64::NAN).is_err());
    }

    #[test]
    fn nothing_known_means_equal_weights() {
        for hessian in [
            Hessian::None,
            full(Array2::zeros((2, 2))),
            full(Array2::from_elem((2, 2), f32::NAN)),
            Hessian::Diagonal { sums: Array1::zeros(2), tokens: 1 },
        ] {
            let factored = InverseFactor::factorize(&hessian, 2, Damping::default());
            assert_eq!(factored.factor, InverseFactor::identity(2));
            assert_eq!(factored.fallbacks, [Fallback::NoCurvature]);
        }
    }

    #[test]
    fn dead_channels_and_few_tokens_are_named() {
        let hessian = Hessian::Full { matrix: array![[0.0, 0.0], [0.0, 4.0]], tokens: 1 };
        let factored = InverseFactor::factorize(&hessian, 2, Damping::default());
        assert_eq!(
            factored.fallbacks,
            [Fallback::DeadChannels { count: 1 }, Fallback::FewTokens { tokens: 1, channels: 2 }]
        );
        assert!(factored.factor.diagonal().iter().all(|value| value.is_finite() && *value > 0.0));
    }

    #[test]
    fn a_factor_on_the_hessian_changes_only_the_scale() {
        let h = array![[4.0_f32, 1.0], [1.0, 3.0]];
        let one = InverseFactor::factorize(&full(h.clone()), 2, Damping::default()).factor;
        let four = InverseFactor::factorize(&full(h * 4.0), 2, Damping::default()).factor;
        for (x, y) in one.diagonal().iter().zip(four.diagonal()) {
            assert!((x - 2.0 * y).abs() < 1e-6);
        }
    }
}
