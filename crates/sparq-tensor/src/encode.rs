//! From f32 to the float types of safetensors.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::DType;

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

/// The index of element `position` of a row-major tensor.
pub(crate) fn unravel(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (index, &dimension) in index.iter_mut().zip(shape).rev() {
        *index = position % dimension.max(1);
        position /= dimension.max(1);
    }
    index
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
    fn positions_unravel_row_major() {
        assert_eq!(unravel(7, &[2, 5]), [1, 2]);
        assert_eq!(unravel(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(unravel(0, &[]), [0usize; 0]);
    }
}
