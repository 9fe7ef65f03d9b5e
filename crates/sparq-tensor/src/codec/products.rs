//! Products of one token's inputs with rows of ggml's blocks, which are read and multiplied in one pass.
#![allow(clippy::inline_always, reason = "loops are compiled for the processor where they are called")]

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::block::{Affine, Read};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, _MM_HINT_T0, _mm_prefetch};

/// Inputs that share a scale when they are rounded to 8 bits, and weights that are multiplied at a time.
const BLOCK: usize = 32;
/// Weights that share a scale and an offset are this many or twice as many.
const HALF: usize = BLOCK / 2;
const LANES: usize = 8;

/// `input`, `[tokens, in]`, rounded to 8 bits. A row is cut into blocks of 32, the last one perhaps shorter. Each element becomes a
/// multiple of a 127th of the largest magnitude in its block. Same bits for any number of threads.
///
/// # Examples
/// ```
/// let rounded = sparq_tensor::rounded_to_8_bits(ndarray::array![[127.0, 3.4]].view());
/// assert_eq!(rounded, ndarray::array![[127.0, 3.0]]);
/// ```
pub fn rounded_to_8_bits(input: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut values = input.as_standard_layout().into_owned();
    let width = values.ncols().max(1);
    if let Some(values) = values.as_slice_mut() {
        values.par_chunks_mut(width).for_each(|row| {
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || {
                    for block in row.chunks_mut(BLOCK) {
                        let mut codes = [0; BLOCK];
                        let scale = round(block, &mut codes);
                        for (value, code) in block.iter_mut().zip(codes) {
                            *value = scale * f32::from(code);
                        }
                    }
                },
            );
        });
    }
    values
}

/// Codes of the elements of a block, and their scale.
#[inline(always)]
fn round(values: &[f32], codes: &mut [i8]) -> f32 {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value * inverse).round_ties_even() as i8;
    }
    scale
}

/// One token's inputs of a linear layer, `[in]`, to be multiplied with [rows of blocks](crate::OpenRows::products). Blocks have 32
/// weights or a multiple of it: inputs beyond the last whole 32 are left out.
#[derive(Debug, Clone)]
pub struct RowInputs {
    values: Values,
    /// Sums of both halves of each block.
    sums: Vec<[f32; 2]>,
}

#[derive(Debug, Clone)]
enum Values {
    Exact(Vec<[f32; BLOCK]>),
    Rounded(Vec<Rounded>),
}

/// 32 inputs, rounded to 8 bits.
#[derive(Debug, Clone)]
struct Rounded {
    codes: [i8; BLOCK],
    scale: f32,
}

impl RowInputs {
    /// As they are.
    pub fn exact(values: &[f32]) -> Self {
        let values = values.as_chunks().0.to_vec();
        let sums = values.iter().map(|block| halves(block).map(|half| half.iter().sum())).collect();
        Self { values: Values::Exact(values), sums }
    }

    /// [Rounded to 8 bits](rounded_to_8_bits): products are then of integers, block by block.
    pub fn rounded(values: &[f32]) -> Self {
        let mut rounded = vec![Rounded { codes: [0; BLOCK], scale: 0.0 }; values.len() / BLOCK];
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (values, rounded) in values.as_chunks::<BLOCK>().0.iter().zip(&mut rounded) {
                    rounded.scale = round(values, &mut rounded.codes);
                }
            },
        );
        let sums = |block: &Rounded| {
            let sum = |codes: &[i8]| codes.iter().map(|code| i32::from(*code)).sum::<i32>() as f32;
            halves(&block.codes).map(|half| block.scale * sum(half))
        };
        let sums = rounded.iter().map(sums).collect();
        Self { values: Values::Rounded(rounded), sums }
    }

    /// For each row of `bytes`, as many as `out` has elements, the sum of products with its weights. Rows that are missing leave
    /// theirs.
    pub(super) fn products<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize>(
        &self,
        read: impl Read<BYTES, ELEMENTS, UNITS>,
        bytes: &[u8],
        out: &mut [f32],
    ) {
        let rows = Rows { read, blocks: bytes.as_chunks().0, sums: &self.sums };
        match &self.values {
            Values::Exact(inputs) => rows.multiply(inputs, out),
            Values::Rounded(inputs) => rows.multiply(inputs, out),
        }
    }
}

