use super::{lanes, wide};
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

#[cfg(test)]
mod tests {
    use super::*;

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
