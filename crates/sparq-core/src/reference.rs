//! Quirks of the reference implementations that their golden vectors need. Off unless a caller asks for them.

use crate::{Curvature, Hessian, LayerProblem};
use ndarray::Array2;

/// The weight of `problem` with every input channel that was never active set to 0, and a curvature in which the diagonal
/// entry of such a channel is 1, before the mean that damping is relative to is taken. None if every channel was active.
///
/// By default such channels are kept: their saliency rests on the damping alone, so they are pruned first and rounded
/// plainly, and a channel that is silent in calibration only is not lost.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Curvature, Hessian, LayerProblem};
/// let weight = array![[5.0_f32, 2.0]];
/// let curvature = Curvature::new(Hessian::Full { matrix: array![[0.0, 0.0], [0.0, 3.0]], tokens: 9 });
/// let problem = LayerProblem::new("demo", weight.view(), &curvature)?;
/// let (weight, curvature) = sparq_core::reference::clear_dead_channels(&problem);
/// assert_eq!(weight, array![[0.0, 2.0]]);
/// assert_eq!(curvature.and_then(|curvature| curvature.hessian().diagonal()), Some(array![1.0, 3.0]));
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
pub fn clear_dead_channels(problem: &LayerProblem<'_>) -> (Array2<f32>, Option<Curvature>) {
    let mut weight = problem.weight().to_owned();
    let diagonal = problem.hessian().diagonal().unwrap_or_default();
    let dead: Vec<usize> = (0..diagonal.len()).filter(|&channel| diagonal[channel] == 0.0).collect();
    if dead.is_empty() {
        return (weight, None);
    }
    let mut hessian = problem.hessian().clone();
    for channel in dead {
        weight.column_mut(channel).fill(0.0);
        match &mut hessian {
            Hessian::Full { matrix, .. } => matrix[[channel, channel]] = 1.0,
            Hessian::Diagonal { sums, .. } => sums[channel] = 1.0,
            Hessian::None => {}
        }
    }
    (weight, Some(problem.curvature().with_hessian(hessian)))
}
