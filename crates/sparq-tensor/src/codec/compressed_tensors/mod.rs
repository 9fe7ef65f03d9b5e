//! compressed-tensors, `pack-quantized`.
//!
//! The format thinks in signed codes `q` from `−2^(b−1)` and stores `q + 2^(b−1)`: the unsigned codes used here. Scales
//! and shapes are plain tensors.

use ndarray::{Array2, ArrayView2};

use super::stream::{read_words, words, write_stream};

mod config;
mod parts;

pub(super) use parts::present;

/// How codes of 3, 5, 6 and 7 bits are laid out, which changed between versions of the format's own library. Other
/// widths are the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordLayout {
    /// Codes follow each other without gaps, across words: version 0.18.0 and later.
    Dense,
    /// `32 / bits` whole codes in each word, its upper bits unused: version 0.17 and before.
    WholeCodes,
}

impl WordLayout {
    /// Words that `count` codes of `bits` bits take.
    pub fn words(self, count: usize, bits: u32) -> usize {
        match self {
            Self::Dense => words(count, bits),
            Self::WholeCodes => count.div_ceil((32 / bits) as usize),
        }
    }
}

/// `weight_packed`, `[out, words]`, from codes `[out, in]` of `bits` (1 to 8) bits: every row on its own along `in`, low
/// bits first, padded with zero bits. Higher bits of a code are dropped.
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use sparq_tensor::codec::compressed_tensors::{pack_weight, unpack_weight, WordLayout};
///
/// let codes = array![[8u8, 15, 0, 1]];
/// let packed = pack_weight(codes.view(), 4);
/// assert_eq!(packed, array![[0x10f8]]);
/// assert_eq!(unpack_weight(packed.view(), 4, 4, WordLayout::Dense), Some(codes));
/// ```
pub fn pack_weight(codes: ArrayView2<'_, u8>, bits: u32) -> Array2<i32> {
    let mut packed = Array2::zeros((codes.nrows(), words(codes.ncols(), bits)));
    let mut row_words = vec![0u32; packed.ncols()];
    for (codes, mut packed) in codes.outer_iter().zip(packed.outer_iter_mut()) {
        row_words.fill(0);
        write_stream(codes.iter().copied(), bits, &mut row_words);
        packed.iter_mut().zip(&row_words).for_each(|(packed, &word)| *packed = word.cast_signed());
    }
    packed
}

/// Codes `[out, width]` from `weight_packed`; `None` if it has not the words that width, bits and layout imply, or
/// `bits` is outside of 1 to 8.
pub fn unpack_weight(packed: ArrayView2<'_, i32>, bits: u32, width: usize, layout: WordLayout) -> Option<Array2<u8>> {
    if !(1..=8).contains(&bits) || packed.ncols() != layout.words(width, bits) {
        return None;
    }
    let mut codes = Array2::zeros((packed.nrows(), width));
    for (packed, mut codes) in packed.outer_iter().zip(codes.outer_iter_mut()) {
        let row_words: Vec<u32> = packed.iter().map(|word| word.cast_unsigned()).collect();
        let Some(codes) = codes.as_slice_mut() else { continue };
        match layout {
            WordLayout::Dense => read_words(&row_words, bits, codes),
            WordLayout::WholeCodes => read_whole_codes(&row_words, bits, codes),
        }
    }
    Some(codes)
}

/// Reads codes laid out as [`WordLayout::WholeCodes`].
fn read_whole_codes(words: &[u32], bits: u32, out: &mut [u8]) {
    for (out, &word) in out.chunks_mut((32 / bits) as usize).zip(words) {
        read_words(&[word], bits, out);
    }
}

/// `weight_zero_point`, `[words, groups]`, from zero points `[out, groups]`: packed along `out`, each column on its own.
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use sparq_tensor::codec::compressed_tensors::{pack_zero_points, unpack_zero_points, WordLayout};
///
/// let zeros = array![[1u8, 8], [2, 9]];
/// let packed = pack_zero_points(zeros.view(), 4);
/// assert_eq!(packed, array![[0x21, 0x98]]);
/// assert_eq!(unpack_zero_points(packed.view(), 4, 2, WordLayout::Dense), Some(zeros));
/// ```
pub fn pack_zero_points(zeros: ArrayView2<'_, u8>, bits: u32) -> Array2<i32> {
    transposed(pack_weight(zeros.t(), bits))
}

/// Zero points `[rows, groups]` from `weight_zero_point`; `None` as for [`unpack_weight`].
pub fn unpack_zero_points(
    packed: ArrayView2<'_, i32>,
    bits: u32,
    rows: usize,
    layout: WordLayout,
) -> Option<Array2<u8>> {
    unpack_weight(packed.t(), bits, rows, layout).map(transposed)
}

