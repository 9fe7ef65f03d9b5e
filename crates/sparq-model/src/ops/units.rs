//! Products of few tokens with weights that stay integers: a code for each weight, and for each *unit* of 16 or 32 of them a
//! scale and an offset.
#![allow(clippy::inline_always, reason = "see `wide`")]

use super::lanes::fold;
use super::wide;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use sparq_tensor::codec::Affine;

/// Inputs that share a scale when they are rounded to 8 bits; a unit is this or half of it.
const BLOCK: usize = 32;
const LANES: usize = 8;

/// `input` with every element rounded to 8 bits: as many steps of a 127th of the largest magnitude of its block. Blocks are runs
/// of 32 elements of a row, the last one perhaps shorter.
pub(crate) fn rounded_to_8_bits(input: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut values = input.as_standard_layout().into_owned();
    let width = values.ncols().max(1);
    if let Some(values) = values.as_slice_mut() {
        values.par_chunks_mut(width).for_each(|row| {
            for block in row.chunks_mut(BLOCK) {
                let mut codes = [0; BLOCK];
                let scale = round(block, &mut codes);
                for (value, code) in block.iter_mut().zip(codes) {
                    *value = scale * f32::from(code);
                }
            }
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

/// One token's inputs.
#[derive(Debug)]
pub(crate) struct UnitInputs {
    values: Values,
    /// Sum of each unit.
    sums: Vec<f32>,
}

#[derive(Debug)]
enum Values {
    Exact(Vec<f32>),
    Rounded { codes: Vec<i8>, scales: Vec<f32> },
}

impl UnitInputs {
    /// Of `values`, `[in]`, for weights of which each `unit` shares a scale.
    pub(crate) fn exact(values: Vec<f32>, unit: usize) -> Self {
        let sums = values.chunks(unit.max(1)).map(|unit| unit.iter().sum()).collect();
        Self { values: Values::Exact(values), sums }
    }

    /// As [`exact`](Self::exact), the values [rounded](rounded_to_8_bits).
    pub(crate) fn rounded(values: &[f32], unit: usize) -> Self {
        let mut codes = vec![0; values.len()];
        let mut scales = vec![0.0; values.len().div_ceil(BLOCK)];
        wide(
            #[inline(always)]
            || {
                for ((values, codes), scale) in values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(&mut scales) {
                    *scale = round(values, codes);
                }
            },
        );
        let sum = |(at, codes): (usize, &[i8])| {
            scales[at * unit / BLOCK] * codes.iter().map(|code| i32::from(*code)).sum::<i32>() as f32
        };
        let sums = codes.chunks(unit.max(1)).enumerate().map(sum).collect();
        Self { values: Values::Rounded { codes, scales }, sums }
    }

    /// The sum of products with a row of weights, in `f32` or, rounded, of integers block by block.
    pub(crate) fn dot(&self, codes: &[i8], units: &[Affine]) -> f32 {
        let sum = match &self.values {
            Values::Exact(x) => run(Exact { x: blocks(x), codes: blocks(codes), units }),
            Values::Rounded { codes: x, scales } => run(Rounded { x: blocks(x), scales, codes: blocks(codes), units }),
        };
        sum + units.iter().zip(&self.sums).map(|(unit, sum)| unit.offset * sum).sum::<f32>()
    }
}

fn blocks<T>(values: &[T]) -> &[[T; BLOCK]] {
    values.as_chunks().0
}

/// The scales of a block's halves.
#[inline(always)]
fn scales(units: &[Affine], blocks: usize, block: usize) -> [f32; 2] {
    if units.len() > blocks { [units[2 * block].scale, units[2 * block + 1].scale] } else { [units[block].scale; 2] }
}

/// A sum of products; both ways of computing it give the same bits.
trait Product: Copy {
    /// The definition, and what runs on other processors.
    fn plain(self) -> f32;

    #[cfg(target_arch = "x86_64")]
    fn avx2(self, simd: pulp::x86::V3) -> f32;
}

fn run(product: impl Product) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(
            #[inline(always)]
            || product.avx2(simd),
        );
    }
    product.plain()
}

#[derive(Clone, Copy)]
struct Exact<'a> {
    x: &'a [[f32; BLOCK]],
    codes: &'a [[i8; BLOCK]],
    units: &'a [Affine],
}

impl Product for Exact<'_> {
    fn plain(self) -> f32 {
        let mut total = [0.0_f32; LANES];
        for (at, (x, codes)) in self.x.iter().zip(self.codes).enumerate() {
            let scales = scales(self.units, self.codes.len(), at);
            for (lane, total) in total.iter_mut().enumerate() {
                let product = |part: usize| x[part * LANES + lane] * f32::from(codes[part * LANES + lane]);
                *total += (product(0) + product(1)) * scales[0] + (product(2) + product(3)) * scales[1];
            }
        }
        fold(total)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2(self, simd: pulp::x86::V3) -> f32 {
        use std::arch::x86_64::__m256;
        let (avx, avx2) = (simd.avx, simd.avx2);
        let mut total = avx._mm256_setzero_ps();
        for (at, (x, codes)) in self.x.iter().zip(self.codes).enumerate() {
            let (x, codes): ([__m256; 4], [u64; 4]) = (pulp::cast(*x), pulp::cast(*codes));
            let product = |part: usize| {
                let codes = avx2._mm256_cvtepi8_epi32(pulp::cast([codes[part], 0]));
                avx._mm256_mul_ps(x[part], avx._mm256_cvtepi32_ps(codes))
            };
            let [first, second] = scales(self.units, self.codes.len(), at).map(|scale| avx._mm256_set1_ps(scale));
            let first = avx._mm256_mul_ps(avx._mm256_add_ps(product(0), product(1)), first);
            let second = avx._mm256_mul_ps(avx._mm256_add_ps(product(2), product(3)), second);
            total = avx._mm256_add_ps(total, avx._mm256_add_ps(first, second));
        }
        fold::<LANES>(pulp::cast(total))
    }
}

#[derive(Clone, Copy)]
struct Rounded<'a> {
    x: &'a [[i8; BLOCK]],
    scales: &'a [f32],
    codes: &'a [[i8; BLOCK]],
    units: &'a [Affine],
}

