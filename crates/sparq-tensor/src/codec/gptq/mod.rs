//! GPTQ checkpoints, versions 1 and 2: everything transposed, `qweight` packed along `in`, `qzeros` along `out`.
//!
//! Codes of 3 bits cross words as a continuous stream. Version 1 stores every zero point less one.

use ndarray::{Array2, ArrayView2};

use super::compressed_tensors::{WordLayout, pack_weight, transposed, unpack_weight};

mod config;
mod parts;

pub(super) use parts::present;

/// How zero points are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GptqVersion {
    /// Less one; `checkpoint_format` is `gptq` or absent.
    V1,
    /// As they are; `checkpoint_format` is `gptq_v2`.
    V2,
}

/// `qweight`, `[words, out]`, from codes `[out, in]` of `bits` bits (2, 3, 4 or 8).
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use sparq_tensor::codec::gptq::{pack_qweight, unpack_qweight};
///
/// let codes = array![[8u8, 15, 0, 1], [1, 2, 3, 4]];
/// let packed = pack_qweight(codes.view(), 4);
/// assert_eq!(packed, array![[0x10f8, 0x4321]]);
/// assert_eq!(unpack_qweight(packed.view(), 4, 4), Some(codes));
/// ```
pub fn pack_qweight(codes: ArrayView2<'_, u8>, bits: u32) -> Array2<i32> {
    transposed(pack_weight(codes, bits))
}

/// Codes `[out, width]` from `qweight`; `None` if it has not the words that width and bits imply, or `bits` is outside
/// of 1 to 8.
pub fn unpack_qweight(packed: ArrayView2<'_, i32>, bits: u32, width: usize) -> Option<Array2<u8>> {
    unpack_weight(packed.t(), bits, width, WordLayout::Dense)
}

/// `qzeros`, `[groups, words]`, from zero points `[out, groups]`; `None` if one of them is 0 in version 1, which cannot
/// say so.
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use sparq_tensor::codec::gptq::{GptqVersion, pack_qzeros, unpack_qzeros};
///
/// let zeros = array![[8u8], [8], [8]];
/// assert_eq!(pack_qzeros(zeros.view(), 4, GptqVersion::V2), Some(array![[0x888]]));
/// let packed = pack_qzeros(zeros.view(), 4, GptqVersion::V1).unwrap();
/// assert_eq!(packed, array![[0x777]]);
/// assert_eq!(unpack_qzeros(packed.view(), 4, 3, GptqVersion::V1), Some(zeros));
/// assert_eq!(pack_qzeros(array![[0u8]].view(), 4, GptqVersion::V1), None);
/// ```
pub fn pack_qzeros(zeros: ArrayView2<'_, u8>, bits: u32, version: GptqVersion) -> Option<Array2<i32>> {
    match version {
        GptqVersion::V2 => Some(pack_weight(zeros.t(), bits)),
        GptqVersion::V1 if zeros.iter().any(|&zero| zero == 0) => None,
        GptqVersion::V1 => Some(pack_weight(zeros.t().mapv(|zero| zero - 1).view(), bits)),
    }
}

/// Zero points `[rows, groups]` from `qzeros`; `None` as for [`unpack_qweight`].
pub fn unpack_qzeros(packed: ArrayView2<'_, i32>, bits: u32, rows: usize, version: GptqVersion) -> Option<Array2<u8>> {
    let restored = packed.mapv(|word| restore(word.cast_unsigned(), bits, version).cast_signed());
    let mut zeros = unpack_weight(restored.view(), bits, rows, WordLayout::Dense)?;
    if restores_codes(bits, version) {
        let mask = ((1u16 << bits) - 1) as u8;
        zeros.mapv_inplace(|zero| zero.wrapping_add(1) & mask);
    }
    Some(transposed(zeros))
}

/// A word of `qzeros` with the one added back to all of its fields at once. So carries run as borrows did when
/// GPTQModel subtracted, and even the zero points 0 that it writes come back.
fn restore(word: u32, bits: u32, version: GptqVersion) -> u32 {
    match version {
        GptqVersion::V1 if 32 % bits == 0 => word.wrapping_add(ones(bits)),
        _ => word,
    }
}

/// Whether the one is to be added to codes, because fields cross words.
fn restores_codes(bits: u32, version: GptqVersion) -> bool {
    version == GptqVersion::V1 && 32 % bits != 0
}

