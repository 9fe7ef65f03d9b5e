use ndarray::{Array2, ArrayView2, ArrayViewMut2, Zip};

/// Which weights of a layer stay: `true` = kept, shape `[out, in]`.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::Mask;
/// let mask = Mask::from_nonzero(array![[1.0_f32, 0.0], [0.0, 0.0]].view());
/// assert_eq!((mask.kept(), mask.sparsity()), (1, 0.75));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Array2<bool>);

impl Mask {
    /// A mask from its entries.
    pub fn new(kept: Array2<bool>) -> Self {
        Self(kept)
    }

    /// Everything stays.
    pub fn all(shape: (usize, usize)) -> Self {
        Self(Array2::from_elem(shape, true))
    }

    /// What is not exactly zero stays.
    pub fn from_nonzero(weight: ArrayView2<'_, f32>) -> Self {
        Self(weight.mapv(|value| value != 0.0))
    }

    /// The entries, `[out, in]`.
    pub fn view(&self) -> ArrayView2<'_, bool> {
        self.0.view()
    }

    /// The entries, to be changed.
    pub fn view_mut(&mut self) -> ArrayViewMut2<'_, bool> {
        self.0.view_mut()
    }

    /// `(out, in)`.
    pub fn dim(&self) -> (usize, usize) {
        self.0.dim()
    }

    /// Number of weights that stay.
    pub fn kept(&self) -> usize {
        self.0.iter().filter(|&&kept| kept).count()
    }

    /// Fraction of weights removed; 0 for an empty layer.
    pub fn sparsity(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { 1.0 - self.kept() as f64 / self.0.len() as f64 }
    }

    /// Sets every removed weight to exactly `+0.0`. A weight of another shape stays as it is.
    pub fn apply(&self, weight: &mut Array2<f32>) {
        if weight.dim() == self.0.dim() {
            Zip::from(weight).and(&self.0).for_each(|value, &kept| {
                if !kept {
                    *value = 0.0;
                }
            });
        }
    }
}
