//! What the searches for codes minimise.

/// What squared errors count. Large weights count more; with importance so does what the channel carries.
pub(super) fn weights<const N: usize>(x: &[f32; N], importance: Option<&[f32; N]>) -> [f32; N] {
    let mean_square = x.iter().map(|value| value * value).sum::<f32>() / N as f32;
    match importance {
        Some(importance) => std::array::from_fn(|i| importance[i].max(0.0) * (2.0 * mean_square + x[i] * x[i]).sqrt()),
        None => [1.0; N],
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
