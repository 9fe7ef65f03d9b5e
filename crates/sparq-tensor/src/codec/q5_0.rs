//! `Q5_0`: 32 elements `d·(q − 16)`. Bytes: `d`, a word whose bit `j` is the fifth bit of element `j`, nibbles as in `Q4_0`.

use half::f16;

use super::block::{five_bits, half, symmetric, write_fifth_bits, write_nibbles};

/// Reads a block.
pub(super) fn decode(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let (low, high) = out.split_at_mut(16);
    for (j, ((low, high), &byte)) in low.iter_mut().zip(high).zip(&block[6..]).enumerate() {
        *low = (five_bits(byte & 15, fifth >> j) - 16) as f32 * scale;
        *high = (five_bits(byte >> 4, fifth >> (j + 16)) - 16) as f32 * scale;
    }
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
    use super::super::block::test_codes;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 32]);
        encode(f16::from_f32(0.25), &test_codes(32), &mut out);
        decode(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, test_codes::<32>(32).map(|code| 0.25 * (f32::from(code) - 16.0)));
    }
}
