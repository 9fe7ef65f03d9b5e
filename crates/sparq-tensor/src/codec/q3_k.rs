//! `Q3_K`: 256 elements in 16 sub-blocks `d·(scale − 32)·(q − 4)`. Bytes: 32 of third bits, 64 of 2-bit codes, 12 of 6-bit
//! scales, `d`. Only read.

use super::block::{Affine, combine, every, half, subtract};
use super::q2_k::two_bit_codes;

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
