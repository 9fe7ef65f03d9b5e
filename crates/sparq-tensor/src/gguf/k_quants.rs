//! ggml's 256-element super-blocks: sub-blocks of 16 or 32 whose scales (and minima) are small integers times a
//! half-precision factor.
//!
//! The operations and their order are ggml's (without fused multiply-add), so the results are equal to the bit.

use super::legacy::half;

/// 16 bytes of (scale, minimum) nibbles, 64 bytes of 2-bit codes, `d`, `dmin`.
pub(crate) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scale, minimum) = (half(block, 80), half(block, 82));
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let packed = block[sub];
        let scale = scale * f32::from(packed & 15);
        let minimum = minimum * f32::from(packed >> 4);
        let (codes, shift) = two_bit_codes(&block[16..80], sub);
        for (out, &byte) in out.iter_mut().zip(codes) {
            *out = scale * f32::from((byte >> shift) & 3) - minimum;
        }
    }
}

/// 32 bytes of third bits, 64 bytes of 2-bit codes, 12 bytes of 6-bit scales, `d`.
pub(crate) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let factor = half(block, 108);
    let packed_scales = &block[96..108];
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = if sub < 8 { packed_scales[sub] & 15 } else { packed_scales[sub - 8] >> 4 };
        let high = (packed_scales[8 + sub % 4] >> (2 * (sub / 4))) & 3;
        let scale = factor * (i32::from(low | (high << 4)) - 32) as f32;
        let (codes, shift) = two_bit_codes(&block[32..96], sub);
        let third_bits = &block[16 * (sub % 2)..][..16];
        for ((out, &byte), &third) in out.iter_mut().zip(codes).zip(third_bits) {
            let code = i32::from((byte >> shift) & 3);
            let offset = if third >> (sub / 2) & 1 == 1 { 0 } else { 4 };
            *out = scale * (code - offset) as f32;
        }
    }
}

/// `d`, `dmin`, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles.
pub(crate) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (sub_scale, sub_minimum) = six_bit_pair(&block[4..16], sub);
        let scale = scale * f32::from(sub_scale);
        let minimum = minimum * f32::from(sub_minimum);
        let shift = 4 * (sub % 2);
        for (out, &byte) in out.iter_mut().zip(&block[16 + 32 * (sub / 2)..]) {
            *out = scale * f32::from((byte >> shift) & 15) - minimum;
        }
    }
}

/// `d`, `dmin`, scales and minima as [`q4_k`], 32 bytes of fifth bits, 128 bytes of nibbles.
pub(crate) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (sub_scale, sub_minimum) = six_bit_pair(&block[4..16], sub);
        let scale = scale * f32::from(sub_scale);
        let minimum = minimum * f32::from(sub_minimum);
        let shift = 4 * (sub % 2);
        let nibbles = &block[48 + 32 * (sub / 2)..];
        for ((out, &byte), &fifth) in out.iter_mut().zip(nibbles).zip(&block[16..48]) {
            let code = ((byte >> shift) & 15) | ((fifth >> sub & 1) << 4);
            *out = scale * f32::from(code) - minimum;
        }
    }
}

/// 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales, `d`.
pub(crate) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let factor = half(block, 208);
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = factor * f32::from(block[192 + sub] as i8);
        let (half_block, quarter) = (sub / 8, sub % 8 / 2); // 128 elements each, 32 elements each
        let column = 16 * (sub % 2);
        let low = &block[64 * half_block + 32 * (quarter % 2) + column..];
        let high = &block[128 + 32 * half_block + column..];
        let (low_shift, high_shift) = (4 * (quarter / 2), 2 * quarter);
        for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
            let code = ((low >> low_shift) & 15) | ((high >> high_shift & 3) << 4);
            *out = scale * (i32::from(code) - 32) as f32;
        }
    }
}

/// The bytes that hold the 2-bit codes of sub-block `sub` (of 16), and their position in the bytes.
fn two_bit_codes(codes: &[u8], sub: usize) -> (&[u8], usize) {
    let (half_block, quarter) = (sub / 8, sub % 8 / 2);
    (&codes[32 * half_block + 16 * (sub % 2)..][..16], 2 * quarter)
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
