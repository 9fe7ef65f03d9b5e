//! What is written for the processor's own instructions: the product of a tile, in registers, and a transposition.

use super::pack::{PAIRS, Row};

/// Rows of a tile.
pub(super) const ROWS: usize = 8;
/// Columns of a tile: three registers of 16.
pub(super) const COLUMNS: usize = 48;

/// Weights of a tile: pair by pair, column by column.
pub(super) type Panel = [[u32; COLUMNS]; PAIRS];

/// Sums of products, row by row.
#[derive(Debug)]
pub(super) struct Tile(pub(super) [[f32; COLUMNS]; ROWS]);

impl Default for Tile {
    fn default() -> Self {
        Self([[0.0; COLUMNS]; ROWS])
    }
}

/// Proof that the processor multiplies pairs of bfloat16.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel(());

#[allow(clippy::unused_self, reason = "a kernel is needed for what it proves")]
impl Kernel {
    /// Asks the processor.
    pub(super) fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bf16") {
            return Some(Self(()));
        }
        None
    }

    /// Runs `loops` compiled for this processor. The closure must be marked `#[inline(always)]`, else it is compiled on
    /// its own, for the baseline.
    #[inline(always)]
    #[allow(clippy::inline_always, unsafe_code)]
    pub(super) fn run<R>(self, loops: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernel` exists only where `detect` found the features that `avx512::run` is compiled for.
        return unsafe { avx512::run(loops) };
        #[cfg(not(target_arch = "x86_64"))]
        return loops(); // no `Kernel` exists
    }

    /// `tile[r][c] = Σ x[r][pair] · panel[pair][c]` over the first `pairs`, both halves of each.
    #[allow(unsafe_code)]
    pub(super) fn multiply(self, x: &[Row; ROWS], panel: &Panel, pairs: usize, tile: &mut Tile) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `run`.
        unsafe {
            avx512::multiply(x, panel, pairs, tile);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (x, panel, pairs, tile); // no `Kernel` exists
    }

    /// `panel[pair][c] = rows[c][pair]`.
    #[allow(unsafe_code)]
    pub(super) fn transpose(self, rows: &[Row; COLUMNS], panel: &mut Panel) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `run`.
        unsafe {
            avx512::transpose(rows, panel);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (rows, panel); // no `Kernel` exists
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512 {
    use super::{COLUMNS, PAIRS, Panel, ROWS, Row, Tile};
    use crate::avx512::{LANES, transposed};
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_storeu_ps, _mm512_storeu_si512,
    };

    const REGISTERS: usize = COLUMNS / LANES;
    const _: () = assert!(COLUMNS.is_multiple_of(LANES) && PAIRS.is_multiple_of(LANES));

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn run<R>(loops: impl FnOnce() -> R) -> R {
        loops()
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn multiply(x: &[Row; ROWS], panel: &Panel, pairs: usize, tile: &mut Tile) {
        let mut sums = [[_mm512_setzero_ps(); REGISTERS]; ROWS];
        for (pair, weights) in panel.iter().enumerate().take(pairs) {
            let mut columns = [_mm512_setzero_si512(); REGISTERS];
            for (register, from) in columns.iter_mut().zip(weights.as_chunks().0) {
                *register = load(from);
            }
            for (sums, x) in sums.iter_mut().zip(x) {
                let row = _mm512_set1_epi32(x[pair].cast_signed());
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = multiply_add(*sum, row, column);
                }
            }
        }
        for (sums, to) in sums.iter().zip(&mut tile.0) {
            for (sum, to) in sums.iter().zip(to.as_chunks_mut::<LANES>().0) {
                // SAFETY: `to` is 16 `f32` long, the 64 bytes that are written; the store needs no alignment.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *sum) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    fn multiply_add(sum: __m512, x: __m512i, w: __m512i) -> __m512 {
        // SAFETY: both types are 512 bits without structure.
        let (x, w) =
            unsafe { (std::mem::transmute::<__m512i, __m512bh>(x), std::mem::transmute::<__m512i, __m512bh>(w)) };
        _mm512_dpbf16_ps(sum, x, w)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn transpose(rows: &[Row; COLUMNS], panel: &mut Panel) {
        for first in (0..PAIRS).step_by(LANES) {
            for (group, rows) in rows.as_chunks::<LANES>().0.iter().enumerate() {
                let mut square = [_mm512_setzero_si512(); LANES];
                for (register, row) in square.iter_mut().zip(rows) {
                    *register = load(&row.as_chunks().0[first / LANES]);
                }
                for (register, pairs) in transposed(&square).into_iter().zip(&mut panel[first..]) {
                    let to = &mut pairs.as_chunks_mut::<LANES>().0[group];
                    // SAFETY: `to` is 16 `u32` long, the 64 bytes that are written; the store needs no alignment.
                    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), register) };
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(from: &[u32; LANES]) -> __m512i {
        // SAFETY: `from` is 16 `u32` long, the 64 bytes that are read; the load needs no alignment.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::large_stack_arrays, reason = "48 KiB, on their way to the heap")]
    fn panels_are_transposed_rows() {
        let Some(kernel) = Kernel::detect() else { return };
        let rows: [Row; COLUMNS] = std::array::from_fn(|row| std::array::from_fn(|pair| (row << 16 | pair) as u32));
        let mut panel = Box::new([[0; COLUMNS]; PAIRS]);
        kernel.transpose(&rows, &mut panel);
        for (pair, columns) in panel.iter().enumerate() {
            for (column, value) in columns.iter().enumerate() {
                assert_eq!(*value, (column << 16 | pair) as u32);
            }
        }
    }
}
