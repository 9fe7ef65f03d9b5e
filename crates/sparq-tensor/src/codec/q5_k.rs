//! `Q5_K`: 256 elements in 8 sub-blocks `d·scale·q − dmin·minimum`. Bytes: `d`, `dmin`, scales and minima as in `Q4_K`, 32
//! of fifth bits, 128 of nibbles. Only read.

use super::block::{Affine, combine, every, split};
use super::q4_k::sub_grids;

/// Reads a block.
#[inline(always)]
pub(super) fn read(block: &[u8; 176], codes: &mut [i8; 256]) -> [Affine; 8] {
    for (codes, bytes) in codes.as_chunks_mut::<64>().0.iter_mut().zip(block[48..].as_chunks::<32>().0) {
        split(bytes, 4, codes);
    }
    for (sub, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        combine(codes, &block[16..48], |code, fifth| code | (fifth >> sub & every(1)) << 4);
    }
    sub_grids(block)
}
