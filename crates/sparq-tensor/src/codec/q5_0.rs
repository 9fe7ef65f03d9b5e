//! `Q5_0`: 32 elements `d·(q − 16)`. Bytes: `d`, a word whose bit `j` is the fifth bit of element `j`, nibbles as in `Q4_0`.

use half::f16;

use super::block::{Affine, add_fifth_bits, half, split, subtract, symmetric, write_fifth_bits, write_nibbles};

/// Reads a block.
#[inline(always)]
pub(super) fn read(block: &[u8; 22], codes: &mut [i8; 32]) -> [Affine; 1] {
    split(&block[6..], 4, codes);
    add_fifth_bits(&block[2..6], codes);
    subtract(codes, 16);
    [Affine::scaled(half(block, 0))]
}

/// Writes a block.
pub(super) fn encode(d: f16, codes: &[u8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    write_fifth_bits(codes, out);
    write_nibbles(codes, out);
}

/// Writes a block of values, [rounded](symmetric) by ggml's rule.
pub(super) fn quantize(x: &[f32; 32], out: &mut Vec<u8>) {
    let (d, codes) = symmetric(x, 16);
    encode(d, &codes, out);
}

#[cfg(test)]
mod tests {
    use super::super::block::{block_values, test_codes};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 32]);
        encode(f16::from_f32(0.25), &test_codes(32), &mut out);
        block_values(read, &out, &mut values);
        assert_eq!(values, test_codes::<32>(32).map(|code| 0.25 * (f32::from(code) - 16.0)));
    }
}
