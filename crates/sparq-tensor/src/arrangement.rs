//! How the elements of a tensor lie in a GGUF file, compared with a Hugging Face checkpoint.

use std::borrow::Cow;

use ndarray::{ArrayView2, ArrayView3};

use crate::DType;

/// What separates the bytes in the file from those of the tensor as it is presented.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) enum Arrangement {
    /// Nothing.
    #[default]
    AsPresented,
    /// Rows are in llama.cpp's rotary order.
    Interleaved(HeadInterleaving),
    /// This is added to the values, which are F32.
    Offset(f32),
    /// A matrix presented as `[in, out]` is `[out, in]` in the file.
    Transposed,
}

impl Arrangement {
    /// The bytes as presented, in `shape`; none if they are blocks, which cannot be turned.
    pub(crate) fn presented<'a>(self, stored: &'a [u8], shape: &[usize], dtype: DType) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::AsPresented => Some(Cow::Borrowed(stored)),
            Self::Interleaved(interleaving) => {
                let rows = shape.first().copied().unwrap_or(1);
                Some(moved(stored, rows, (0..rows).map(|row| interleaving.source_row(row))))
            }
            Self::Offset(offset) => Some(shifted(stored, -offset)),
            Self::Transposed => transposed_bytes(stored, shape.iter().rev(), dtype),
        }
    }

    /// The bytes of the file from those of the tensor of `shape`; none if they are blocks, which cannot be turned.
    pub(crate) fn stored<'a>(self, presented: &'a [u8], shape: &[usize], dtype: DType) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::AsPresented => Some(Cow::Borrowed(presented)),
            Self::Interleaved(interleaving) => {
                let rows = shape.first().copied().unwrap_or(1);
                Some(moved(presented, rows, interleaving.stored_order(rows).into_iter()))
            }
            Self::Offset(offset) => Some(shifted(presented, offset)),
            Self::Transposed => transposed_bytes(presented, shape.iter(), dtype),
        }
    }

    /// The shape in the file of a tensor of `shape`.
    pub(crate) fn stored_shape(self, shape: &[usize]) -> Vec<usize> {
        let mut stored = shape.to_vec();
        if self == Self::Transposed {
            stored.reverse();
        }
        stored
    }
}

/// Rows in another order.
fn moved(bytes: &[u8], rows: usize, order: impl Iterator<Item = usize>) -> Cow<'static, [u8]> {
    let row_bytes = bytes.len().checked_div(rows).unwrap_or(0);
    let mut moved = Vec::with_capacity(bytes.len());
    for row in order {
        moved.extend_from_slice(&bytes[row * row_bytes..(row + 1) * row_bytes]);
    }
    Cow::Owned(moved)
}

/// F32 values with something added.
fn shifted(bytes: &[u8], offset: f32) -> Cow<'static, [u8]> {
    let shifted = |four: &[u8; 4]| (f32::from_le_bytes(*four) + offset).to_le_bytes();
    Cow::Owned(bytes.as_chunks().0.iter().flat_map(shifted).collect())
}

/// A matrix of plain elements, `shape` before it is turned.
fn transposed_bytes<'a>(
    bytes: &[u8],
    shape: impl Iterator<Item = &'a usize>,
    dtype: DType,
) -> Option<Cow<'static, [u8]>> {
    let shape: Vec<usize> = shape.copied().collect();
    let (&[rows, columns], 1) = (shape.as_slice(), dtype.block_size()) else { return None };
    let mut turned = Vec::with_capacity(bytes.len());
    let elements = ArrayView3::from_shape((rows, columns, dtype.block_bytes()), bytes).ok()?;
    turned.extend(elements.permuted_axes([1, 0, 2]).iter());
    Some(Cow::Owned(turned))
}

/// The elements of a matrix in the order of its columns; none if they are not `rows × columns`.
pub(crate) fn transposed(elements: &[f32], rows: usize, columns: usize) -> Option<Vec<f32>> {
    let matrix = ArrayView2::from_shape((rows, columns), elements).ok()?;
    Some(matrix.t().iter().copied().collect())
}

/// How rows of a query or key projection are stored.
///
/// Hugging Face rotates element `i` of a head together with element `i + half`; llama.cpp, for the llama architecture
/// only, with its neighbour. Its converter therefore stores the rows of each head alternating between the two halves.
/// `head_dimension` is even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadInterleaving {
    pub(crate) head_dimension: usize,
}

impl HeadInterleaving {
    /// The row on disk that holds Hugging Face's row `row`.
    pub(crate) fn source_row(self, row: usize) -> usize {
        let half = self.head_dimension / 2;
        let (head, within) = (row / self.head_dimension, row % self.head_dimension);
        let (upper, index) = (within / half, within % half);
        head * self.head_dimension + 2 * index + upper
    }

    /// Hugging Face's row for each row on disk.
    pub(crate) fn stored_order(self, rows: usize) -> Vec<usize> {
        let mut order = vec![0; rows];
        for row in 0..rows {
            order[self.source_row(row)] = row;
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_presented_is_what_was_stored() {
        let bytes: Vec<u8> =
            [0.5_f32, -1.0, 2.0, 3.0, 1.5, 8.0, 7.0, 6.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let interleaving = HeadInterleaving { head_dimension: 4 };
        for arrangement in [
            Arrangement::AsPresented,
            Arrangement::Interleaved(interleaving),
            Arrangement::Offset(1.0),
            Arrangement::Transposed,
        ] {
            let stored = arrangement.stored(&bytes, &[4, 2], DType::F32).unwrap();
            assert_eq!(*stored == bytes, arrangement == Arrangement::AsPresented, "{arrangement:?}");
            assert_eq!(*arrangement.presented(&stored, &[4, 2], DType::F32).unwrap(), bytes, "{arrangement:?}");
        }
    }

    #[test]
    fn matrices_are_turned_and_blocks_are_not() {
        let bytes = [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0];
        let stored = Arrangement::Transposed.stored(&bytes, &[2, 3], DType::F16).unwrap();
        assert_eq!(*stored, [1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0]);
        assert_eq!(Arrangement::Transposed.stored_shape(&[2, 3]), [3, 2]);
        assert_eq!(Arrangement::Transposed.presented(&[0; 34], &[32, 1], DType::Q8_0), None);
        assert_eq!(Arrangement::Transposed.stored(&bytes, &[6], DType::F16), None);
    }

    #[test]
    fn it_undoes_the_converter() {
        // The converter, literally: per head view rows as (2, half), swap to (half, 2).
        let (heads, half) = (3, 4);
        let mut stored = Vec::new();
        for head in 0..heads {
            for index in 0..half {
                for upper in 0..2 {
                    stored.push(head * 2 * half + upper * half + index);
                }
            }
        }
        let interleaving = HeadInterleaving { head_dimension: 2 * half };
        let restored: Vec<usize> = (0..stored.len()).map(|row| stored[interleaving.source_row(row)]).collect();
        assert_eq!(restored, (0..stored.len()).collect::<Vec<_>>());
        assert_eq!(interleaving.stored_order(stored.len()), stored);
    }
}
