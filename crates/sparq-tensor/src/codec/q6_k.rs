//! `Q6_K`: 256 elements in 16 sub-blocks `d·scale·(q − 32)`. Bytes: 128 of low nibbles, 64 of upper bit pairs, 16 signed
//! scales, `d`.

use half::f16;

use super::block::{Affine, combine, every, half, reciprocal, signed_largest, split, subtract};
use super::search::{squared_error, weights};

/// Reads a block.
#[inline(always)]
pub(super) fn read(block: &[u8; 210], codes: &mut [i8; 256]) -> [Affine; 16] {
    let (low, high) = (block.as_chunks::<64>().0, block[128..].as_chunks::<32>().0);
    for ((codes, low), high) in codes.as_chunks_mut::<128>().0.iter_mut().zip(low).zip(high) {
        split(low, 4, codes);
        for (run, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            combine(codes, high, |code, high| code | (high >> (2 * run) & every(3)) << 4);
        }
    }
    subtract(codes, 32);
    let factor = half(block, 208);
    std::array::from_fn(|sub| Affine::scaled(factor * f32::from(block[192 + sub].cast_signed())))
}

/// Writes a block.
pub(super) fn encode(d: f16, scales: [i8; 16], codes: &[u8; 256], out: &mut Vec<u8>) {
    for half in codes.as_chunks::<128>().0 {
        out.extend((0..64).map(|l| half[l] & 15 | half[l + 64] << 4));
    }
    for half in codes.as_chunks::<128>().0 {
        let bits = |l: usize| half[l] >> 4 | half[l + 32] >> 4 << 2 | half[l + 64] >> 4 << 4 | half[l + 96] >> 4 << 6;
        out.extend((0..32).map(bits));
    }
    out.extend(scales.map(i8::cast_unsigned));
    out.extend(d.to_le_bytes());
}

/// Writes a block of values, [searched](search), with `importance` as in `Q4_K`.
pub(super) fn quantize(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut Vec<u8>) {
    let (d, scales, codes) = search(x, importance, 32, 128);
    encode(d, scales, &codes, out);
}

/// Codes `0..2·half`, of which `half` means 0, with scales from `−most` to `most − 1` times a factor: searched for as in
/// `Q4_K`.
pub(super) fn search(
    x: &[f32; 256],
    importance: Option<&[f32; 256]>,
    half: u8,
    most: u8,
) -> (f16, [i8; 16], [u8; 256]) {
    let weights = weights(x, importance);
    let (subs, _) = x.as_chunks::<16>();
    let (weights, _) = weights.as_chunks::<16>();
    let fits: [f32; 16] = std::array::from_fn(|sub| symmetric_fit(&subs[sub], &weights[sub], half));
    let (half, most) = (f32::from(half), i32::from(most));
    let d = f16::from_f32(signed_largest(&fits) / -(most as f32));
    let (mut scales, mut codes) = ([0i8; 16], [half as u8; 256]);
    let (code_subs, _) = codes.as_chunks_mut::<16>();
    let range = -most..most;
    for sub in 0..16 {
        let nearest =
            (fits[sub] * reciprocal(d.to_f32())).round_ties_even().clamp(-most as f32, (most - 1) as f32) as i32;
        let mut best = f32::INFINITY;
        for s in [nearest, nearest - 1, nearest + 1].into_iter().filter(|s| range.contains(s)) {
            let step = d.to_f32() * s as f32;
            let inverse = reciprocal(step);
            let trial = subs[sub].map(|value| (value * inverse).round_ties_even().clamp(-half, half - 1.0));
            let error = squared_error(&subs[sub], &weights[sub], &trial, step, 0.0);
            if error < best {
                best = error;
                scales[sub] = s as i8;
                code_subs[sub] = trial.map(|code| (code + half) as u8);
            }
        }
    }
    (d, scales, codes)
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

#[cfg(test)]
mod tests {
    use super::super::block::{block_values, test_codes};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 256]);
        let scales: [i8; 16] = std::array::from_fn(|sub| (sub as i8 - 8) * 15);
        encode(f16::from_f32(0.5), scales, &test_codes(64), &mut out);
        block_values(read, &out, &mut values);
        let expected: [f32; 256] =
            std::array::from_fn(|i| 0.5 * f32::from(scales[i / 16]) * (f32::from(test_codes::<256>(64)[i]) - 32.0));
        assert_eq!(values, expected);
    }
}