/// Both halves of a block.
fn halves<T>(block: &[T; BLOCK]) -> [&[T]; 2] {
    let (low, high) = block.split_at(HALF);
    [low, high]
}

/// Rows of blocks, and the sums of the inputs that offsets are multiplied with.
struct Rows<'a, R, const BYTES: usize, const ELEMENTS: usize, const UNITS: usize> {
    read: R,
    blocks: &'a [[u8; BYTES]],
    sums: &'a [[f32; 2]],
}

impl<R, const BYTES: usize, const ELEMENTS: usize, const UNITS: usize> Rows<'_, R, BYTES, ELEMENTS, UNITS>
where
    R: Read<BYTES, ELEMENTS, UNITS>,
{
    fn multiply<X: Inputs>(&self, inputs: &[X], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(
                #[inline(always)]
                || {
                    let (avx, start) = (simd.avx, [simd.avx._mm256_setzero_ps(); 2]);
                    for (row, out) in self.rows(inputs.len()).zip(out) {
                        prefetch(row);
                        let (totals, offsets) = self.sum(
                            row,
                            inputs,
                            start,
                            #[inline(always)]
                            |block, codes| self.read.read_avx2(simd, block, codes),
                            #[inline(always)]
                            |total, x: &X, codes, scales| avx._mm256_add_ps(total, x.term_avx2(simd, codes, scales)),
                        );
                        *out = sum_of(pulp::cast(totals)) + offsets;
                    }
                },
            );
        }
        self.multiply_plainly(inputs, out);
    }

    /// As [`multiply`](Self::multiply), to the same bits.
    fn multiply_plainly<X: Inputs>(&self, inputs: &[X], out: &mut [f32]) {
        for (row, out) in self.rows(inputs.len()).zip(out) {
            let (totals, offsets) = self.sum(
                row,
                inputs,
                [[0.0; LANES]; 2],
                |block, codes| self.read.read(block, codes),
                |total: [f32; LANES], x: &X, codes, scales| {
                    let term = x.term(codes, scales);
                    std::array::from_fn(|lane| total[lane] + term[lane])
                },
            );
            *out = sum_of(totals) + offsets;
        }
    }

    /// The blocks of each row, of which so many times 32 weights meet inputs.
    #[inline(always)]
    fn rows(&self, inputs: usize) -> impl Iterator<Item = &[[u8; BYTES]]> {
        let of_row = inputs * BLOCK / ELEMENTS;
        let blocks = if of_row > 0 { self.blocks } else { &[] };
        blocks.chunks_exact(of_row.max(1))
    }

    /// The sums of the terms of a row's even and odd blocks of 32, which do not wait for each other, and of its offsets. `add`
    /// adds a term to a total.
    #[inline(always)]
    fn sum<T: Copy, X>(
        &self,
        row: &[[u8; BYTES]],
        inputs: &[X],
        mut totals: [T; 2],
        read: impl Fn(&[u8; BYTES], &mut [i8; ELEMENTS]) -> [Affine; UNITS],
        add: impl Fn(T, &X, &[i8; BLOCK], [f32; 2]) -> T,
    ) -> ([T; 2], f32) {
        let mut offsets = 0.0;
        let together = ELEMENTS / BLOCK;
        let inputs = inputs.chunks_exact(together).zip(self.sums.chunks_exact(together));
        for (block, (inputs, sums)) in row.iter().zip(inputs) {
            let mut codes = [0; ELEMENTS];
            let units = read(block, &mut codes);
            for (inside, ((codes, x), sums)) in codes.as_chunks::<BLOCK>().0.iter().zip(inputs).zip(sums).enumerate() {
                let unit = |half: usize| units[(inside * BLOCK + half * HALF) * UNITS / ELEMENTS];
                let (low, high) = (unit(0), unit(1));
                totals = [totals[1], add(totals[0], x, codes, [low.scale, high.scale])];
                if low.offset != 0.0 || high.offset != 0.0 {
                    offsets += low.offset * sums[0] + high.offset * sums[1];
                }
            }
        }
        (totals, offsets)
    }
}

