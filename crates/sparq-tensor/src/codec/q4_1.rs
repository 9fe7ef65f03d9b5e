//! `Q4_1`: 32 elements `d·q + m`. Bytes: `d`, `m`, nibbles as in `Q4_0`.

use half::f16;

use super::block::{Affine, affine, half, split, write_nibbles};

/// Reads a block.
#[inline(always)]
pub(super) fn read(block: &[u8; 20], codes: &mut [i8; 32]) -> [Affine; 1] {
    split(&block[4..], 4, codes);
    [Affine { scale: half(block, 0), offset: half(block, 2) }]
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
    use super::super::block::{block_values, test_codes};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 32]);
        encode(f16::from_f32(0.25), f16::from_f32(-1.5), &test_codes(16), &mut out);
        block_values(read, &out, &mut values);
        assert_eq!(values, test_codes::<32>(16).map(|code| 0.25 * f32::from(code) - 1.5));
    }
}
