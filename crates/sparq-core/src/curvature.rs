use crate::{
    ColumnOrder, Damping, Fallback, Hessian, HessianAccumulator, InverseFactor, Result, SolveReport, Statistics,
};
use ndarray::{ArrayView1, ArrayView2};
use std::sync::OnceLock;

/// What is known of a layer's inputs, and what solvers derive from it: the sums, the damping, and the factor of
/// `(H + λI)⁻¹`.
///
/// `λ` is decided here, once: masks, refit, column sweep, coordinate descent and drift all read the same `λ` and the same
/// factor. The factor is made when it is first asked for and kept, so layers that read the same input (q/k/v; gate/up)
/// share it. If `H + λI` is not positive definite, `λ` is raised step by step ([`Damping`]); if that fails, only the
/// diagonal of `H` is used; if that is zero or not finite, every weight counts the same. [`report`](Self::report) names
/// each step. The result is the same for any number of threads.
///
/// With [`act_order`](Self::act_order) the column sweep visits the most active channels first.
///
/// Memory: `H` and its factor, each `[in, in]` in `f32`; two such matrices of `f64` while the factor is made.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Curvature, Damping};
/// let inputs = array![[1.0_f32, 2.0], [0.0, 1.0]]; // [tokens, in]
/// let curvature = Curvature::of_inputs(inputs.view())?.with_damping(Damping::new(0.1)?);
/// assert_eq!(curvature.tokens(), 2);
/// assert_eq!(curvature.report().damping, Some(0.1)); // enough: nothing had to be raised
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug)]
pub struct Curvature {
    hessian: Hessian,
    damping: Damping,
    act_order: bool,
    factored: OnceLock<Factored>,
}

/// A factor and how it was reached.
#[derive(Debug, PartialEq)]
struct Factored {
    factor: InverseFactor,
    /// Damping used, as a fraction of the mean diagonal.
    damping: f64,
    /// What was added to the diagonal of the whole matrix; none if that was not used.
    shift: Option<f64>,
    fallbacks: Vec<Fallback>,
}

impl Curvature {
    /// From the sums over a layer's inputs, with the usual damping of 0.01.
    pub const fn new(hessian: Hessian) -> Self {
        Self { hessian, damping: Damping::USUAL, act_order: false, factored: OnceLock::new() }
    }

    /// Nothing is known of the inputs.
    pub const fn unknown() -> Self {
        Self::new(Hessian::None)
    }

    /// From the inputs of a layer, `[tokens, in]`.
    ///
    /// # Errors
    /// [`CompressError::Setting`](crate::CompressError::Setting) if a matrix of `[in, in]` cannot be addressed.
    pub fn of_inputs(inputs: ArrayView2<'_, f32>) -> Result<Self> {
        let mut accumulator = HessianAccumulator::new(inputs.ncols(), Statistics::Hessian)?;
        accumulator.add(inputs)?;
        Ok(Self::new(accumulator.finish()))
    }

    /// With this damping.
    #[must_use]
    pub fn with_damping(mut self, damping: Damping) -> Self {
        self.set_damping(damping);
        self
    }

    /// Changes the damping. A factor that was made with another one is dropped.
    pub fn set_damping(&mut self, damping: Damping) {
        self.damping = damping;
        self.factored = OnceLock::new();
    }

    /// Multiplies the damping that was asked for by `factor`.
    pub fn scale_damping(&mut self, factor: f64) {
        let width = self.hessian.shape().map_or(0, |(_, width)| width);
        self.set_damping(self.damping.scaled(factor, width, self.tokens()));
    }

    /// Whether the sweep visits channels by falling diagonal of `H` (act-order, also called desc_act). The default is
    /// their own order.
    #[must_use]
    pub fn act_order(self, on: bool) -> Self {
        Self { act_order: on, factored: OnceLock::new(), ..self }
    }

    /// Whether the sweep visits the most active channels first.
    pub fn is_act_order(&self) -> bool {
        self.act_order
    }

    /// The sums.
    pub fn hessian(&self) -> &Hessian {
        &self.hessian
    }

    /// The sums, without what was derived from them.
    pub fn into_hessian(self) -> Hessian {
        self.hessian
    }

    /// Tokens the sums were taken over.
    pub fn tokens(&self) -> u64 {
        self.hessian.tokens()
    }

