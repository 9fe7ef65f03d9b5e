//! Quirks of the reference implementations that their golden vectors need. Off unless a caller asks for them.

use ndarray::Array2;
use sparq_core::{Hessian, LayerProblem};
use std::borrow::Cow;

/// The weight and Hessian of `problem` with every input channel that was never active treated as the references do: its
/// weights become 0 and its diagonal entry 1, before the mean that damping is relative to is taken.
///
/// By default such channels are kept: their saliency rests on the damping alone, so they are pruned first and rounded
/// plainly, and a channel that is silent in calibration only is not lost.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Hessian, LayerProblem};
/// let weight = array![[5.0_f32, 2.0]];
/// let hessian = Hessian::Full { matrix: array![[0.0, 0.0], [0.0, 3.0]], tokens: 9 };
/// let problem = LayerProblem::new("demo", weight.view(), &hessian)?;
/// let (weight, hessian) = sparq_obs::reference::clear_dead_channels(&problem);
/// assert_eq!(weight, array![[0.0, 2.0]]);
/// assert_eq!(hessian.diagonal(), Some(array![1.0, 3.0]));
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
pub fn clear_dead_channels<'a>(problem: &LayerProblem<'a>) -> (Array2<f32>, Cow<'a, Hessian>) {
    let mut weight = problem.weight().to_owned();
    let mut hessian = Cow::Borrowed(problem.hessian());
    let Some(diagonal) = problem.hessian().diagonal() else { return (weight, hessian) };
    for (channel, _) in diagonal.iter().enumerate().filter(|(_, sum)| **sum == 0.0) {
        weight.column_mut(channel).fill(0.0);
        match hessian.to_mut() {
            Hessian::Full { matrix, .. } => matrix[[channel, channel]] = 1.0,
            Hessian::Diagonal { sums, .. } => sums[channel] = 1.0,
            _ => {}
        }
    }
    (weight, hessian)
}
