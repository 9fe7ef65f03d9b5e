//! What kernels for AVX-512 share.

use std::arch::x86_64::{
    __m512i, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};

/// Values of 32 bits in a register.
pub(crate) const LANES: usize = 16;
/// Which quarters of two registers go together.
const EVEN: i32 = 0b10_00_10_00;
const ODD: i32 = 0b11_01_11_01;

/// Element `i` of register `j` becomes element `j` of register `i`: first in pairs and quadruples of registers, within
/// their quarters, then quarter by quarter.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn transposed(rows: &[__m512i; LANES]) -> [__m512i; LANES] {
    let mut twos = *rows;
    for (two, rows) in twos.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
        *two = [_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1])];
    }
    // Quarter `q` of `fours[4 g + j]` holds elements `4 q + j` of registers `4 g` to `4 g + 3`.
    let mut fours = twos;
    for (four, two) in fours.as_chunks_mut::<4>().0.iter_mut().zip(twos.as_chunks::<4>().0) {
        *four = [
            _mm512_unpacklo_epi64(two[0], two[2]),
            _mm512_unpackhi_epi64(two[0], two[2]),
            _mm512_unpacklo_epi64(two[1], two[3]),
            _mm512_unpackhi_epi64(two[1], two[3]),
        ];
    }
    let mut columns = fours;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (even_ab, even_cd) = (_mm512_shuffle_i32x4::<EVEN>(a, b), _mm512_shuffle_i32x4::<EVEN>(c, d));
        let (odd_ab, odd_cd) = (_mm512_shuffle_i32x4::<ODD>(a, b), _mm512_shuffle_i32x4::<ODD>(c, d));
        columns[j] = _mm512_shuffle_i32x4::<EVEN>(even_ab, even_cd);
        columns[4 + j] = _mm512_shuffle_i32x4::<EVEN>(odd_ab, odd_cd);
        columns[8 + j] = _mm512_shuffle_i32x4::<ODD>(even_ab, even_cd);
        columns[12 + j] = _mm512_shuffle_i32x4::<ODD>(odd_ab, odd_cd);
    }
    columns
}
