//! `Q2_K`: 256 elements in 16 sub-blocks `d·scale·q − dmin·minimum`. Bytes: 16 of (scale, minimum) nibbles, 64 of 2-bit
//! codes, `d`, `dmin`. Only read.

use super::block::half;

/// Reads a block.
pub(super) fn decode(block: &[u8; 84], out: &mut [f32; 256]) {
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

/// The bytes that hold the 2-bit codes of sub-block `sub` (of 16), and their position in the bytes.
pub(super) fn two_bit_codes(codes: &[u8], sub: usize) -> (&[u8], usize) {
    let (half_block, quarter) = (sub / 8, sub % 8 / 2);
    (&codes[32 * half_block + 16 * (sub % 2)..][..16], 2 * quarter)
}
