//! `Q4_0`: 32 elements `d·(q − 8)`. Bytes: `d`, then nibbles, element `j` low, element `j + 16` high.

use half::f16;

use super::block::{half, symmetric, write_nibbles};

/// Reads a block.
pub(super) fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = (i32::from(byte & 15) - 8) as f32 * scale;
        *high = (i32::from(byte >> 4) - 8) as f32 * scale;
    }
}

/// Writes a block.
pub(super) fn encode(d: f16, codes: &[u8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    write_nibbles(codes, out);
}

/// Writes a block of values, [rounded](symmetric) by ggml's rule.
pub(super) fn quantize(x: &[f32; 32], out: &mut Vec<u8>) {
    let (d, codes) = symmetric(x, 8);
    encode(d, &codes, out);
}

#[cfg(test)]
mod tests {
    use super::super::block::test_codes;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 32]);
        encode(f16::from_f32(0.25), &test_codes(16), &mut out);
        decode(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, test_codes::<32>(16).map(|code| 0.25 * (f32::from(code) - 8.0)));
    }
}
