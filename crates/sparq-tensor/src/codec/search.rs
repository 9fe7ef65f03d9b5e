//! What the searches of `Q4_K` and `Q6_K` minimise.

/// What squared errors count. Large weights count more; with importance so does what the channel carries.
pub(super) fn weights(x: &[f32; 256], importance: Option<&[f32; 256]>) -> [f32; 256] {
    let mean_square = x.iter().map(|value| value * value).sum::<f32>() / 256.0;
    match importance {
        Some(importance) => std::array::from_fn(|i| importance[i].max(0.0) * (2.0 * mean_square + x[i] * x[i]).sqrt()),
        None => [1.0; 256],
    }
}

/// The weighted squared error of `x ≈ scale·code + offset`.
pub(super) fn squared_error<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    codes: &[f32; N],
    scale: f32,
    offset: f32,
) -> f32 {
    let mut sum = 0.0;
    for i in 0..N {
        let error = x[i] - (scale * codes[i] + offset);
        sum += w[i] * error * error;
    }
    sum
}
