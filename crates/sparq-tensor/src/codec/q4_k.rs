//! `Q4_K`: 256 elements in 8 sub-blocks `d·scale·q − dmin·minimum`. Bytes: `d`, `dmin`, 12 of 6-bit scales and minima, 128
//! of nibbles.

use half::f16;

use super::block::{Affine, half, range, reciprocal, split};
use super::search::{squared_error, weights};

/// Reads a block.
#[inline(always)]
pub(super) fn read(block: &[u8; 144], codes: &mut [i8; 256]) -> [Affine; 8] {
    for (codes, bytes) in codes.as_chunks_mut::<64>().0.iter_mut().zip(block[16..].as_chunks::<32>().0) {
        split(bytes, 4, codes);
    }
    sub_grids(block)
}

/// Scale and offset of each sub-block, from the first 16 bytes of a block.
#[inline(always)]
pub(super) fn sub_grids(block: &[u8]) -> [Affine; 8] {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    std::array::from_fn(|sub| {
        let (sub_scale, sub_minimum) = six_bit_pair(&block[4..16], sub);
        Affine { scale: scale * f32::from(sub_scale), offset: -(minimum * f32::from(sub_minimum)) }
    })
}

/// The 6-bit scale and minimum of sub-block `sub` (of 8).
fn six_bit_pair(packed: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        (packed[sub] & 63, packed[sub + 4] & 63)
    } else {
        let low = packed[sub + 4];
        ((low & 15) | (packed[sub - 4] >> 6 << 4), (low >> 4) | (packed[sub] >> 6 << 4))
    }
}

/// What a block says: `d·scale·code − dmin·minimum`.
pub(super) struct Parts {
    pub(super) d: f16,
    pub(super) dmin: f16,
    pub(super) scales: [u8; 8],
    pub(super) minima: [u8; 8],
    pub(super) codes: [u8; 256],
}

impl Parts {
    /// The first 16 bytes of a block.
    pub(super) fn write_grids(&self, out: &mut Vec<u8>) {
        let Self { d, dmin, scales, minima, .. } = self;
        out.extend(d.to_le_bytes());
        out.extend(dmin.to_le_bytes());
        let mut packed = [0u8; 12];
        for sub in 0..4 {
            packed[sub] = scales[sub] | scales[sub + 4] >> 4 << 6;
            packed[sub + 4] = minima[sub] | minima[sub + 4] >> 4 << 6;
            packed[sub + 8] = scales[sub + 4] & 15 | minima[sub + 4] << 4;
        }
        out.extend(packed);
    }

    /// The lower four bits of codes, the last 128 bytes of a block.
    pub(super) fn write_nibbles(&self, out: &mut Vec<u8>) {
        for pair in self.codes.as_chunks::<64>().0 {
            let (low, high) = pair.split_at(32);
            out.extend(low.iter().zip(high).map(|(&low, &high)| low & 15 | (high & 15) << 4));
        }
    }
}

/// Writes a block.
pub(super) fn encode(parts: &Parts, out: &mut Vec<u8>) {
    parts.write_grids(out);
    parts.write_nibbles(out);
}

/// Writes a block of values that are [searched](search).
pub(super) fn quantize(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut Vec<u8>) {
    encode(&search(x, importance, 15), out);
}

/// Codes up to `most` and their grids: scales by weighted least squares over a few trial roundings, then the small integers
/// that sub-blocks keep of them among neighbours, with the error of what the file will really say. `importance` weighs
/// squared errors by channel.
pub(super) fn search(x: &[f32; 256], importance: Option<&[f32; 256]>, most: u8) -> Parts {
    let weights = weights(x, importance);
    let (subs, _) = x.as_chunks::<32>();
    let (weights, _) = weights.as_chunks::<32>();
    let fits: [(f32, f32); 8] = std::array::from_fn(|sub| affine_fit(&subs[sub], &weights[sub], most));
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
                let trial =
                    subs[sub].map(|value| ((value + offset) * inverse).round_ties_even().clamp(0.0, f32::from(most)));
                let error = squared_error(&subs[sub], &weights[sub], &trial, step, -offset);
                if error < best {
                    best = error;
                    (scales[sub], minima[sub]) = (s as u8, m as u8);
                    code_subs[sub] = trial.map(|code| code as u8);
                }
            }
        }
    }
    Parts { d, dmin, scales, minima, codes }
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

/// A block for tests, with codes below `levels`, and its values.
#[cfg(test)]
pub(super) fn test_parts(levels: usize) -> (Parts, [f32; 256]) {
    let (scales, minima) = ([63, 1, 17, 32, 40, 5, 62, 33], [0, 63, 31, 16, 15, 48, 7, 63]);
    let codes: [u8; 256] = super::block::test_codes(levels);
    let value = |i: usize| 0.5 * f32::from(scales[i / 32]) * f32::from(codes[i]) - 0.25 * f32::from(minima[i / 32]);
    let (d, dmin) = (f16::from_f32(0.5), f16::from_f32(0.25));
    (Parts { d, dmin, scales, minima, codes }, std::array::from_fn(value))
}

#[cfg(test)]
mod tests {
    use super::super::block::block_values;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (parts, expected) = test_parts(16);
        let (mut out, mut values) = (Vec::new(), [0.0; 256]);
        encode(&parts, &mut out);
        block_values(read, &out, &mut values);
        assert_eq!(values, expected);
    }
}