/// A one in every field of a word.
fn ones(bits: u32) -> u32 {
    (0..32 / bits).fold(0, |word, field| word | 1 << (field * bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codes(bits: u32, rows: usize) -> Array2<u8> {
        Array2::from_shape_fn((rows, 64), |(row, column)| ((5 * column + 3 * row) % (1 << bits)) as u8)
    }

    fn zeros(bits: u32, rows: usize) -> Array2<u8> {
        Array2::from_shape_fn((rows, 2), |(row, group)| (((4 * group + row) % ((1 << bits) - 1)) + 1) as u8)
    }

    fn unsigned(words: &Array2<i32>) -> Vec<u32> {
        words.iter().map(|word| word.cast_unsigned()).collect()
    }

    #[test]
    fn words_are_those_of_the_layout() {
        // (bits, out, first two words of qweight's first row, qzeros v2, qzeros v1), computed by hand from the layout.
        type Golden = (u32, usize, [u32; 2], &'static [u32], &'static [u32]);
        let golden: [Golden; 4] = [
            (4, 8, [0x3e94fa50, 0x61c72d83], &[0x87654321, 0xcba98765], &[0x76543210, 0xba987654]),
            (
                8,
                8,
                [0x0f0a0500, 0x120d0803],
                &[0x04030201, 0x08070605, 0x08070605, 0x0c0b0a09],
                &[0x03020100, 0x07060504, 0x07060504, 0x0b0a0908],
            ),
            (2, 16, [0xe4e4e4e4, 0x93939393], &[0x79e79e79, 0x9e79e79e], &[0x24924924, 0x49249249]),
            (
                3,
                32,
                [0xa878cea8, 0x43c67543],
                &[0x1a3f58d1, 0xfd6347eb, 0x8d1fac68, 0x7eb1a3f5, 0xc68fd634, 0x3f58d1fa],
                &[0xd11ac688, 0x6b1a2358, 0x688d6344, 0x358d11ac, 0x3446b1a2, 0x1ac688d6],
            ),
        ];
        for (bits, rows, qweight, v2, v1) in golden {
            let (codes, zeros) = (codes(bits, rows), zeros(bits, rows));
            let packed = pack_qweight(codes.view(), bits);
            assert_eq!(packed.dim(), (2 * bits as usize, rows));
            assert_eq!(unsigned(&packed)[..2], qweight, "{bits} bits");
            assert_eq!(unpack_qweight(packed.view(), bits, 64), Some(codes));
            for (version, expected) in [(GptqVersion::V2, v2), (GptqVersion::V1, v1)] {
                let packed = pack_qzeros(zeros.view(), bits, version).unwrap();
                assert_eq!(unsigned(&packed), expected, "{bits} bits, {version:?}");
                assert_eq!(unpack_qzeros(packed.view(), bits, rows, version).as_ref(), Some(&zeros));
            }
        }
    }

    #[test]
    fn symmetric_zero_points_are_the_known_constants() {
        for (bits, v2, v1) in [
            (2, [0xaaaaaaaa; 3], [0x55555555; 3]),
            (3, [0x24924924, 0x49249249, 0x92492492], [0xdb6db6db, 0xb6db6db6, 0x6db6db6d]),
            (4, [0x88888888; 3], [0x77777777; 3]),
            (8, [0x80808080; 3], [0x7f7f7f7fu32; 3]),
        ] {
            let zeros = Array2::from_elem((96 / bits as usize, 1), 1u8 << (bits - 1));
            let pack = |version| unsigned(&pack_qzeros(zeros.view(), bits, version).unwrap());
            assert_eq!((pack(GptqVersion::V2), pack(GptqVersion::V1)), (v2.to_vec(), v1.to_vec()), "{bits} bits");
        }
    }

    #[test]
    fn a_borrow_from_the_neighbour_comes_back() {
        // GPTQModel subtracts 0x11111111 from the whole word: zero points (0, 5, ...) borrow.
        let word = 0x00000050u32.wrapping_sub(0x11111111).cast_signed();
        let zeros = unpack_qzeros(ndarray::array![[word]].view(), 4, 2, GptqVersion::V1).unwrap();
        assert_eq!(zeros, ndarray::array![[0], [5]]);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(rows in 1usize..40, width in 1usize..70, seed in 0usize..100, bits in 0usize..4) {
            let bits = [2, 3, 4, 8][bits];
            let largest = (1usize << bits) - 1;
            let codes = Array2::from_shape_fn((rows, width), |(r, c)| ((seed + 31 * r + 17 * c) % (largest + 1)) as u8);
            let packed = pack_qweight(codes.view(), bits);
            prop_assert_eq!(unpack_qweight(packed.view(), bits, width), Some(codes.clone()));
            let zeros = codes.mapv(|code| code.max(1));
            for version in [GptqVersion::V1, GptqVersion::V2] {
                let packed = pack_qzeros(zeros.view(), bits, version).unwrap();
                prop_assert_eq!(unpack_qzeros(packed.view(), bits, rows, version), Some(zeros.clone()));
            }
        }
    }
}