impl Product for Rounded<'_> {
    fn plain(self) -> f32 {
        let mut total = [0.0_f32; LANES];
        for (at, ((x, codes), scale)) in self.x.iter().zip(self.codes).zip(self.scales).enumerate() {
            let scales = scales(self.units, self.codes.len(), at);
            for (lane, total) in total.iter_mut().enumerate() {
                let product = |at: usize| i32::from(x[at]) * i32::from(codes[at]);
                let sum: i32 = (4 * lane..4 * lane + 4).map(product).sum();
                *total += sum as f32 * (scales[2 * lane / LANES] * scale);
            }
        }
        fold(total)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2(self, simd: pulp::x86::V3) -> f32 {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let (mut total, ones) = (avx._mm256_setzero_ps(), avx._mm256_set1_epi16(1));
        for (at, ((x, codes), scale)) in self.x.iter().zip(self.codes).zip(self.scales).enumerate() {
            let (x, codes) = (pulp::cast(*x), pulp::cast(*codes));
            // Magnitudes of codes times inputs with the codes' signs: pairs of products, at most 2 · 128 · 127, fit 16 bits.
            let pairs = avx2._mm256_maddubs_epi16(avx2._mm256_abs_epi8(codes), avx2._mm256_sign_epi8(x, codes));
            let sums = avx._mm256_cvtepi32_ps(avx2._mm256_madd_epi16(pairs, ones));
            let scales = scales(self.units, self.codes.len(), at).map(|unit| [unit * scale; LANES / 2]);
            total = avx._mm256_add_ps(total, avx._mm256_mul_ps(sums, pulp::cast(scales)));
        }
        fold::<LANES>(pulp::cast(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn products_are_those_of_the_values(
            blocks in 1_usize..5,
            halves in any::<bool>(),
            codes in prop::collection::vec(any::<i8>(), 4 * BLOCK),
            x in prop::collection::vec(-3.0_f32..3.0, 4 * BLOCK),
            affine in prop::collection::vec((-1.0_f32..1.0, -1.0_f32..1.0), 8),
        ) {
            let (unit, width) = (if halves { 16 } else { 32 }, blocks * BLOCK);
            let (codes, x) = (&codes[..width], &x[..width]);
            let units: Vec<Affine> =
                affine[..width / unit].iter().map(|&(scale, offset)| Affine { scale, offset }).collect();
            let value = |at: usize| {
                f64::from(units[at / unit].scale) * f64::from(codes[at]) + f64::from(units[at / unit].offset)
            };
            let expected = |x: &[f32]| -> f64 { x.iter().enumerate().map(|(at, x)| f64::from(*x) * value(at)).sum() };
            let magnitude: f64 = x.iter().enumerate().map(|(at, x)| (f64::from(*x) * value(at)).abs() + 1.0).sum();
            let exact = UnitInputs::exact(x.to_vec(), unit).dot(codes, &units);
            prop_assert!((f64::from(exact) - expected(x)).abs() < 1e-6 * magnitude);
            let values = rounded_to_8_bits(ArrayView2::from_shape((1, width), x).unwrap());
            let rounded = UnitInputs::rounded(x, unit).dot(codes, &units);
            prop_assert!((f64::from(rounded) - expected(values.as_slice().unwrap())).abs() < 1e-6 * magnitude);

            let exact = Exact { x: super::blocks(x), codes: super::blocks(codes), units: &units };
            prop_assert_eq!(run(exact).to_bits(), exact.plain().to_bits());
            let inputs = UnitInputs::rounded(x, unit);
            let Values::Rounded { codes: x, scales } = &inputs.values else { unreachable!() };
            let rounded = Rounded { x: super::blocks(x), scales, codes: super::blocks(codes), units: &units };
            prop_assert_eq!(run(rounded).to_bits(), rounded.plain().to_bits());
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
