use super::{lanes, sum_over_tasks, wide};
use ndarray::{Array1, Array2};
use rayon::prelude::*;

/// Rows one task handles.
const ROWS: usize = 32;

/// Normalises each row of `x`, `[tokens, width]` in standard layout, to mean 0 and variance 1, then scales it by `weight`
/// and adds `bias`, `[width]` each; in place.
pub(crate) fn layer_norm(x: &mut Array2<f32>, weight: &Array1<f32>, bias: &Array1<f32>, epsilon: f32) {
    let width = weight.len().max(1);
    let (Some(data), Some(weight), Some(bias)) = (x.as_slice_mut(), weight.as_slice(), bias.as_slice()) else { return };
    data.par_chunks_mut(ROWS * width).for_each(|rows| {
        wide(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(width) {
                    let mean = lanes::map_and_sum(row, |value| value) / width as f32;
                    lanes::map_and_sum(row, |value| value - mean);
                    let scale = 1.0 / (lanes::sum_of_squares(row) / width as f32 + epsilon).sqrt();
                    for ((value, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                        *value = *weight * (*value * scale) + *bias;
                    }
                }
            },
        );
    });
}

/// Turns the gradient at what [`layer_norm`] makes of `x` into the gradient at `x`, in place; returns those of weight and
/// bias.
///
/// With `u` the row shifted to mean 0 and scaled by `s` to variance 1: `dx = s · (g - mean(g) - u · mean(g · u))` for
/// `g = w · dy`; `dw = Σ dy · u` and `db = Σ dy`.
pub(crate) fn layer_norm_backward(
    x: &Array2<f32>,
    weight: &Array1<f32>,
    epsilon: f32,
    gradient: &mut Array2<f32>,
) -> [Array1<f32>; 2] {
    let width = weight.len().max(1);
    let mut of_both = sum_over_tasks(x, gradient, ROWS * width, 2 * width, |x, gradient, sums| {
        let Some(weight) = weight.as_slice() else { return };
        let (of_weight, of_bias) = sums.split_at_mut(width);
        let mut unit = vec![0.0; width];
        wide(
            #[inline(always)]
            || {
                for (x, dy) in x.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
                    unit.copy_from_slice(x);
                    let mean = lanes::map_and_sum(&mut unit, |value| value) / width as f32;
                    lanes::map_and_sum(&mut unit, |value| value - mean);
                    let scale = 1.0 / (lanes::sum_of_squares(&unit) / width as f32 + epsilon).sqrt();
                    lanes::map_and_sum(&mut unit, |value| value * scale);
                    for ((((dy, u), w), dw), db) in
                        dy.iter_mut().zip(&unit).zip(weight).zip(of_weight.iter_mut()).zip(of_bias.iter_mut())
                    {
                        *dw += *dy * u;
                        *db += *dy;
                        *dy *= w;
                    }
                    let mean = lanes::map_and_sum(dy, |value| value) / width as f32;
                    let along = lanes::dot(dy, &unit) / width as f32;
                    for (dy, u) in dy.iter_mut().zip(&unit) {
                        *dy = scale * (*dy - mean - u * along);
                    }
                }
            },
        );
    });
    let of_bias = of_both.split_off(width);
    [of_both.into(), of_bias.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check_backward;

    #[test]
    fn backward_agrees_with_finite_differences() {
        let x = Array2::from_shape_fn((40, 9), |(i, j)| ((i * 31 + j * 17) % 29) as f32 / 10.0 - 1.3);
        let weight = Array1::from_shape_fn(9, |j| 0.5 + j as f32 / 9.0);
        let bias = Array1::from_shape_fn(9, |j| j as f32 / 10.0 - 1.0);
        check_backward(
            &x,
            |x| {
                let mut y = x.clone();
                layer_norm(&mut y, &weight, &bias, 1e-5);
                y
            },
            |x, gradient| drop(layer_norm_backward(x, &weight, 1e-5, gradient)),
        );
    }

    #[test]
    fn agrees_with_f64() {
        let x = Array2::from_shape_fn((70, 37), |(i, j)| ((i * 31 + j * 17) % 29) as f32 - 3.0);
        let weight = Array1::from_shape_fn(37, |j| 0.5 + j as f32 / 37.0);
        let bias = Array1::from_shape_fn(37, |j| j as f32 / 10.0 - 1.0);
        let mut normed = x.clone();
        layer_norm(&mut normed, &weight, &bias, 1e-5);
        for (row, got) in x.rows().into_iter().zip(normed.rows()) {
            let mean: f64 = row.iter().map(|v| f64::from(*v)).sum::<f64>() / 37.0;
            let variance: f64 = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 37.0;
            for (j, g) in got.iter().enumerate() {
                let expected = (f64::from(row[j]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[j]);
                assert!((f64::from(*g) - expected - f64::from(bias[j])).abs() < 1e-5);
            }
        }
    }
}
