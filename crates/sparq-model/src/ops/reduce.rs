use ndarray::Array2;
use rayon::prelude::*;

/// Runs `task` over pieces of `piece` elements of two arrays of one shape, each with `length` sums of its own that start at
/// zero, and adds these sums up in the order of the pieces: the same bits for any number of threads.
pub(crate) fn sum_over_tasks(
    x: &Array2<f32>,
    y: &mut Array2<f32>,
    piece: usize,
    length: usize,
    task: impl Fn(&[f32], &mut [f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) else { return vec![0.0; length] };
    let piece = piece.max(1);
    let parts: Vec<Vec<f32>> = x
        .par_chunks(piece)
        .zip(y.par_chunks_mut(piece))
        .map(|(x, y)| {
            let mut sums = vec![0.0; length];
            task(x, y, &mut sums);
            sums
        })
        .collect();
    let mut total = vec![0.0; length];
    for part in parts {
        for (total, part) in total.iter_mut().zip(part) {
            *total += part;
        }
    }
    total
}

/// Fails unless `backward` gives what finite differences of `forward` give: of `Σ c · forward(x)` with some weights `c`, the
/// slope at `x`.
#[cfg(test)]
pub(crate) fn check_backward(
    x: &Array2<f32>,
    forward: impl Fn(&Array2<f32>) -> Array2<f32>,
    backward: impl Fn(&Array2<f32>, &mut Array2<f32>),
) {
    let weights = Array2::from_shape_fn(forward(x).dim(), |(i, j)| ((i * 7 + j * 13) % 11) as f32 / 5.0 - 1.0);
    let loss =
        |x: &Array2<f32>| -> f64 { forward(x).iter().zip(&weights).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum() };
    let mut gradient = weights.clone();
    backward(x, &mut gradient);
    let scale = gradient.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let step = 1e-2;
    for at in x.indexed_iter().map(|(at, _)| at).step_by(7) {
        let (mut more, mut less) = (x.clone(), x.clone());
        more[at] += step;
        less[at] -= step;
        let slope = (loss(&more) - loss(&less)) / f64::from(more[at] - less[at]);
        let got = f64::from(gradient[at]);
        assert!((got - slope).abs() < 2e-3 * f64::from(scale), "{at:?}: {got} {slope}");
    }
}
