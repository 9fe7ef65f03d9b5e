//! Sizes of tensors, checked for overflow.

use crate::{DType, Fault};

impl DType {
    /// Bytes a row-major tensor of this shape takes, or `None` if that overflows or its rows are not whole blocks.
    pub fn bytes_for(self, shape: &[usize]) -> Option<u64> {
        self.checked_bytes(shape).ok()
    }

    /// As [`bytes_for`](Self::bytes_for), saying what is wrong.
    pub(crate) fn checked_bytes(self, shape: &[usize]) -> Result<u64, Fault> {
        let columns = shape.last().copied().unwrap_or(1);
        let elements = checked_elements(shape)? as u64;
        // Small floats fill bytes across rows, blocks lie inside of them.
        let run = if self.is_block_quantized() { columns as u64 } else { elements };
        if !run.is_multiple_of(self.block_size() as u64) {
            return Err(Fault::PartialBlock { columns, dtype: self });
        }
        (elements / self.block_size() as u64)
            .checked_mul(self.block_bytes() as u64)
            .ok_or(Fault::Overflow { what: "the size of the tensor" })
    }
}

/// The number of elements of a tensor.
///
/// Counted as if zero dimensions were one, so that what passes here also passes every later product of some of the
/// dimensions.
pub(crate) fn checked_elements(shape: &[usize]) -> Result<usize, Fault> {
    let overflow = Fault::Overflow { what: "the number of elements" };
    let mut elements = 1usize;
    for &dimension in shape {
        elements = elements
            .checked_mul(dimension.max(1))
            .filter(|&n| isize::try_from(n).is_ok())
            .ok_or_else(|| overflow.clone())?;
    }
    Ok(if shape.contains(&0) { 0 } else { elements })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_shapes_overflow_instead_of_wrapping() {
        assert_eq!(DType::F32.bytes_for(&[usize::MAX, 2]), None);
        assert_eq!(DType::F32.bytes_for(&[1 << 40, 1 << 40]), None);
        assert_eq!(DType::F64.bytes_for(&[1 << 62]), None);
        assert_eq!(DType::F32.bytes_for(&[0, 1 << 40, 1 << 40]), None);
        assert_eq!(DType::F32.bytes_for(&[0, 5]), Some(0));
        assert_eq!(DType::F32.bytes_for(&[]), Some(4));
    }
}
