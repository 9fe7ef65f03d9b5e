//! What is written for the processor's own instructions: tile registers, and a transposition.

use super::pack::{LINES, Square, TERMS};
use crate::avx512::transposed;
use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m256i, __m512, __m512bh, __m512i, _mm512_and_si512, _mm512_castsi512_ps, _mm512_castsi512_si256,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_extracti64x4_epi64, _mm512_fpclass_ps_mask, _mm512_loadu_si512,
    _mm512_maskz_loadu_ps, _mm512_maskz_sub_ps, _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_storeu_si512,
};
use std::sync::OnceLock;

/// Side of the square of a result that is computed at a time, in four registers.
pub(super) const SIDE: usize = 2 * LINES;

/// Sums of products, row by row.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [[f32; SIDE]; SIDE]);

impl Default for Sums {
    fn default() -> Self {
        Self([[0.0; SIDE]; SIDE])
    }
}

/// How tile registers are laid out: the first eight with 16 rows of 64 bytes each.
#[repr(C, align(64))]
struct Layout {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static LAYOUT: Layout = Layout {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Proof that this process may use tile registers that multiply bfloat16, and AVX-512.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles(());

#[allow(clippy::unused_self, unsafe_code, reason = "needed for what it proves")]
impl Tiles {
    /// Asks the processor, and the operating system for leave; once.
    pub(super) fn detect() -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND.get_or_init(has_tiles).then_some(Self(()))
    }

    /// Runs `loops` compiled for AVX-512. The closure must be marked `#[inline(always)]`, else it is compiled on its own, for
    /// the baseline.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    pub(super) fn run<R>(self, loops: impl FnOnce() -> R) -> R {
        // SAFETY: `Tiles` exist only where `detect` found the features that `run` is compiled for.
        unsafe { run(loops) }
    }

    /// Splits 32 terms from `first` on of 16 lines into parts of bfloat16; what is missing is zero. Rows of the parts are
    /// lines.
    pub(super) fn split_lines<const PARTS: usize>(
        self,
        lines: &[&[f32]; LINES],
        first: usize,
        parts: &mut [Square; PARTS],
    ) {
        // SAFETY: as in `run`.
        unsafe { split_lines(lines, first, parts) }
    }

    /// Splits 16 lines from `first` on of 32 terms into parts of bfloat16; what is missing is zero. Rows of the parts are
    /// pairs of terms.
    pub(super) fn split_terms<const PARTS: usize>(
        self,
        terms: &[&[f32]; TERMS],
        first: usize,
        parts: &mut [Square; PARTS],
    ) {
        // SAFETY: as in `run`.
        unsafe { split_terms(terms, first, parts) }
    }

    /// `to[r][c] = from[c][r]`.
    pub(super) fn transpose(self, from: &Square, to: &mut Square) {
        // SAFETY: as in `run`.
        unsafe { transpose(from, to) }
    }

    /// The sums over all terms of two times 16 rows and columns, as `pack` lays them out.
    ///
    /// # Panics
    /// If the sides have different lengths.
    pub(super) fn multiply<const PARTS: usize>(self, left: &[Square], right: &[Square], sums: &mut Sums) {
        let steps = left.len() / (2 * PARTS);
        assert_eq!((left.len(), right.len()), (2 * PARTS * steps, 2 * PARTS * steps), "sides of a product");
        if steps == 0 {
            return *sums = Sums::default();
        }
        // SAFETY: `Tiles` exist only where `detect` found the registers and got leave to use them. Each step reads
        // `2 · PARTS` squares of 1024 bytes from both sides, which the assertion has found there, and `sums` are the 4096
        // bytes that are written. The compiler never keeps anything in tile registers, and none is in use after the
        // release.
        unsafe {
            if PARTS == 1 {
                multiply_rounded(left.as_ptr(), right.as_ptr(), steps, sums);
            } else {
                multiply_split(left.as_ptr(), right.as_ptr(), steps, sums);
            }
        }
    }
}

