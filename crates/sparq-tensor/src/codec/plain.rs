//! Types whose elements stand alone: floats and integers. All are read as f32; F32, F16 and BF16 are written.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::DType;

/// Whether [`decode`] knows the type.
pub(crate) fn is_decodable(dtype: DType) -> bool {
    !matches!(
        dtype,
        DType::F4
            | DType::F6_E2M3
            | DType::F6_E3M2
            | DType::F8_E4M3
            | DType::F8_E4M3FNUZ
            | DType::F8_E5M2
            | DType::F8_E5M2FNUZ
            | DType::F8_E8M0
            | DType::C64
    )
}

/// Reads as many elements as `out` has, one thread. What is no plain type, or not [decodable](is_decodable), leaves `out` as it
/// is.
pub(super) fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => each(bytes, out, f32::from_le_bytes),
        DType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::F16 => halves(bytes, out, f16::from_bits),
        DType::BF16 => halves(bytes, out, bf16::from_bits),
        DType::Bool => each(bytes, out, |[b]: [u8; 1]| f32::from(u8::from(b != 0))),
        DType::U8 => each(bytes, out, |[b]: [u8; 1]| f32::from(b)),
        DType::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        DType::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
        DType::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        DType::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
        DType::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f32),
        DType::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
        _ => {}
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = convert(bytes);
    }
}

/// Half floats through a small buffer, because mapped bytes need not be aligned and slices convert with vector
/// instructions.
fn halves<H: Copy>(bytes: &[u8], out: &mut [f32], from_bits: impl Fn(u16) -> H)
where
    [H]: HalfFloatSliceExt,
{
    const BUFFER: usize = 512;
    let mut buffer = [from_bits(0); BUFFER];
    for (out, bytes) in out.chunks_mut(BUFFER).zip(bytes.chunks(2 * BUFFER)) {
        let buffer = &mut buffer[..out.len()];
        for (half, &bytes) in buffer.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = from_bits(u16::from_le_bytes(bytes));
        }
        buffer.convert_to_f32_slice(out);
    }
}

/// Whether [`encode`] knows the type.
pub(crate) fn is_encodable(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// Appends `values` as little-endian `dtype`, rounding to nearest with ties to even.
///
/// # Errors
/// The position of the first value that is not finite, or would not be after rounding.
pub(crate) fn encode(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<(), usize> {
    match dtype {
        DType::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            refuse(halves.iter().position(|half| !half.is_finite()))?;
            out.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
        }
        DType::BF16 => {
            let mut halves = vec![bf16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            refuse(halves.iter().position(|half| !half.is_finite()))?;
            out.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
        }
        _ => {
            refuse(values.iter().position(|value| !value.is_finite()))?;
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
    Ok(())
}

fn refuse(position: Option<usize>) -> Result<(), usize> {
    position.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even() {
        let mut bytes = Vec::new();
        // 1 + 2^-11 lies between the halves 1 and 1 + 2^-10; 1 + 3·2^-11 between 1 + 2^-10 and 1 + 2^-9.
        encode(DType::F16, &[1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11)], &mut bytes).unwrap();
        assert_eq!(bytes, [0x00, 0x3c, 0x02, 0x3c]);
        bytes.clear();
        encode(DType::BF16, &[1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8)], &mut bytes).unwrap();
        assert_eq!(bytes, [0x80, 0x3f, 0x82, 0x3f]);
    }

    #[test]
    fn what_rounds_to_infinity_is_refused() {
        let mut bytes = Vec::new();
        assert_eq!(encode(DType::F16, &[65519.0, 65520.0], &mut bytes), Err(1));
        assert_eq!(encode(DType::BF16, &[f32::MAX], &mut bytes), Err(0));
        assert_eq!(encode(DType::F32, &[0.0, f32::NAN], &mut bytes), Err(1));
        assert!(bytes.is_empty());
    }

    #[test]
    fn every_half_decodes_as_the_scalar_conversion() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        for (dtype, scalar) in [
            (DType::F16, (|b| f16::from_bits(b).to_f32()) as fn(u16) -> f32),
            (DType::BF16, |b| bf16::from_bits(b).to_f32()),
        ] {
            let mut decoded = vec![0.0; bits.len()];
            decode(dtype, &bytes, &mut decoded);
            for (&b, value) in bits.iter().zip(decoded) {
                let expected = scalar(b);
                assert!(
                    value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()),
                    "{dtype} {b:#x}"
                );
            }
        }
    }

    #[test]
    fn integers_and_doubles_decode() {
        let two = |bytes: &[u8], dtype| {
            let mut out = [0.0; 2];
            decode(dtype, bytes, &mut out);
            out
        };
        assert_eq!(two(&[0, 2], DType::Bool), [0.0, 1.0]);
        assert_eq!(two(&[255, 1], DType::U8), [255.0, 1.0]);
        assert_eq!(two(&[255, 1], DType::I8), [-1.0, 1.0]);
        assert_eq!(two(&[(-7i64).to_le_bytes(), 8i64.to_le_bytes()].concat(), DType::I64), [-7.0, 8.0]);
        assert_eq!(two(&[0.1f64.to_le_bytes(), (-2.5f64).to_le_bytes()].concat(), DType::F64), [0.1, -2.5]);
    }
}
