//! `Q3_K`: 256 elements in 16 sub-blocks `d·(scale − 32)·(q − 4)`. Bytes: 32 of third bits, 64 of 2-bit codes, 12 of 6-bit
//! scales, `d`. Only read.

use super::block::half;
use super::q2_k::two_bit_codes;

/// Reads a block.
pub(super) fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
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
