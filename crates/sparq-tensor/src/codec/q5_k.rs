//! `Q5_K`: 256 elements in 8 sub-blocks `d·scale·q − dmin·minimum`. Bytes: `d`, `dmin`, scales and minima as in `Q4_K`, 32
//! of fifth bits, 128 of nibbles.

use super::block::{Affine, combine, every, split};
use super::q4_k::{Parts, search, sub_grids};

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

/// Writes a block.
pub(super) fn encode(parts: &Parts, out: &mut Vec<u8>) {
    parts.write_grids(out);
    let fifth = |l: usize| (0..8).fold(0, |byte, sub| byte | (parts.codes[32 * sub + l] >> 4 & 1) << sub);
    out.extend((0..32).map(fifth));
    parts.write_nibbles(out);
}

/// Writes a block of values, searched for as in `Q4_K`, with `importance` as there.
pub(super) fn quantize(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut Vec<u8>) {
    encode(&search(x, importance, 31), out);
}

#[cfg(test)]
mod tests {
    use super::super::block::block_values;
    use super::super::q4_k::test_parts;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (parts, expected) = test_parts(32);
        let (mut out, mut values) = (Vec::new(), [0.0; 256]);
        encode(&parts, &mut out);
        block_values(read, &out, &mut values);
        assert_eq!(values, expected);
    }
}
