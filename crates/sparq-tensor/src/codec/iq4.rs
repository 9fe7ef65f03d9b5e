//! `IQ4_NL` and `IQ4_XS`: 4 bits that choose one of 16 values, `d·value`. Nibbles lie as in `Q4_0`, 32 at a time.
//!
//! Bytes of `IQ4_XS`: `d`, a word of the upper two bits of each of 8 scales, 4 bytes of their lower four, then nibbles.
//! Scales are stored plus 32.

use half::f16;

use super::block::{Affine, half, reciprocal, signed_largest, write_nibbles};
use super::search::{squared_error, weights};

const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Reads a block of `IQ4_NL`.
#[inline(always)]
pub(super) fn read_nl(block: &[u8; 18], codes: &mut [i8; 32]) -> [Affine; 1] {
    nibbles(&block[2..], codes);
    [Affine::scaled(half(block, 0))]
}

/// Reads a block of `IQ4_XS`.
#[inline(always)]
pub(super) fn read_xs(block: &[u8; 136], codes: &mut [i8; 256]) -> [Affine; 8] {
    for (codes, bytes) in codes.as_chunks_mut::<32>().0.iter_mut().zip(block[8..].chunks_exact(16)) {
        nibbles(bytes, codes);
    }
    let (d, high) = (half(block, 0), u16::from_le_bytes([block[2], block[3]]));
    std::array::from_fn(|sub| {
        let low = block[4 + sub / 2] >> (4 * (sub % 2)) & 15;
        let scale = i32::from(low) | i32::from(high >> (2 * sub) & 3) << 4;
        Affine::scaled(d * (scale - 32) as f32)
    })
}

/// Writes a block of values as `IQ4_NL`: scales around those that give the value of largest magnitude one of the ends, each made
/// better by weighted least squares. `importance` weighs squared errors by channel.
pub(super) fn quantize_nl(x: &[f32; 32], importance: Option<&[f32; 32]>, out: &mut Vec<u8>) {
    let weights = weights(x, importance);
    let largest = signed_largest(x);
    let nearest = |scaled: f32| {
        let above = VALUES.partition_point(|&value| f32::from(value) < scaled).min(15);
        let below = above.saturating_sub(1);
        let off = |index: usize| (f32::from(VALUES[index]) - scaled).abs();
        if off(below) <= off(above) { below } else { above }
    };
    let codes_of = |d: f32| x.map(|value| nearest(value * reciprocal(d)));
    let values_of = |codes: &[usize; 32]| codes.map(|code| f32::from(VALUES[code]));
    let (mut best, mut d, mut codes) = (f32::INFINITY, f16::ZERO, [nearest(0.0); 32]);
    for trial in -7..=7 {
        for end in [-127.0, 113.0] {
            let values = values_of(&codes_of(largest / (end + trial as f32)));
            let (mut along, mut square) = (0.0f32, 0.0f32);
            for i in 0..32 {
                along += weights[i] * values[i] * x[i];
                square += weights[i] * values[i] * values[i];
            }
            let fitted = f16::from_f32(along * reciprocal(square));
            let rounded = codes_of(fitted.to_f32());
            let error = squared_error(x, &weights, &values_of(&rounded), fitted.to_f32(), 0.0);
            if error < best {
                (best, d, codes) = (error, fitted, rounded);
            }
        }
    }
    out.extend(d.to_le_bytes());
    write_nibbles(&codes.map(|code| code as u8), out);
}

#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [i8; 32]) {
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = VALUES[usize::from(byte & 15)];
        *high = VALUES[usize::from(byte >> 4)];
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::block_values;
    use super::*;

    #[test]
    fn every_nibble_has_its_value_and_place() {
        let mut block = [0u8; 18];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        (0..16).for_each(|at| block[2 + usize::from(at)] = at | (15 - at) << 4);
        let mut out = [0.0; 32];
        block_values(read_nl, &block, &mut out);
        let (first, second) = out.split_at(16);
        assert_eq!(
            first,
            [-63.5, -52.0, -41.5, -32.5, -24.5, -17.5, -11.0, -5.0, 0.5, 6.5, 12.5, 19.0, 26.5, 34.5, 44.5, 56.5]
        );
        assert!(first.iter().eq(second.iter().rev()));
    }

    #[test]
    fn scales_are_put_together_from_both_fields() {
        // Scales 0, 1, 31, 32, 33, 47, 62, 63 and nibbles 8, whose value is 1.
        let scales = [0u8, 1, 31, 32, 33, 47, 62, 63];
        let mut block = [0x88u8; 136];
        block[..2].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
        let high = scales.iter().enumerate().fold(0u16, |word, (at, scale)| word | u16::from(scale >> 4) << (2 * at));
        block[2..4].copy_from_slice(&high.to_le_bytes());
        (0..4).for_each(|at| block[4 + at] = scales[2 * at] & 15 | scales[2 * at + 1] << 4);
        let mut out = [0.0; 256];
        block_values(read_xs, &block, &mut out);
        for (at, scale) in scales.iter().enumerate() {
            assert_eq!(out[32 * at..][..32], [2.0 * (f32::from(*scale) - 32.0); 32]);
        }
    }
}