#[allow(unsafe_code)]
#[allow(unused_unsafe, reason = "asking was unsafe before Rust 1.93")]
fn has_tiles() -> bool {
    /// What the processor says of itself: that tiles multiply bfloat16, and that there are tiles.
    const FEATURES: u32 = 1 << 22 | 1 << 24;
    /// The system call `arch_prctl`, its code for asking leave, and the registers that are asked for.
    const ARCH_PRCTL: u64 = 158;
    const ASK: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let is_detected = std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512bf16");
    // SAFETY: every processor with AVX-512 has this leaf.
    if !is_detected || unsafe { __cpuid_count(7, 0) }.edx & FEATURES != FEATURES {
        return false;
    }
    let answer: i64;
    // SAFETY: the call changes only which registers the system saves for this process. It writes rax, rcx and r11 and no
    // memory. A system that does not know it or keeps tiles to itself answers with an error.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => answer, in("rdi") ASK, in("rsi") TILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    answer == 0
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16")]
fn run<R>(loops: impl FnOnce() -> R) -> R {
    loops()
}

/// Sets up the registers, all of them zero, repeats the instructions of a step, and stores the sums, which are in `tmm0` to
/// `tmm3`. Each step reads so many bytes of `left` and of `right`, rows of 64 bytes (`row`).
macro_rules! sum_of_steps {
    ($left:ident, $right:ident, $steps:ident, $sums:ident, $bytes:literal bytes a step, $($instruction:literal,)+) => {
        asm!(
            "ldtilecfg [{layout}]",
            "2:",
            $($instruction,)+
            "add {left}, {bytes}",
            "add {right}, {bytes}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 64], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 2112], tmm3",
            "tilerelease",
            layout = in(reg) &raw const LAYOUT,
            left = inout(reg) $left => _,
            right = inout(reg) $right => _,
            steps = inout(reg) $steps => _,
            bytes = const $bytes,
            row = in(reg) 64_usize,
            line = in(reg) 128_usize,
            sums = in(reg) &raw mut *$sums,
            options(nostack)
        )
    };
}

/// # Safety
/// There are tile registers; `left` and `right` have `steps` times two squares.
#[allow(unsafe_code)]
unsafe fn multiply_rounded(left: *const Square, right: *const Square, steps: usize, sums: &mut Sums) {
    // SAFETY: see `multiply`.
    unsafe {
        sum_of_steps!(
            left, right, steps, sums, 2048 bytes a step,
            "tileloadd tmm4, [{left} + {row}]",
            "tileloadd tmm6, [{right} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{left} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{right} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
    }
}

/// # Safety
/// There are tile registers; `left` and `right` have `steps` times four squares.
#[allow(unsafe_code)]
unsafe fn multiply_split(left: *const Square, right: *const Square, steps: usize, sums: &mut Sums) {
    // SAFETY: see `multiply`.
    unsafe {
        sum_of_steps!(
            left, right, steps, sums, 4096 bytes a step,
            // First parts of the left side with second parts of the right one,
            "tileloadd tmm4, [{left} + {row}]",
            "tileloadd tmm6, [{right} + {row} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{left} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{right} + {row} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // first parts with first parts,
            "tileloadd tmm6, [{right} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{right} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // second parts with first parts.
            "tileloadd tmm4, [{left} + {row} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{left} + {row} + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
    }
}

#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
fn transpose(from: &Square, to: &mut Square) {
    let mut rows = [_mm512_setzero_si512(); LINES];
    for (register, row) in rows.iter_mut().zip(&from.0) {
        // SAFETY: a row is 64 bytes, those that are read; the load needs no alignment.
        *register = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
    }
    for (register, row) in transposed(&rows).into_iter().zip(&mut to.0) {
        // SAFETY: a row is 64 bytes, those that are written; the store needs no alignment.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), register) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16")]
fn split_lines<const PARTS: usize>(lines: &[&[f32]; LINES], first: usize, parts: &mut [Square; PARTS]) {
    for (at, line) in lines.iter().enumerate() {
        let (mut low, mut high) = (load(line, first), load(line, first + LINES));
        for part in parts.iter_mut() {
            let pairs = pairs(low, high);
            store(pairs, &mut part.0[at]);
            low = remainder(low, widened(_mm512_castsi512_si256(pairs)));
            high = remainder(high, widened(_mm512_extracti64x4_epi64::<1>(pairs)));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16")]
#[allow(unsafe_code)]
fn split_terms<const PARTS: usize>(terms: &[&[f32]; TERMS], first: usize, parts: &mut [Square; PARTS]) {
    /// Where each half of a pair comes from: one of the first 16 and one of the last 16.
    static INTERLEAVED: [u16; TERMS] = {
        let mut places = [0; TERMS];
        let mut at = 0;
        while at < TERMS {
            places[at] = (at / 2 + at % 2 * LINES) as u16;
            at += 1;
        }
        places
    };
    // SAFETY: the array is 64 bytes, those that are read; the load needs no alignment.
    let interleaved = unsafe { _mm512_loadu_si512(INTERLEAVED.as_ptr().cast()) };
    for (at, [low, high]) in terms.as_chunks().0.iter().enumerate() {
        let (mut low, mut high) = (load(low, first), load(high, first));
        for part in parts.iter_mut() {
            let pairs = _mm512_permutexvar_epi16(interleaved, pairs(low, high));
            store(pairs, &mut part.0[at]);
            low = remainder(low, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)));
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
            high = remainder(high, _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)));
        }
    }
}

/// 16 values from `first` on; zeros for those that there are not.
#[target_feature(enable = "avx512f")]
#[inline]
#[allow(unsafe_code)]
fn load(values: &[f32], first: usize) -> __m512 {
    let count = values.len().saturating_sub(first).min(LINES);
    let mask = (0xFFFF_u32 >> (LINES - count)) as u16;
    // SAFETY: of the 16 values only those are read that the mask names, and these the slice has.
    unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr().wrapping_add(first)) }
}

#[target_feature(enable = "avx512f")]
#[inline]
#[allow(unsafe_code)]
fn store(register: __m512i, to: &mut [u32; LINES]) {
    // SAFETY: the array is 64 bytes, those that are written; the store needs no alignment.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), register) };
}

/// Both rounded to bfloat16, one behind the other.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
#[allow(unsafe_code)]
fn pairs(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both types are 512 bits without structure.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// 16 values of bfloat16 as `f32`.
#[target_feature(enable = "avx512f")]
#[inline]
fn widened(values: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values)))
}

/// What `rounded` leaves of a value; nothing of what is not finite.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn remainder(value: __m512, rounded: __m512) -> __m512 {
    /// Quiet and signalling not-a-numbers, and both infinities.
    const NOT_FINITE: i32 = 0x01 | 0x80 | 0x08 | 0x10;
    _mm512_maskz_sub_ps(!_mm512_fpclass_ps_mask::<NOT_FINITE>(rounded), value, rounded)
}
