use crate::{Error, Result};
use ndarray::ArrayView2;
use rayon::prelude::*;
use sparq_model::Softmax;

/// Mean over rows of KL(base ‖ other), in nats, for two models' scores of the same tokens, `[rows, vocabulary]` each.
/// Exactly 0 for equal scores; same value for any number of threads.
///
/// # Errors
/// [`Error::Baseline`] if the shapes differ or there is no row; [`Error::NotFinite`].
///
/// # Examples
/// ```
/// use ndarray::array;
/// let (even, skewed) = (array![[0.0_f32, 0.0]], array![[0.0, 9.0_f32.ln()]]);
/// let kl = sparq_eval::mean_divergence(even.view(), skewed.view())?; // of 1/2, 1/2 and 1/10, 9/10
/// assert!((kl - 0.5 * (5.0_f64.ln() + (5.0_f64 / 9.0).ln())).abs() < 1e-6);
/// # Ok::<(), sparq_eval::Error>(())
/// ```
pub fn mean_divergence(base: ArrayView2<'_, f32>, other: ArrayView2<'_, f32>) -> Result<f64> {
    if base.dim() != other.dim() || base.nrows() == 0 {
        let reason = format!("scores of shape {:?} against {:?}", other.dim(), base.dim());
        return Err(Error::Baseline { reason });
    }
    let (base, other) = (base.as_standard_layout(), other.as_standard_layout());
    let rows = base.outer_iter().into_par_iter().zip(other.outer_iter());
    let divergences = rows.map(|(base, other)| {
        let (base, other) = (base.as_slice().unwrap_or_default(), other.as_slice().unwrap_or_default());
        Softmax::of(base).divergence(base, &Softmax::of(other), other)
    });
    let divergences: Vec<f64> = divergences.collect();
    let mean = divergences.iter().sum::<f64>() / divergences.len() as f64;
    if mean.is_finite() { Ok(mean) } else { Err(Error::NotFinite { what: "comparing scores".to_owned() }) }
}
