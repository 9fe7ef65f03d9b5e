use super::{lanes, wide};
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn heads_of_a_row_are_normalised_one_by_one() {
        let mut rows = Array2::from_shape_fn((5, 12), |(i, j)| (i * 12 + j) as f32 - 20.0);
        let mut heads = rows.to_shape((15, 4)).unwrap().into_owned();
        let weight = Array1::from_shape_fn(4, |j| 1.0 + j as f32);
        rms_norm(&mut rows, &weight, 1e-6);
        rms_norm(&mut heads, &weight, 1e-6);
        assert_eq!(rows.to_shape((15, 4)).unwrap(), heads);
    }
}
