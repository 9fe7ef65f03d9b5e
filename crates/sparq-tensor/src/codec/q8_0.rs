//! `Q8_0`: 32 elements `d·q`. Bytes: `d`, then a signed byte for each element.

use half::f16;

use super::block::{Affine, half, reciprocal};

/// Reads a block.
#[inline(always)]
pub(super) fn read(block: &[u8; 34], codes: &mut [i8; 32]) -> [Affine; 1] {
    if let Some(bytes) = block.last_chunk::<32>() {
        *codes = pulp::cast(*bytes);
    }
    [Affine::scaled(half(block, 0))]
}

/// Writes a block.
pub(super) fn encode(d: f16, codes: &[i8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    out.extend(codes.iter().map(|code| code.cast_unsigned()));
}

/// Writes a block of values rounded by ggml's rule: the scale is the largest magnitude by 127.
pub(super) fn quantize(x: &[f32; 32], out: &mut Vec<u8>) {
    let d = x.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0;
    let inverse = reciprocal(d);
    encode(f16::from_f32(d), &x.map(|value| (value * inverse).round() as i8), out);
}

#[cfg(test)]
mod tests {
    use super::super::block::{block_values, test_codes};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 32]);
        encode(f16::from_f32(0.25), &test_codes(256).map(u8::cast_signed), &mut out);
        block_values(read, &out, &mut values);
        assert_eq!(values, test_codes::<32>(256).map(|code| 0.25 * f32::from(code.cast_signed())));
    }
}