/// Asks the processor for the row that lies 4,096 bytes behind this one: by itself it looks ahead no further than the page it reads,
/// and one token's products wait for memory a quarter of their time.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(unsafe_code)]
fn prefetch<const BYTES: usize>(row: &[[u8; BYTES]]) {
    const AHEAD: usize = 4096;
    const LINE: usize = 64;
    let bytes = row.as_flattened();
    for at in (0..bytes.len()).step_by(LINE) {
        let ahead = bytes.as_ptr().wrapping_add(AHEAD + at);
        // SAFETY: nothing is read; a prefetch of what is not mapped does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) };
    }
}

/// 32 inputs of a token. Both ways of computing a term give the same bits.
trait Inputs {
    /// Their products with a block of codes, of whose halves each has a scale.
    fn term(&self, codes: &[i8; BLOCK], scales: [f32; 2]) -> [f32; LANES];

    #[cfg(target_arch = "x86_64")]
    fn term_avx2(&self, simd: pulp::x86::V3, codes: &[i8; BLOCK], scales: [f32; 2]) -> __m256;
}

impl Inputs for [f32; BLOCK] {
    fn term(&self, codes: &[i8; BLOCK], [first, second]: [f32; 2]) -> [f32; LANES] {
        std::array::from_fn(|lane| {
            let product = |part: usize| self[part * LANES + lane] * f32::from(codes[part * LANES + lane]);
            (product(0) + product(1)) * first + (product(2) + product(3)) * second
        })
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn term_avx2(&self, simd: pulp::x86::V3, codes: &[i8; BLOCK], scales: [f32; 2]) -> __m256 {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let x: [__m256; 4] = pulp::cast(*self);
        let codes: [u64; 4] = pulp::cast(*codes);
        let product = |part: usize| {
            let codes = avx2._mm256_cvtepi8_epi32(pulp::cast([codes[part], 0]));
            avx._mm256_mul_ps(x[part], avx._mm256_cvtepi32_ps(codes))
        };
        let (first, second) = (avx._mm256_set1_ps(scales[0]), avx._mm256_set1_ps(scales[1]));
        let first = avx._mm256_mul_ps(avx._mm256_add_ps(product(0), product(1)), first);
        avx._mm256_add_ps(first, avx._mm256_mul_ps(avx._mm256_add_ps(product(2), product(3)), second))
    }
}

impl Inputs for Rounded {
    fn term(&self, codes: &[i8; BLOCK], scales: [f32; 2]) -> [f32; LANES] {
        let scales = scales.map(|of_half| of_half * self.scale);
        std::array::from_fn(|lane| {
            let product = |at: usize| i32::from(self.codes[at]) * i32::from(codes[at]);
            (4 * lane..4 * lane + 4).map(product).sum::<i32>() as f32 * scales[2 * lane / LANES]
        })
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn term_avx2(&self, simd: pulp::x86::V3, codes: &[i8; BLOCK], scales: [f32; 2]) -> __m256 {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let (x, codes) = (pulp::cast(self.codes), pulp::cast(*codes));
        // Magnitudes of codes times inputs with the codes' signs: pairs of products, at most 2 · 128 · 127, fit 16 bits.
        let pairs = avx2._mm256_maddubs_epi16(avx2._mm256_abs_epi8(codes), avx2._mm256_sign_epi8(x, codes));
        let sums = avx._mm256_cvtepi32_ps(avx2._mm256_madd_epi16(pairs, avx._mm256_set1_epi16(1)));
        let scales = scales.map(|of_half| [of_half * self.scale; LANES / 2]);
        avx._mm256_mul_ps(sums, pulp::cast(scales))
    }
}

/// The sum of both totals, halves added first.
#[inline(always)]
fn sum_of([even, odd]: [[f32; LANES]; 2]) -> f32 {
    let [a, b, c, d, e, f, g, h] = std::array::from_fn(|lane| even[lane] + odd[lane]);
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A byte a code, then scale and offset of each unit in sixteenths.
    fn read<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize>(
        block: &[u8; BYTES],
        codes: &mut [i8; ELEMENTS],
    ) -> [Affine; UNITS] {
        codes.iter_mut().zip(block).for_each(|(code, byte)| *code = byte.cast_signed());
        let sixteenths = |at: usize| f32::from(block[ELEMENTS + at].cast_signed()) / 16.0;
        std::array::from_fn(|unit| Affine { scale: sixteenths(2 * unit), offset: sixteenths(2 * unit + 1) })
    }

    /// Checks products with two rows of `blocks` blocks each, made of these bytes.
    fn check<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize>(
        blocks: usize,
        bytes: &[u8],
        x: &[f32],
    ) -> Result<(), TestCaseError> {
        let (width, row_bytes) = (blocks * ELEMENTS, blocks * BYTES);
        let (bytes, x) = (&bytes[..2 * row_bytes], &x[..width]);
        let mut values = vec![0.0; 2 * width];
        super::super::block::block_values(read::<BYTES, ELEMENTS, UNITS>, bytes, &mut values);
        let products = |inputs: &RowInputs| {
            let mut out = [0.0; 2];
            inputs.products(read::<BYTES, ELEMENTS, UNITS>, bytes, &mut out);
            out
        };
        let rounded = rounded_to_8_bits(ArrayView2::from_shape((1, width), x).unwrap());
        for (inputs, x) in [(RowInputs::exact(x), x), (RowInputs::rounded(x), rounded.as_slice().unwrap())] {
            let found = products(&inputs);
            for (found, values) in found.iter().zip(values.chunks(width)) {
                let terms = || x.iter().zip(values).map(|(x, value)| f64::from(*x) * f64::from(*value));
                let (expected, magnitude) = (terms().sum::<f64>(), terms().map(|term| term.abs() + 100.0).sum::<f64>());
                prop_assert!((f64::from(*found) - expected).abs() < 1e-6 * magnitude, "{found} {expected}");
            }
            let mut plain = [0.0; 2];
            let (read, blocks) = (read::<BYTES, ELEMENTS, UNITS>, bytes.as_chunks().0);
            let rows = Rows { read, blocks, sums: &inputs.sums };
            match &inputs.values {
                Values::Exact(x) => rows.multiply_plainly(x, &mut plain),
                Values::Rounded(x) => rows.multiply_plainly(x, &mut plain),
            }
            prop_assert_eq!(found.map(f32::to_bits), plain.map(f32::to_bits));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_values(
            blocks in 1_usize..5,
            bytes in prop::collection::vec(any::<u8>(), 2 * 4 * 104),
            x in prop::collection::vec(-3.0_f32..3.0, 4 * 96),
        ) {
            check::<34, 32, 1>(blocks, &bytes, &x)?;
            check::<36, 32, 2>(blocks, &bytes, &x)?;
            check::<72, 64, 4>(blocks, &bytes, &x)?;
            check::<68, 64, 2>(blocks, &bytes, &x)?;
        }
    }

    #[test]
    fn rows_that_are_missing_leave_their_products() {
        let bytes = [1; 34 * 2 * 2];
        for (width, expected) in [(64, [0.0, 0.0, 7.0]), (16, [7.0; 3])] {
            let mut out = [7.0; 3];
            RowInputs::rounded(&vec![0.0; width]).products(read::<34, 32, 1>, &bytes, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn eight_bits_reach_the_largest_magnitude_of_a_block() {
        let input = Array2::from_shape_fn((2, 40), |(row, column)| (column as f32 - 7.0) * (row as f32 + 0.5));
        let values = rounded_to_8_bits(input.view());
        for (row, rounded) in input.rows().into_iter().zip(values.rows()) {
            for first in [0, 32] {
                let (row, rounded) = (row.slice(ndarray::s![first..]), rounded.slice(ndarray::s![first..]));
                let block = row.len().min(BLOCK);
                let step = row.iter().take(block).fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
                for (value, rounded) in row.iter().zip(&rounded).take(block) {
                    assert!((value - rounded).abs() <= 0.5001 * step, "{value} {rounded}");
                    assert!((rounded / step - (rounded / step).round()).abs() < 1e-4);
                }
            }
        }
        assert_eq!(rounded_to_8_bits(Array2::zeros((1, 3)).view()), Array2::<f32>::zeros((1, 3)));
    }
}