/// The transposed array, row by row in memory.
pub(super) fn transposed<T: Clone>(array: Array2<T>) -> Array2<T> {
    array.reversed_axes().as_standard_layout().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words of the format's own library (0.18) for 2 × 40 codes, `(7·column + 3·row) mod 2^bits`; the first three and
    /// the last of each row.
    const WEIGHTS: [(u32, usize, [[u32; 4]; 2]); 6] = [
        (2, 3, [[0x6c6c6c6c, 0x6c6c6c6c, 0x00006c6c, 0x00006c6c], [0x1b1b1b1b, 0x1b1b1b1b, 0x00001b1b, 0x00001b1b]]),
        (3, 4, [[0xb829cbb8, 0xcbb829cb, 0x29cbb829, 0x0029cbb8], [0x53977053, 0x70539770, 0x97705397, 0x00977053]]),
        (4, 5, [[0x1a3c5e70, 0x92b4d6f8, 0x1a3c5e70, 0x1a3c5e70], [0x4d6f81a3, 0xc5e7092b, 0x4d6f81a3, 0x4d6f81a3]]),
        (5, 7, [[0x87cab8e0, 0x469bf88a, 0xfaf048b7, 0x0000008a], [0x4dfc4543, 0x78245ba3, 0x0753617d, 0x000000a3]]),
        (6, 8, [[0xdc54e1c0, 0x6ff8c6a8, 0xa626d434, 0x000044a0], [0x9f611283, 0x90bbd2d9, 0xb2579740, 0x000050d1]]),
        (8, 10, [[0x150e0700, 0x312a231c, 0x4d463f38, 0x110a03fc], [0x18110a03, 0x342d261f, 0x5049423b, 0x140d06ff]]),
    ];

    #[test]
    fn words_are_those_of_the_formats_own_library() {
        for (bits, count, expected) in WEIGHTS {
            let codes = Array2::from_shape_fn((2, 40), |(row, column)| ((7 * column + 3 * row) % (1 << bits)) as u8);
            let packed = pack_weight(codes.view(), bits);
            assert_eq!(packed.dim(), (2, count), "{bits} bits");
            for (row, expected) in packed.outer_iter().zip(expected) {
                let found = [row[0], row[1], row[2], row[count - 1]].map(i32::cast_unsigned);
                assert_eq!(found, expected, "{bits} bits");
            }
            assert_eq!(unpack_weight(packed.view(), bits, 40, WordLayout::Dense), Some(codes));
        }
    }

    #[test]
    fn zero_points_are_packed_over_rows() {
        let zeros = Array2::from_shape_fn((10, 2), |(row, group)| ((3 * row + group * (1 + 2 * row)) % 16) as u8);
        assert_eq!(zeros.column(1).to_vec(), [1, 6, 11, 0, 5, 10, 15, 4, 9, 14]);
        let packed = pack_zero_points(zeros.view(), 4);
        let expected = [0x52fc9630u32, 0x4fa50b61, 0x000000b8, 0x000000e9];
        assert_eq!(packed.dim(), (2, 2));
        assert_eq!(packed.iter().map(|word| word.cast_unsigned()).collect::<Vec<_>>(), expected);
        assert_eq!(unpack_zero_points(packed.view(), 4, 10, WordLayout::Dense), Some(zeros));
    }

    #[test]
    fn the_old_layout_leaves_the_upper_bits_of_a_word_unused() {
        let codes = Array2::from_shape_fn((1, 13), |(_, column)| (column % 8) as u8);
        let word = |codes: &[u8]| codes.iter().rev().fold(0i32, |word, &code| word << 3 | i32::from(code));
        let row = codes.row(0).to_vec();
        let packed = ndarray::array![[word(&row[..10]), word(&row[10..])]];
        assert_eq!(unpack_weight(packed.view(), 3, 13, WordLayout::WholeCodes), Some(codes));
        assert_eq!(unpack_weight(packed.view(), 3, 13, WordLayout::Dense).is_some(), 13 * 3 > 32);
        assert_eq!(unpack_weight(packed.view(), 3, 40, WordLayout::WholeCodes), None);
        assert_eq!(unpack_weight(packed.view(), 9, 13, WordLayout::Dense), None);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(rows in 0usize..5, width in 0usize..70, bits in 1u32..=8, seed in 0usize..100) {
            let codes = Array2::from_shape_fn((rows, width), |(row, column)| {
                (seed + row * 31 + column * 17) as u8 & ((1u16 << bits) - 1) as u8
            });
            let packed = pack_weight(codes.view(), bits);
            prop_assert_eq!(unpack_weight(packed.view(), bits, width, WordLayout::Dense), Some(codes.clone()));
            let packed = pack_zero_points(codes.view(), bits);
            prop_assert_eq!(unpack_zero_points(packed.view(), bits, rows, WordLayout::Dense), Some(codes));
        }
    }
}