    /// The damping that was asked for.
    pub fn damping(&self) -> Damping {
        self.damping
    }

    /// Sums of other inputs under the same settings.
    #[must_use]
    pub fn with_hessian(&self, hessian: Hessian) -> Self {
        Self { hessian, damping: self.damping, act_order: self.act_order, factored: OnceLock::new() }
    }

    /// The factor of `(H + λI)⁻¹`, or as much of it as could be had.
    pub fn factor(&self) -> &InverseFactor {
        &self.factored().factor
    }

    /// `H`, `[in, in]`, and the `λ` that makes it positive definite, in the units of `H`. None if only the diagonal of
    /// `H` is used, or nothing.
    pub fn damped(&self) -> Option<(ArrayView2<'_, f32>, f64)> {
        match (&self.hessian, self.factored().shift) {
            (Hessian::Full { matrix, .. }, Some(shift)) => Some((matrix.view(), shift)),
            _ => None,
        }
    }

    /// The damping that was used, and what could not be done as asked.
    pub fn report(&self) -> SolveReport {
        let factored = self.factored();
        SolveReport { damping: Some(factored.damping), fallbacks: factored.fallbacks.clone() }
    }

    fn factored(&self) -> &Factored {
        if let Some(factored) = self.factored.get() {
            return factored;
        }
        // Made outside of the cell: it is computed in parallel, and a thread that waits for a part of it may meet another
        // caller. Two callers at once make the same bits.
        let made = factorize(&self.hessian, self.damping, self.act_order);
        self.factored.get_or_init(|| made)
    }
}

impl From<Hessian> for Curvature {
    fn from(hessian: Hessian) -> Self {
        Self::new(hessian)
    }
}

fn factorize(hessian: &Hessian, damping: Damping, act_order: bool) -> Factored {
    let mut fallbacks = Vec::new();
    let diagonal = hessian.diagonal().unwrap_or_default();
    let width = diagonal.len();
    let asked = damping.of(width, hessian.tokens());
    let order = act_order.then(|| ColumnOrder::by_activation(diagonal.view()));
    let dead = diagonal.iter().filter(|&&value| value == 0.0).count();
    if dead > 0 && dead < width {
        fallbacks.push(Fallback::DeadChannels { count: dead });
    }
    let Some(mean) = mean(diagonal.view()) else {
        fallbacks.push(Fallback::NoCurvature);
        return Factored { factor: InverseFactor::identity(width, order), damping: asked, shift: None, fallbacks };
    };
    if let Hessian::Full { matrix, tokens } = hessian {
        if *tokens < width as u64 {
            fallbacks.push(Fallback::FewTokens { tokens: *tokens, channels: width });
        }
        let ordered = order.as_ref().map(|order| order.permute_both(matrix.view()));
        let matrix = ordered.as_ref().map_or(matrix.view(), |ordered| ordered.view());
        for fraction in damping.ladder(asked) {
            if let Ok(upper) = sparq_linalg::inverse_factor(matrix, fraction * mean) {
                if fraction > asked {
                    fallbacks.push(Fallback::RaisedDamping { requested: asked, used: fraction });
                }
                let (factor, shift) = (InverseFactor::new(upper, order), Some(fraction * mean));
                return Factored { factor, damping: fraction, shift, fallbacks };
            }
        }
    }
    fallbacks.push(Fallback::DiagonalHessian);
    let fraction = asked.max(1e-4);
    let factor = InverseFactor::from_diagonal(diagonal.view(), fraction * mean, order);
    Factored { factor, damping: fraction, shift: None, fallbacks }
}

