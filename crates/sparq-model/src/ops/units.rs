//! Products of few tokens with weights that stay integers: a code for each weight, and for each *unit* of 16 or 32 of them a
//! scale and an offset.
#![allow(clippy::inline_always, reason = "see `wide`")]

use super::lanes::{dot, fold};
use super::wide;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

/// Inputs that share a scale when they are rounded to 8 bits; a unit is this or half of it.
const BLOCK: usize = 32;
const LANES: usize = 8;

/// `input`, `[tokens, in]`, rounded to 8 bits. A row is cut into blocks of 32, the last one perhaps shorter. Each element becomes a
/// multiple of a 127th of the largest magnitude in its block.
pub(crate) fn rounded_to_8_bits(input: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut values = input.as_standard_layout().into_owned();
    let width = values.ncols().max(1);
    if let Some(values) = values.as_slice_mut() {
        values.par_chunks_mut(width).for_each(|row| {
            wide(
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

    /// The sum of products with each row of weights: in `f32` or, rounded, of integers block by block.
    pub(crate) fn products(&self, rows: &UnitRows, out: &mut [f32]) {
        let sums = self.sums.as_slice();
        match &self.values {
            Values::Exact(x) => run(rows, sums, out, |codes, scales| Exact { x: blocks(x), codes, scales }),
            Values::Rounded { codes: x, scales: x_scales } => {
                run(rows, sums, out, |codes, scales| Rounded { x: blocks(x), x_scales, codes, scales });
            }
        }
    }
}

/// Rows of weights, `scale · code + offset` each.
#[derive(Debug)]
pub(crate) struct UnitRows {
    unit: usize,
    width: usize,
    /// `[rows, in]`
    pub(crate) codes: Vec<i8>,
    /// `[rows, units]`
    pub(crate) scales: Vec<f32>,
    /// `[rows, units]`
    pub(crate) offsets: Vec<f32>,
}

impl UnitRows {
    /// Of zeros; of each row, `unit` weights share a scale and an offset.
    pub(crate) fn new(rows: usize, width: usize, unit: usize) -> Self {
        let units = rows * width.checked_div(unit).unwrap_or(0);
        Self { unit, width, codes: vec![0; rows * width], scales: vec![0.0; units], offsets: vec![0.0; units] }
    }
}

fn blocks<T>(values: &[T]) -> &[[T; BLOCK]] {
    values.as_chunks().0
}

/// The scales of a block's halves.
#[inline(always)]
fn halves<const UNIT: usize>(scales: &[f32], block: usize) -> [f32; 2] {
    if UNIT == BLOCK { [scales[block]; 2] } else { [scales[2 * block], scales[2 * block + 1]] }
}

/// A sum of terms, one of each block, in eight lanes; even and odd blocks are added up on their own, so that one addition does not
/// wait for the other. Both ways of computing it give the same bits.
trait Product: Copy {
    /// How many terms there are.
    fn count<const UNIT: usize>(self) -> usize;

    /// The term of block `at`.
    fn term<const UNIT: usize>(self, at: usize) -> [f32; LANES];

    #[cfg(target_arch = "x86_64")]
    fn term_avx2<const UNIT: usize>(self, simd: pulp::x86::V3, at: usize) -> std::arch::x86_64::__m256;
}

/// The sum of `product` of each row, and of its offsets times `sums`.
fn run<'a, P: Product>(
    rows: &'a UnitRows,
    sums: &[f32],
    out: &mut [f32],
    product: impl Fn(&'a [[i8; BLOCK]], &'a [f32]) -> P,
) {
    if rows.unit == BLOCK {
        run_units::<BLOCK, P>(rows, sums, out, product);
    } else {
        run_units::<{ BLOCK / 2 }, P>(rows, sums, out, product);
    }
}

fn run_units<'a, const UNIT: usize, P: Product>(
    rows: &'a UnitRows,
    sums: &[f32],
    out: &mut [f32],
    product: impl Fn(&'a [[i8; BLOCK]], &'a [f32]) -> P,
) {
    let (width, units) = (rows.width.max(1), (rows.width / UNIT).max(1));
    let grids = rows.scales.chunks_exact(units).zip(rows.offsets.chunks_exact(units));
    let rows = rows.codes.chunks_exact(width).zip(grids).zip(out);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(
            #[inline(always)]
            || {
                for ((codes, (scales, offsets)), out) in rows {
                    *out = sum_avx2::<UNIT>(product(blocks(codes), scales), simd) + dot(offsets, sums);
                }
            },
        );
    }
    for ((codes, (scales, offsets)), out) in rows {
        *out = sum_plain::<UNIT>(product(blocks(codes), scales)) + dot(offsets, sums);
    }
}

fn sum_plain<const UNIT: usize>(product: impl Product) -> f32 {
    let mut totals = [0.0; 2 * LANES];
    for at in 0..product.count::<UNIT>() {
        for (total, term) in totals[at % 2 * LANES..].iter_mut().zip(product.term::<UNIT>(at)) {
            *total += term;
        }
    }
    fold(totals)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sum_avx2<const UNIT: usize>(product: impl Product, simd: pulp::x86::V3) -> f32 {
    let (add, zero) = (simd.avx, simd.avx._mm256_setzero_ps());
    let (mut even, mut odd, count) = (zero, zero, product.count::<UNIT>());
    for at in (1..count).step_by(2) {
        even = add._mm256_add_ps(even, product.term_avx2::<UNIT>(simd, at - 1));
        odd = add._mm256_add_ps(odd, product.term_avx2::<UNIT>(simd, at));
    }
    if count % 2 == 1 {
        even = add._mm256_add_ps(even, product.term_avx2::<UNIT>(simd, count - 1));
    }
    fold::<{ 2 * LANES }>(pulp::cast([even, odd]))
}

#[derive(Clone, Copy)]
struct Exact<'a> {
    x: &'a [[f32; BLOCK]],
    codes: &'a [[i8; BLOCK]],
    scales: &'a [f32],
}

impl Product for Exact<'_> {
    #[inline(always)]
    fn count<const UNIT: usize>(self) -> usize {
        self.codes.len().min(self.x.len()).min(self.scales.len() * UNIT / BLOCK)
    }

    fn term<const UNIT: usize>(self, at: usize) -> [f32; LANES] {
        let (x, codes, [first, second]) = (&self.x[at], &self.codes[at], halves::<UNIT>(self.scales, at));
        std::array::from_fn(|lane| {
            let product = |part: usize| x[part * LANES + lane] * f32::from(codes[part * LANES + lane]);
            (product(0) + product(1)) * first + (product(2) + product(3)) * second
        })
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn term_avx2<const UNIT: usize>(self, simd: pulp::x86::V3, at: usize) -> std::arch::x86_64::__m256 {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let x: [std::arch::x86_64::__m256; 4] = pulp::cast(self.x[at]);
        let codes: [u64; 4] = pulp::cast(self.codes[at]);
        let product = |part: usize| {
            let codes = avx2._mm256_cvtepi8_epi32(pulp::cast([codes[part], 0]));
            avx._mm256_mul_ps(x[part], avx._mm256_cvtepi32_ps(codes))
        };
        let [first, second] = halves::<UNIT>(self.scales, at).map(|scale| avx._mm256_set1_ps(scale));
        let first = avx._mm256_mul_ps(avx._mm256_add_ps(product(0), product(1)), first);
        avx._mm256_add_ps(first, avx._mm256_mul_ps(avx._mm256_add_ps(product(2), product(3)), second))
    }
}

#[derive(Clone, Copy)]
struct Rounded<'a> {
    x: &'a [[i8; BLOCK]],
    x_scales: &'a [f32],
    codes: &'a [[i8; BLOCK]],
    scales: &'a [f32],
}

