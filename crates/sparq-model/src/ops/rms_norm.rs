use super::{lanes, sum_over_tasks, wide};
use ndarray::{Array1, Array2};
use rayon::prelude::*;

/// Rows one task handles.
const ROWS: usize = 32;

/// Root mean square normalisation of each run of `width` elements of `x`, in standard layout, scaled by `weight`,
/// `[width]`; in place. A run is a row, or one head of it.
pub(crate) fn rms_norm(x: &mut Array2<f32>, weight: &Array1<f32>, epsilon: f32) {
    let width = weight.len().max(1);
    let (Some(data), Some(weight)) = (x.as_slice_mut(), weight.as_slice()) else { return };
    data.par_chunks_mut((ROWS * width).max(1)).for_each(|rows| {
        wide(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(width) {
                    let mean_square = lanes::sum_of_squares(row) / width as f32;
                    let scale = 1.0 / (mean_square + epsilon).sqrt();
                    for (value, weight) in row.iter_mut().zip(weight) {
                        *value = *weight * (*value * scale);
                    }
                }
            },
        );
    });
}

/// Turns the gradient at what [`rms_norm`] makes of `x` into the gradient at `x`, in place; returns that of the weight.
///
/// With `s = 1 / sqrt(mean(x²) + epsilon)` and `u = s · x`: `dx = s · (w · dy - u · mean(w · dy · u))`, `dw = Σ dy · u`.
pub(crate) fn rms_norm_backward(
    x: &Array2<f32>,
    weight: &Array1<f32>,
    epsilon: f32,
    gradient: &mut Array2<f32>,
) -> Array1<f32> {
    let width = weight.len().max(1);
    let of_weight = sum_over_tasks(x, gradient, ROWS * width, width, |x, gradient, sums| {
        let Some(weight) = weight.as_slice() else { return };
        wide(
            #[inline(always)]
            || {
                for (x, dy) in x.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
                    let scale = 1.0 / (lanes::sum_of_squares(x) / width as f32 + epsilon).sqrt();
                    for (((dy, x), w), sum) in dy.iter_mut().zip(x).zip(weight).zip(sums.iter_mut()) {
                        *sum += *dy * (x * scale);
                        *dy *= w;
                    }
                    let mean = scale * lanes::dot(dy, x) / width as f32;
                    for (dy, x) in dy.iter_mut().zip(x) {
                        *dy = scale * (*dy - x * scale * mean);
                    }
                }
            },
        );
    });
    Array1::from(of_weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check_backward;

    #[test]
    fn agrees_with_f64() {
        let x = Array2::from_shape_fn((70, 37), |(i, j)| ((i * 31 + j * 17) % 29) as f32 - 13.0);
        let weight = Array1::from_shape_fn(37, |j| 0.5 + j as f32 / 37.0);
        let mut normed = x.clone();
        rms_norm(&mut normed, &weight, 1e-5);
        for (row, got) in x.rows().into_iter().zip(normed.rows()) {
            let mean: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 37.0;
            for ((v, w), g) in row.iter().zip(&weight).zip(got) {
                let expected = f64::from(*v) / (mean + 1e-5).sqrt() * f64::from(*w);
                assert!((f64::from(*g) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let x = Array2::from_shape_fn((40, 9), |(i, j)| ((i * 31 + j * 17) % 29) as f32 / 10.0 - 1.3);
        let weight = Array1::from_shape_fn(9, |j| 0.5 + j as f32 / 9.0);
        check_backward(
            &x,
            |x| {
                let mut y = x.clone();
                rms_norm(&mut y, &weight, 1e-5);
                y
            },
            |x, gradient| drop(rms_norm_backward(x, &weight, 1e-5, gradient)),
        );
    }

    #[test]
    fn heads_of_a_row_are_normalised_one_by_one() {
        let mut rows = Array2::from_shape_fn((5, 12), |(i, j)| (i * 12 + j) as f32 - 20.0);
        let mut heads = rows.to_shape((15, 4)).unwrap().into_owned();
        let weight = Array1::from_shape_fn(4, |j| 1.0 + j as f32);
        rms_norm(&mut rows, &weight, 1e-6);
        rms_norm(&mut heads, &weight, 1e-6);
        assert_eq!(rows.to_shape((15, 4)).unwrap(), heads);
    }
}