/// The mean of the diagonal of a Hessian, if it is positive and finite.
fn mean(diagonal: ArrayView1<'_, f32>) -> Option<f64> {
    let mean = diagonal.iter().map(|&value| f64::from(value)).sum::<f64>() / diagonal.len().max(1) as f64;
    (mean.is_finite() && mean > 0.0).then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated_hessian, random};
    use ndarray::{Array1, Array2, array};

    fn full(matrix: Array2<f32>) -> Hessian {
        Hessian::Full { matrix, tokens: 100 }
    }

    fn curvature(hessian: &Hessian, damping: f64) -> Curvature {
        Curvature::new(hessian.clone()).with_damping(Damping::new(damping).expect("valid"))
    }

    #[test]
    fn the_ladder_is_climbed_and_reported() {
        let singular = full(Array2::ones((3, 3)));
        assert_eq!(curvature(&singular, 0.01).report().fallbacks, []);
        let indefinite = full(array![[1.0, 1.05], [1.05, 1.0]]);
        let raised = curvature(&indefinite, 0.01);
        assert_eq!(raised.report().fallbacks, [Fallback::RaisedDamping { requested: 0.01, used: 0.1 }]);
        assert_eq!(raised.report().damping, Some(0.1));
        assert_eq!(raised.damped().map(|(_, shift)| shift), Some(0.1), "all who ask get the damping that was used");
        assert_eq!(raised.factor(), curvature(&indefinite, 0.1).factor());
        let hopeless = curvature(&full(array![[2.0, 18.0], [18.0, 2.0]]), 0.01);
        // 1 / sqrt(h + λ) with λ = 0.01 · 2.
        assert!((hopeless.factor().diagonal()[0] - 1.0 / 2.02_f32.sqrt()).abs() < 1e-6);
        assert_eq!(hopeless.report().fallbacks, [Fallback::DiagonalHessian]);
        assert!(hopeless.factor().rows_of_block(0..1).is_empty() && hopeless.damped().is_none());
    }

    #[test]
    fn shrinkage_is_damping_by_channels_over_tokens() {
        let hessian = full(array![[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]]);
        let constant = curvature(&hessian, 0.01 + 2.0 * 3.0 / 100.0);
        let damping = Damping::new(0.01).and_then(|damping| damping.shrinkage(2.0)).expect("valid");
        let growing = Curvature::new(hessian).with_damping(damping);
        assert_eq!(growing.factored(), constant.factored());
    }

    #[test]
    fn nothing_known_means_equal_weights() {
        for hessian in [
            full(Array2::zeros((2, 2))),
            full(Array2::from_elem((2, 2), f32::NAN)),
            Hessian::Diagonal { sums: Array1::zeros(2), tokens: 1 },
        ] {
            let curvature = Curvature::new(hessian);
            assert_eq!(*curvature.factor(), InverseFactor::identity(2, None));
            assert_eq!(curvature.report().fallbacks, [Fallback::NoCurvature]);
        }
        assert_eq!(Curvature::unknown().report().fallbacks, [Fallback::NoCurvature]);
    }

    #[test]
    fn dead_channels_and_few_tokens_are_named() {
        let curvature = Curvature::new(Hessian::Full { matrix: array![[0.0, 0.0], [0.0, 4.0]], tokens: 1 });
        let named = [Fallback::DeadChannels { count: 1 }, Fallback::FewTokens { tokens: 1, channels: 2 }];
        assert_eq!(curvature.report().fallbacks, named);
        assert!(curvature.factor().diagonal().iter().all(|value| value.is_finite() && *value > 0.0));
        let enough = Curvature::new(Hessian::Full { matrix: array![[1.0, 0.0], [0.0, 4.0]], tokens: 2 });
        assert_eq!(enough.report().fallbacks, [], "a token for each channel");
    }

    #[test]
    fn a_factor_on_the_hessian_changes_only_the_scale() {
        let h = array![[4.0_f32, 1.0], [1.0, 3.0]];
        let (one, four) = (Curvature::new(full(h.clone())), Curvature::new(full(h * 4.0)));
        for (x, y) in one.factor().diagonal().iter().zip(four.factor().diagonal()) {
            assert!((x - 2.0 * y).abs() < 1e-6);
        }
    }

    #[test]
    fn the_order_of_channels_changes_no_answer() {
        let hessian = correlated_hessian(20, 3);
        let (plain, ordered) = (Curvature::new(hessian.clone()), Curvature::new(hessian).act_order(true));
        assert!(ordered.factor().order().is_some_and(|order| order.columns() != (0..20).collect::<Vec<_>>()));
        let near = |x: &f32, y: &f32| (x - y).abs() <= 1e-4 * (1.0 + y.abs());
        let diagonals = plain.factor().inverse_diagonal().into_iter().zip(ordered.factor().inverse_diagonal());
        assert!(diagonals.into_iter().all(|(x, y)| near(&x, &y)));
        let b = random(3, 20, 4);
        let [x, y] = [plain, ordered].map(|curvature| curvature.factor().solve(b.view()).expect("fits"));
        assert!(x.iter().zip(&y).all(|(x, y)| near(x, y)), "{x} {y}");
    }
}