impl Product for Rounded<'_> {
    #[inline(always)]
    fn count<const UNIT: usize>(self) -> usize {
        self.codes.len().min(self.x.len()).min(self.x_scales.len()).min(self.scales.len() * UNIT / BLOCK)
    }

    fn term<const UNIT: usize>(self, at: usize) -> [f32; LANES] {
        let scales = halves::<UNIT>(self.scales, at).map(|scale| scale * self.x_scales[at]);
        std::array::from_fn(|lane| {
            let product = |at_in: usize| i32::from(self.x[at][at_in]) * i32::from(self.codes[at][at_in]);
            (4 * lane..4 * lane + 4).map(product).sum::<i32>() as f32 * scales[2 * lane / LANES]
        })
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn term_avx2<const UNIT: usize>(self, simd: pulp::x86::V3, at: usize) -> std::arch::x86_64::__m256 {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let (x, codes) = (pulp::cast(self.x[at]), pulp::cast(self.codes[at]));
        // Magnitudes of codes times inputs with the codes' signs: pairs of products, at most 2 · 128 · 127, fit 16 bits.
        let pairs = avx2._mm256_maddubs_epi16(avx2._mm256_abs_epi8(codes), avx2._mm256_sign_epi8(x, codes));
        let sums = avx._mm256_cvtepi32_ps(avx2._mm256_madd_epi16(pairs, avx._mm256_set1_epi16(1)));
        let scales = halves::<UNIT>(self.scales, at).map(|scale| [scale * self.x_scales[at]; LANES / 2]);
        avx._mm256_mul_ps(sums, pulp::cast(scales))
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
            let (scales, offsets): (Vec<f32>, Vec<f32>) = affine[..width / unit].iter().copied().unzip();
            let value = |at: usize| {
                f64::from(scales[at / unit]) * f64::from(codes[at]) + f64::from(offsets[at / unit])
            };
            // The same row twice.
            let rows = UnitRows {
                unit, width, codes: codes.repeat(2), scales: scales.repeat(2), offsets: offsets.repeat(2)
            };
            let dot = |inputs: UnitInputs| {
                let mut products = [0.0; 2];
                inputs.products(&rows, &mut products);
                assert_eq!(products[0].to_bits(), products[1].to_bits());
                products[0]
            };
            let expected = |x: &[f32]| -> f64 { x.iter().enumerate().map(|(at, x)| f64::from(*x) * value(at)).sum() };
            let magnitude: f64 = x.iter().enumerate().map(|(at, x)| (f64::from(*x) * value(at)).abs() + 1.0).sum();
            let exact = dot(UnitInputs::exact(x.to_vec(), unit));
            prop_assert!((f64::from(exact) - expected(x)).abs() < 1e-6 * magnitude);
            let values = rounded_to_8_bits(ArrayView2::from_shape((1, width), x).unwrap());
            let rounded = dot(UnitInputs::rounded(x, unit));
            prop_assert!((f64::from(rounded) - expected(values.as_slice().unwrap())).abs() < 1e-6 * magnitude);

            let (codes, scales) = (super::blocks(codes), scales.as_slice());
            let inputs = UnitInputs::rounded(x, unit);
            let Values::Rounded { codes: x_codes, scales: x_scales } = &inputs.values else { unreachable!() };
            let rounded = Rounded { x: super::blocks(x_codes), x_scales, codes, scales };
            let exact = Exact { x: super::blocks(x), codes, scales };
            let plain = match unit {
                16 => [sum_plain::<16>(exact), sum_plain::<16>(rounded)],
                _ => [sum_plain::<32>(exact), sum_plain::<32>(rounded)],
            };
            let rows = UnitRows { offsets: vec![0.0; scales.len()], ..rows };
            let products = [UnitInputs::exact(x.to_vec(), unit), inputs].map(|inputs| {
                let mut products = [0.0];
                inputs.products(&rows, &mut products);
                products[0]
            });
            prop_assert_eq!(products.map(f32::to_bits), plain.map(f32::to_bits));
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
