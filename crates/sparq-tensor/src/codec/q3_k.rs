//! `Q3_K`: 256 elements in 16 sub-blocks `d·(scale − 32)·(q − 4)`. Bytes: 32 of third bits, 64 of 2-bit codes, 12 of 6-bit
//! scales, `d`.

use half::f16;

use super::block::{Affine, combine, every, half, subtract};
use super::q2_k::two_bit_codes;
use super::q6_k::search;

/// Reads a block.
#[inline(always)]
pub(super) fn read(block: &[u8; 110], codes: &mut [i8; 256]) -> [Affine; 16] {
    two_bit_codes(&block[32..96], codes);
    for (run, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        combine(codes, &block[..32], |code, third| code | (third >> run & every(1)) << 2);
    }
    subtract(codes, 4);
    let (factor, packed) = (half(block, 108), &block[96..108]);
    std::array::from_fn(|sub| {
        let low = if sub < 8 { packed[sub] & 15 } else { packed[sub - 8] >> 4 };
        let high = packed[8 + sub % 4] >> (2 * (sub / 4)) & 3;
        Affine::scaled(factor * f32::from((low | high << 4).cast_signed() - 32))
    })
}

/// Writes a block. Codes are 0 to 7, scales 0 to 63.
pub(super) fn encode(d: f16, scales: [u8; 16], codes: &[u8; 256], out: &mut Vec<u8>) {
    let third = |l: usize| (0..8).fold(0, |byte, run| byte | (codes[32 * run + l] >> 2 & 1) << run);
    out.extend((0..32).map(third));
    for half in codes.as_chunks::<128>().0 {
        out.extend((0..32).map(|l| (0..4).fold(0, |byte, run| byte | (half[32 * run + l] & 3) << (2 * run))));
    }
    out.extend((0..8).map(|sub| scales[sub] & 15 | (scales[sub + 8] & 15) << 4));
    out.extend((0..4).map(|sub| (0..4).fold(0, |byte, run| byte | (scales[4 * run + sub] >> 4) << (2 * run))));
    out.extend(d.to_le_bytes());
}

/// Writes a block of values, [searched](search), with `importance` as in `Q4_K`.
pub(super) fn quantize(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut Vec<u8>) {
    let (d, scales, codes) = search(x, importance, 4, 32);
    encode(d, scales.map(|scale| (scale + 32).cast_unsigned()), &codes, out);
}

#[cfg(test)]
mod tests {
    use super::super::block::{block_values, test_codes};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 256]);
        let scales: [u8; 16] = std::array::from_fn(|sub| (sub * 17 % 64) as u8);
        encode(f16::from_f32(0.5), scales, &test_codes(8), &mut out);
        block_values(read, &out, &mut values);
        let expected: [f32; 256] = std::array::from_fn(|i| {
            0.5 * (f32::from(scales[i / 16]) - 32.0) * (f32::from(test_codes::<256>(8)[i]) - 4.0)
        });
        assert_eq!(values, expected);
    }
}
