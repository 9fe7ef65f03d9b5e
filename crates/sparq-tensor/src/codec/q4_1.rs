//! `Q4_1`: 32 elements `d·q + m`. Bytes: `d`, `m`, nibbles as in `Q4_0`.

use half::f16;

use super::block::{affine, half, write_nibbles};

/// Reads a block.
pub(super) fn decode(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[4..]) {
        *low = f32::from(byte & 15) * scale + minimum;
        *high = f32::from(byte >> 4) * scale + minimum;
    }
}

/// Writes a block.
pub(super) fn encode(d: f16, m: f16, codes: &[u8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    out.extend(m.to_le_bytes());
    write_nibbles(codes, out);
}

/// Writes a block of values, [rounded](affine) by ggml's rule.
pub(super) fn quantize(x: &[f32; 32], out: &mut Vec<u8>) {
    let (d, m, codes) = affine(x, 15);
    encode(d, m, &codes, out);
}

#[cfg(test)]
mod tests {
    use super::super::block::test_codes;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 32]);
        encode(f16::from_f32(0.25), f16::from_f32(-1.5), &test_codes(16), &mut out);
        decode(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, test_codes::<32>(16).map(|code| 0.25 * f32::from(code) - 1.5));
    }
}
