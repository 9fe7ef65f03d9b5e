//! `Q8_0`: 32 elements `d·q`. Bytes: `d`, then a signed byte for each element.

use half::f16;

use super::block::{half, reciprocal};

/// Reads a block.
pub(super) fn decode(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (out, &code) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(code as i8) * scale;
    }
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
    use super::super::block::test_codes;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 32]);
        encode(f16::from_f32(0.25), &test_codes(256).map(u8::cast_signed), &mut out);
        decode(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, test_codes::<32>(256).map(|code| 0.25 * f32::from(code.cast_signed())));
    }
}
