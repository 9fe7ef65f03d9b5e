//! Codes for ggml's blocks, chosen from values.
//!
//! The 32-element types round to nearest by ggml's rule, so that equal values give equal bytes. The super-blocks search:
//! scales by weighted least squares over a few trial roundings, then the small integers that sub-blocks keep of them
//! among neighbours, with the error of what the file will really say.

use half::f16;

use super::blocks;

/// One 32-element block, scale from the largest magnitude by 127.
pub(crate) fn q8_0(x: &[f32; 32], out: &mut Vec<u8>) {
    let d = x.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0;
    let inverse = reciprocal(d);
    blocks::q8_0(f16::from_f32(d), &x.map(|value| (value * inverse).round() as i8), out);
}

/// Scale from the signed value of largest magnitude, by −8; it gets code 0.
pub(crate) fn q4_0(x: &[f32; 32], out: &mut Vec<u8>) {
    let d = signed_largest(x) / -8.0;
    let inverse = reciprocal(d);
    blocks::q4_0(f16::from_f32(d), &x.map(|value| ((value * inverse + 8.5) as u8).min(15)), out);
}

/// As [`q4_0`], by −16.
pub(crate) fn q5_0(x: &[f32; 32], out: &mut Vec<u8>) {
    let d = signed_largest(x) / -16.0;
    let inverse = reciprocal(d);
    blocks::q5_0(f16::from_f32(d), &x.map(|value| ((value * inverse + 16.5) as u8).min(31)), out);
}

/// Scale from the range by 15.
pub(crate) fn q4_1(x: &[f32; 32], out: &mut Vec<u8>) {
    let (least, most) = range(x);
    let d = (most - least) / 15.0;
    let inverse = reciprocal(d);
    let codes = x.map(|value| (((value - least) * inverse + 0.5) as u8).min(15));
    blocks::q4_1(f16::from_f32(d), f16::from_f32(least), &codes, out);
}

/// Scale from the range by 31.
pub(crate) fn q5_1(x: &[f32; 32], out: &mut Vec<u8>) {
    let (least, most) = range(x);
    let d = (most - least) / 31.0;
    let inverse = reciprocal(d);
    let codes = x.map(|value| (((value - least) * inverse + 0.5) as u8).min(31));
    blocks::q5_1(f16::from_f32(d), f16::from_f32(least), &codes, out);
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Of two equal magnitudes the first.
fn signed_largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |largest, &value| if value.abs() > largest.abs() { value } else { largest })
}

fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::MAX, f32::MIN), |(least, most), &value| (least.min(value), most.max(value)))
}

/// One super-block of 256: eight sub-blocks `d·scale·code − dmin·minimum`. `importance` weighs squared errors by channel.
pub(crate) fn q4_k(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut Vec<u8>) {
    let weights = weights(x, importance);
    let (subs, _) = x.as_chunks::<32>();
    let (weights, _) = weights.as_chunks::<32>();
    let fits: [(f32, f32); 8] = std::array::from_fn(|sub| affine_fit(&subs[sub], &weights[sub], 15));
    let largest = |values: [f32; 8]| values.into_iter().fold(0.0f32, f32::max);
    let d = f16::from_f32(largest(fits.map(|(scale, _)| scale)) / 63.0);
    let dmin = f16::from_f32(largest(fits.map(|(_, minimum)| minimum)) / 63.0);
    let (mut scales, mut minima, mut codes) = ([0u8; 8], [0u8; 8], [0u8; 256]);
    let (code_subs, _) = codes.as_chunks_mut::<32>();
    for sub in 0..8 {
        let (scale, minimum) = fits[sub];
        let around = |value: f32, unit: f32| {
            let nearest = (value * reciprocal(unit)).round_ties_even().clamp(0.0, 63.0) as i32;
            [nearest, nearest - 1, nearest + 1].into_iter().filter(|n| (0..=63).contains(n))
        };
        let mut best = f32::INFINITY;
        for s in around(scale, d.to_f32()) {
            for m in around(minimum, dmin.to_f32()) {
                let (step, offset) = (d.to_f32() * s as f32, dmin.to_f32() * m as f32);
                let inverse = reciprocal(step);
                let trial = subs[sub].map(|value| ((value + offset) * inverse).round_ties_even().clamp(0.0, 15.0));
                let error = squared_error(&subs[sub], &weights[sub], &trial, step, -offset);
                if error < best {
                    best = error;
                    (scales[sub], minima[sub]) = (s as u8, m as u8);
                    code_subs[sub] = trial.map(|code| code as u8);
                }
            }
        }
    }
    blocks::q4_k(d, dmin, scales, minima, &codes, out);
}

