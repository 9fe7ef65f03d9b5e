//! `Q2_K`: 256 elements in 16 sub-blocks `d·scale·q − dmin·minimum`. Bytes: 16 of (scale, minimum) nibbles, 64 of 2-bit
//! codes, `d`, `dmin`. Only read.

use super::block::{Affine, half, split};

/// Reads a block.
#[inline(always)]
pub(super) fn read(block: &[u8; 84], codes: &mut [i8; 256]) -> [Affine; 16] {
    two_bit_codes(&block[16..80], codes);
    let (scale, minimum) = (half(block, 80), half(block, 82));
    std::array::from_fn(|sub| Affine {
        scale: scale * f32::from(block[sub] & 15),
        offset: -(minimum * f32::from(block[sub] >> 4)),
    })
}

/// The 2-bit codes of a block, 32 bytes for 128 of them.
#[inline(always)]
pub(super) fn two_bit_codes(bytes: &[u8], codes: &mut [i8; 256]) {
    for (codes, bytes) in codes.as_chunks_mut::<128>().0.iter_mut().zip(bytes.as_chunks::<32>().0) {
        split(bytes, 2, codes);
    }
}