/// One super-block of 256: sixteen sub-blocks `d·scale·(code − 32)`. `importance` as in [`q4_k`].
pub(crate) fn q6_k(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut Vec<u8>) {
    let weights = weights(x, importance);
    let (subs, _) = x.as_chunks::<16>();
    let (weights, _) = weights.as_chunks::<16>();
    let fits: [f32; 16] = std::array::from_fn(|sub| symmetric_fit(&subs[sub], &weights[sub], 32));
    let d = f16::from_f32(signed_largest(&fits) / -128.0);
    let (mut scales, mut codes) = ([0i8; 16], [32u8; 256]);
    let (code_subs, _) = codes.as_chunks_mut::<16>();
    for sub in 0..16 {
        let nearest = (fits[sub] * reciprocal(d.to_f32())).round_ties_even().clamp(-128.0, 127.0) as i32;
        let mut best = f32::INFINITY;
        for s in [nearest, nearest - 1, nearest + 1].into_iter().filter(|s| (-128..=127).contains(s)) {
            let step = d.to_f32() * s as f32;
            let inverse = reciprocal(step);
            let trial = subs[sub].map(|value| (value * inverse).round_ties_even().clamp(-32.0, 31.0));
            let error = squared_error(&subs[sub], &weights[sub], &trial, step, 0.0);
            if error < best {
                best = error;
                scales[sub] = s as i8;
                code_subs[sub] = trial.map(|code| (code + 32.0) as u8);
            }
        }
    }
    blocks::q6_k(d, scales, &codes, out);
}

/// What squared errors count. Large weights count more; with importance so does what the channel carries.
fn weights(x: &[f32; 256], importance: Option<&[f32; 256]>) -> [f32; 256] {
    let mean_square = x.iter().map(|value| value * value).sum::<f32>() / 256.0;
    match importance {
        Some(importance) => std::array::from_fn(|i| importance[i].max(0.0) * (2.0 * mean_square + x[i] * x[i]).sqrt()),
        None => [1.0; 256],
    }
}

fn squared_error<const N: usize>(x: &[f32; N], w: &[f32; N], codes: &[f32; N], scale: f32, offset: f32) -> f32 {
    let mut sum = 0.0;
    for i in 0..N {
        let error = x[i] - (scale * codes[i] + offset);
        sum += w[i] * error * error;
    }
    sum
}

/// Scale and minimum, both at least 0, so that `x ≈ scale·code − minimum` with codes up to `most`.
fn affine_fit<const N: usize>(x: &[f32; N], w: &[f32; N], most: u8) -> (f32, f32) {
    let (least, largest) = range(x);
    let least = least.min(0.0);
    if largest <= least {
        return (0.0, -least);
    }
    let most = f32::from(most);
    let mut best = ((largest - least) / most, -least);
    let mut best_error = f32::INFINITY;
    for trial in 0..=20 {
        let inverse = (most - 1.0 + 0.1 * trial as f32) / (largest - least);
        let codes = x.map(|value| ((value - least) * inverse).round_ties_even().clamp(0.0, most));
        let (mut sw, mut sl, mut sll, mut sx, mut sxl) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for i in 0..N {
            sw += w[i];
            sl += w[i] * codes[i];
            sll += w[i] * codes[i] * codes[i];
            sx += w[i] * x[i];
            sxl += w[i] * x[i] * codes[i];
        }
        let determinant = sw * sll - sl * sl;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (sw * sxl - sx * sl) / determinant;
        let mut offset = (sll * sx - sl * sxl) / determinant;
        if offset > 0.0 {
            (offset, scale) = (0.0, if sll > 0.0 { sxl / sll } else { 0.0 });
        }
        let error = squared_error(x, w, &codes, scale, offset);
        if scale >= 0.0 && error < best_error {
            (best, best_error) = ((scale, -offset), error);
        }
    }
    best
}

/// A scale of either sign so that `x ≈ scale·code` with codes from `−most` to `most − 1`.
fn symmetric_fit<const N: usize>(x: &[f32; N], w: &[f32; N], most: u8) -> f32 {
    let largest = signed_largest(x);
    if largest == 0.0 {
        return 0.0;
    }
    let most = f32::from(most);
    let (mut best, mut best_error) = (largest / -most, f32::INFINITY);
    for trial in -9..=9 {
        let inverse = -(most + 0.1 * trial as f32) / largest;
        let codes = x.map(|value| (value * inverse).round_ties_even().clamp(-most, most - 1.0));
        let (mut sll, mut sxl) = (0.0f32, 0.0f32);
        for i in 0..N {
            sll += w[i] * codes[i] * codes[i];
            sxl += w[i] * x[i] * codes[i];
        }
        if sll <= 0.0 {
            continue;
        }
        let scale = sxl / sll;
        let error = squared_error(x, w, &codes, scale, 0.0);
        if error < best_error {
            (best, best_error) = (scale, error);
        }
    }
    best
}
