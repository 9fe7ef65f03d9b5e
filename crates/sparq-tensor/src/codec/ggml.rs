//! Rows of ggml's blocks, as GGUF files store them. Each type's blocks are read and written in the file of its name.

use half::f16;
use ndarray::{ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::block::{self, Affine, Read};
use super::products::RowInputs;
use super::{iq4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};
use crate::DType;

/// The type that stores codes of a grid without loss, if there is one: `Q4_0`, `Q5_0` and `Q8_0` for symmetric grids of 4,
/// 5 and 8 bits, `Q4_1` and `Q5_1` for asymmetric ones of 4 and 5 bits (whose minimum, scale times zero point, is rounded to
/// half precision), `Q3_K` and `Q6_K` for symmetric ones of 3 and 6 bits whose scales have [factors](pack_super_rows) in common.
pub fn type_of_grid(bits: u32, symmetric: bool) -> Option<DType> {
    Some(match (bits, symmetric) {
        (3, true) => DType::Q3_K,
        (6, true) => DType::Q6_K,
        (4, true) => DType::Q4_0,
        (5, true) => DType::Q5_0,
        (8, true) => DType::Q8_0,
        (4, false) => DType::Q4_1,
        (5, false) => DType::Q5_1,
        _ => return None,
    })
}

/// Blocks from the parts of a quantized weight: `codes` `[out, in]`, `scales` and `zeros` `[out, groups]`, one for each
/// `group` input channels. Nothing is rounded but scales to half precision, and the minima of `Q4_1` and `Q5_1`.
///
/// `None` if `dtype` has no blocks of 32, `in` or `group` is no multiple of 32 (a group of the whole row
/// aside), or the shapes do not fit.
///
/// # Examples
///
/// ```
/// use ndarray::Array2;
/// use sparq_tensor::DType;
/// use sparq_tensor::codec::{decode_rows, ggml::pack_rows};
///
/// let codes = Array2::from_shape_fn((1, 64), |(_, column)| (column % 16) as u8);
/// let (scales, zeros) = (ndarray::array![[0.5, 2.0]], ndarray::array![[8, 8]]);
/// let bytes = pack_rows(DType::Q4_0, codes.view(), scales.view(), zeros.view(), 32).unwrap();
/// assert_eq!(bytes.len(), 2 * 18);
/// assert_eq!(decode_rows(DType::Q4_0, &bytes, 64).unwrap()[33], 2.0 * (1.0 - 8.0));
/// ```
pub fn pack_rows(
    dtype: DType,
    codes: ArrayView2<'_, u8>,
    scales: ArrayView2<'_, f32>,
    zeros: ArrayView2<'_, u8>,
    group: usize,
) -> Option<Vec<u8>> {
    let (rows, width) = codes.dim();
    let is_legacy = matches!(dtype, DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0);
    let fits = group > 0 && width.is_multiple_of(32) && (group >= width || group.is_multiple_of(32));
    let shape = (rows, width.div_ceil(group.max(1)));
    if !is_legacy || !fits || scales.dim() != shape || zeros.dim() != shape {
        return None;
    }
    let mut out = Vec::with_capacity(rows * (width / 32) * dtype.block_bytes());
    let mut block = [0u8; 32];
    for row in 0..rows {
        for start in (0..width).step_by(32) {
            for (at, code) in block.iter_mut().enumerate() {
                *code = codes[[row, start + at]];
            }
            let (scale, zero) = (scales[[row, start / group]], zeros[[row, start / group]]);
            let d = f16::from_f32(scale);
            let m = f16::from_f32(-scale * f32::from(zero));
            match dtype {
                DType::Q4_0 => q4_0::encode(d, &block, &mut out),
                DType::Q5_0 => q5_0::encode(d, &block, &mut out),
                DType::Q4_1 => q4_1::encode(d, m, &block, &mut out),
                DType::Q5_1 => q5_1::encode(d, m, &block, &mut out),
                _ => q8_0::encode(d, &block.map(|code| (code ^ 0x80).cast_signed()), &mut out),
            }
        }
    }
    Some(out)
}

/// Blocks of `Q3_K` and `Q6_K` from the parts of a weight that is quantized symmetrically in groups of 16: `codes` `[out, in]`, of
/// each group the multiple of a factor that its scale is, `[out, in / 16]`, and the factor of each 16 groups, `[out, in / 256]`.
/// Factors are rounded to half precision, nothing else.
///
/// `None` if `dtype` is another type, `in` no multiple of 256, the shapes do not fit, or a multiple or code is too large (31 and
/// 7; 127 and 63).
pub fn pack_super_rows(
    dtype: DType,
    codes: ArrayView2<'_, u8>,
    multiples: ArrayView2<'_, u8>,
    factors: ArrayView2<'_, f32>,
) -> Option<Vec<u8>> {
    let (rows, width) = codes.dim();
    let (most_code, most_multiple) = match dtype {
        DType::Q3_K => (7, 31),
        DType::Q6_K => (63, 127),
        _ => return None,
    };
    let fits =
        width.is_multiple_of(256) && multiples.dim() == (rows, width / 16) && factors.dim() == (rows, width / 256);
    if !fits || codes.iter().any(|&code| code > most_code) || multiples.iter().any(|&times| times > most_multiple) {
        return None;
    }
    let mut out = Vec::with_capacity(rows * (width / 256) * dtype.block_bytes());
    for ((row, block), &factor) in factors.indexed_iter() {
        let codes: [u8; 256] = std::array::from_fn(|i| codes[[row, 256 * block + i]]);
        let multiples: [u8; 16] = std::array::from_fn(|group| multiples[[row, 16 * block + group]]);
        let factor = f16::from_f32(factor);
        match dtype {
            DType::Q3_K => q3_k::encode(factor, multiples.map(|times| times + 32), &codes, &mut out),
            _ => q6_k::encode(factor, multiples.map(u8::cast_signed), &codes, &mut out),
        }
    }
    Some(out)
}

/// Blocks from values, `[out, in]`: codes are chosen here. `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0` round to nearest by
/// ggml's rule; `IQ4_NL` and `Q3_K` to `Q6_K` search, if given weighing errors by the `importance` of each input channel, `[in]`
/// (such as the mean square of its activations).
///
/// `None` for other types, an `in` that is no multiple of the block, or an importance of another length. Rows are
/// independent: the same bytes for any number of threads.
///
/// # Examples
///
/// ```
/// use ndarray::Array2;
/// use sparq_tensor::DType;
/// use sparq_tensor::codec::{decode_rows, ggml::quantize_rows};
///
/// let values = Array2::from_shape_fn((2, 256), |(row, column)| (row + column) as f32 / 100.0);
/// let bytes = quantize_rows(DType::Q6_K, values.view(), None).unwrap();
/// let decoded = decode_rows(DType::Q6_K, &bytes, 512).unwrap();
/// assert!(decoded.iter().zip(&values).all(|(decoded, value)| (decoded - value).abs() < 0.05));
/// ```
pub fn quantize_rows(
    dtype: DType,
    values: ArrayView2<'_, f32>,
    importance: Option<ArrayView1<'_, f32>>,
) -> Option<Vec<u8>> {
    let (rows, width) = values.dim();
    let block = dtype.block_size();
    let importance: Option<Vec<f32>> = importance.map(|importance| importance.to_vec());
    if !is_encodable(dtype)
        || !width.is_multiple_of(block)
        || importance.as_ref().is_some_and(|list| list.len() != width)
    {
        return None;
    }
    let row_bytes = width / block * dtype.block_bytes();
    let mut out = vec![0u8; rows * row_bytes];
    if out.is_empty() {
        return Some(out);
    }
    out.par_chunks_mut(row_bytes).enumerate().for_each(|(row, out)| {
        let values: Vec<f32> = values.row(row).to_vec();
        let mut bytes = Vec::with_capacity(row_bytes);
        if block == 32 {
            for (index, block) in values.as_chunks::<32>().0.iter().enumerate() {
                let importance = importance.as_deref().and_then(|list| list.as_chunks::<32>().0.get(index));
                match dtype {
                    DType::IQ4_NL => iq4::quantize_nl(block, importance, &mut bytes),
                    DType::Q4_0 => q4_0::quantize(block, &mut bytes),
                    DType::Q4_1 => q4_1::quantize(block, &mut bytes),
                    DType::Q5_0 => q5_0::quantize(block, &mut bytes),
                    DType::Q5_1 => q5_1::quantize(block, &mut bytes),
                    _ => q8_0::quantize(block, &mut bytes),
                }
            }
        } else {
            for (index, block) in values.as_chunks::<256>().0.iter().enumerate() {
                let importance = importance.as_deref().and_then(|list| list.as_chunks::<256>().0.get(index));
                match dtype {
                    DType::Q3_K => q3_k::quantize(block, importance, &mut bytes),
                    DType::Q4_K => q4_k::quantize(block, importance, &mut bytes),
                    DType::Q5_K => q5_k::quantize(block, importance, &mut bytes),
                    _ => q6_k::quantize(block, importance, &mut bytes),
                }
            }
        }
        out.copy_from_slice(&bytes);
    });
    Some(out)
}

/// Whether [`quantize_rows`] makes blocks of this type.
pub fn is_encodable(dtype: DType) -> bool {
    use DType::{IQ4_NL, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
    matches!(dtype, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL | Q3_K | Q4_K | Q5_K | Q6_K)
}

/// Reads whole blocks, one thread. Of other types `out` stays as it is.
pub(super) fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    with_blocks(dtype, Values { bytes, out });
}

/// For each row of `bytes`, as many as `out` has elements, the sum of products of `inputs` with its weights, one thread. Of other
/// types `out` stays as it is.
pub(crate) fn products(dtype: DType, bytes: &[u8], inputs: &RowInputs, out: &mut [f32]) {
    with_blocks(dtype, Products { bytes, inputs, out });
}

/// What is done with blocks, whatever their type.
trait ForBlocks {
    fn run<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize>(
        self,
        read: impl Read<BYTES, ELEMENTS, UNITS>,
    );
}

/// Runs `task` with the reader of a type; of types that are no ggml blocks, nothing happens.
fn with_blocks(dtype: DType, task: impl ForBlocks) {
    // Closures that are inlined where they are called, and so compiled for the processor found there.
    macro_rules! run {
        ($read:expr) => {
            task.run(
                #[inline(always)]
                |block: &_, codes: &mut _| $read(block, codes),
            )
        };
    }
    match dtype {
        DType::Q4_0 => task.run(q4_0::Reader),
        DType::Q4_1 => run!(q4_1::read),
        DType::Q5_0 => run!(q5_0::read),
        DType::Q5_1 => run!(q5_1::read),
        DType::Q8_0 => run!(q8_0::read),
        DType::Q2_K => run!(q2_k::read),
        DType::Q3_K => run!(q3_k::read),
        DType::Q4_K => run!(q4_k::read),
        DType::Q5_K => run!(q5_k::read),
        DType::Q6_K => run!(q6_k::read),
        DType::IQ4_NL => run!(iq4::read_nl),
        DType::IQ4_XS => run!(iq4::read_xs),
        _ => {}
    }
}

struct Values<'a> {
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl ForBlocks for Values<'_> {
    fn run<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize>(
        self,
        read: impl Read<BYTES, ELEMENTS, UNITS>,
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(
                #[inline(always)]
                || {
                    block::decode(
                        #[inline(always)]
                        |block: &_, codes: &mut _| read.read_avx2(simd, block, codes),
                        #[inline(always)]
                        |affine: Affine, codes: &[i8], out: &mut [f32]| affine.values_avx2(simd, codes, out),
                        self.bytes,
                        self.out,
                    );
                },
            );
        }
        block::decode(|block: &_, codes: &mut _| read.read(block, codes), Affine::values, self.bytes, self.out);
    }
}

struct Products<'a> {
    bytes: &'a [u8],
    inputs: &'a RowInputs,
    out: &'a mut [f32],
}

impl ForBlocks for Products<'_> {
    fn run<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize>(
        self,
        read: impl Read<BYTES, ELEMENTS, UNITS>,
    ) {
        self.inputs.products(read, self.bytes, self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_rows;
    use ndarray::Array2;
    use proptest::prelude::*;

    /// ggml's own bytes for the input below (see `golden.rs`), whole blocks of the 32-element types.
    const GGML: [(DType, &str); 5] = [
        (DType::Q8_0, "9f238eda2773b2ff4c8ad72470affc4887d4216dacf94584d11d6aa9f64281ce1a67"),
        (DType::Q4_0, "9033a1f63a8fc3085da1f53a7fc3085da0e5"),
        (DType::Q4_1, "b33390bfa1f63a7fc3085da1e52a7fc3085c90e5"),
        (DType::Q5_0, "902f6c2693c942eb55ff9600aa41db54fe860fa931da"),
        (DType::Q5_1, "742f90bf6c3693c942eb65ff9600aa41eb55ff9600a941db"),
    ];

    fn input() -> Array2<f32> {
        Array2::from_shape_fn((1, 256), |(_, i)| ((73 * i as i32 + 19) % 257 - 128) as f32 / 64.0)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    fn mean_squared_error(dtype: DType, values: &Array2<f32>, importance: Option<ArrayView1<'_, f32>>) -> f64 {
        let bytes = quantize_rows(dtype, values.view(), importance).unwrap();
        let decoded = decode_rows(dtype, &bytes, values.len()).unwrap();
        let weight = |i: usize| importance.map_or(1.0, |list| f64::from(list[i % values.ncols()]));
        let errors = decoded.iter().zip(values).enumerate();
        errors.map(|(i, (a, b))| weight(i) * f64::from(a - b).powi(2)).sum::<f64>() / values.len() as f64
    }

    #[test]
    fn rounding_to_nearest_gives_ggmls_bytes() {
        for (dtype, expected) in GGML {
            let bytes = quantize_rows(dtype, input().slice(ndarray::s![.., ..32]), None).unwrap();
            assert_eq!(hex(&bytes), expected, "{dtype}");
        }
    }

    #[test]
    fn the_search_is_no_worse_than_ggmls() {
        // The mean squared errors of ggml's own encoders on this input.
        let q4_k = mean_squared_error(DType::Q4_K, &input(), None);
        assert!(q4_k <= 0.004282649, "{q4_k}");
        let q6_k = mean_squared_error(DType::Q6_K, &input(), None);
        assert!(q6_k <= 0.000268236172, "{q6_k}");
        let golden = include_str!("golden_ggml.txt");
        for dtype in [DType::Q3_K, DType::Q5_K] {
            let line = golden.lines().find(|line| line.starts_with(&dtype.to_string())).unwrap();
            let of_ggml: f64 = line.split("mse=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
            let ours = mean_squared_error(dtype, &input(), None);
            assert!(ours <= of_ggml, "{dtype}: {ours}, {of_ggml}");
        }
        // Values that a normal distribution has lie better on its grid than on an even one.
        let normal = Array2::from_shape_fn((1, 256), |(_, i)| {
            let sum: u32 = (0..12u32)
                .map(|k| {
                    (i as u32 * 2_654_435_761u32).wrapping_add(k * 40_503 + i as u32).wrapping_mul(2_246_822_519) >> 16
                })
                .sum();
            sum as f32 / 65_536.0 - 6.0
        });
        assert!(mean_squared_error(DType::IQ4_NL, &normal, None) < mean_squared_error(DType::Q4_0, &normal, None));
    }

    #[test]
    fn importance_moves_error_to_where_it_costs_less() {
        let importance = ndarray::Array1::from_shape_fn(256, |i| if i % 4 == 0 { 50.0 } else { 1.0 });
        for dtype in [DType::IQ4_NL, DType::Q3_K, DType::Q4_K, DType::Q5_K, DType::Q6_K] {
            let bytes = quantize_rows(dtype, input().view(), None).unwrap();
            let plain = decode_rows(dtype, &bytes, 256).unwrap();
            let weighted = |values: &[f32]| -> f64 {
                values.iter().zip(&input()).zip(&importance).map(|((a, b), w)| f64::from(w * (a - b).powi(2))).sum()
            };
            let bytes = quantize_rows(dtype, input().view(), Some(importance.view())).unwrap();
            let guided = decode_rows(dtype, &bytes, 256).unwrap();
            assert!(weighted(&guided) < weighted(&plain), "{dtype}");
        }
    }

    #[test]
    fn zeros_and_constants_survive() {
        use DType::{IQ4_NL, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, Q3_K, Q4_K, Q5_K, Q6_K] {
            let zeros = Array2::zeros((2, 256));
            let bytes = quantize_rows(dtype, zeros.view(), None).unwrap();
            assert!(decode_rows(dtype, &bytes, 512).unwrap().iter().all(|&value| value == 0.0), "{dtype}");
        }
        assert_eq!(quantize_rows(DType::Q4_K, Array2::zeros((1, 128)).view(), None), None);
        assert_eq!(quantize_rows(DType::Q2_K, Array2::zeros((1, 256)).view(), None), None);
        assert_eq!(quantize_rows(DType::F16, Array2::zeros((1, 256)).view(), None), None);
    }

    #[test]
    fn codes_with_multiples_of_a_factor_read_as_they_are() {
        for (dtype, levels, most) in [(DType::Q3_K, 8, 31), (DType::Q6_K, 64, 127)] {
            let codes = Array2::from_shape_fn((2, 512), |(row, column)| ((row + 5 * column) % levels) as u8);
            let multiples = Array2::from_shape_fn((2, 32), |(row, group)| 1 + ((row + 11 * group) % most) as u8);
            let factors = ndarray::array![[0.5, 0.25], [2.0, 0.125]];
            let bytes = pack_super_rows(dtype, codes.view(), multiples.view(), factors.view()).unwrap();
            let values = decode_rows(dtype, &bytes, 1024).unwrap();
            for ((row, column), &code) in codes.indexed_iter() {
                let scale = factors[[row, column / 256]] * f32::from(multiples[[row, column / 16]]);
                assert_eq!(values[512 * row + column], scale * (f32::from(code) - (levels / 2) as f32), "{dtype}");
            }
            let too_large = &multiples + most as u8;
            assert_eq!(pack_super_rows(dtype, codes.view(), too_large.view(), factors.view()), None);
            assert_eq!(pack_super_rows(DType::Q4_0, codes.view(), multiples.view(), factors.view()), None);
        }
    }

    proptest! {
        #[test]
        fn packed_codes_read_as_scale_times_code(
            rows in 1usize..4, blocks in 1usize..5, wide in 0usize..3, seed in 0usize..1000, kind in 0usize..5
        ) {
            let (bits, symmetric) = [(4, true), (5, true), (8, true), (4, false), (5, false)][kind];
            let dtype = type_of_grid(bits, symmetric).unwrap();
            let width = 32 * blocks;
            let group = [32, 64, width][wide];
            let groups = width.div_ceil(group);
            let largest = (1usize << bits) - 1;
            let codes = Array2::from_shape_fn((rows, width), |(r, c)| ((seed + 31 * r + 17 * c) % (largest + 1)) as u8);
            let scales = Array2::from_shape_fn((rows, groups), |(r, g)| (1 + (seed + r + g) % 9) as f32 / 16.0);
            let zeros = Array2::from_shape_fn((rows, groups), |(r, g)| {
                if symmetric { 1u8 << (bits - 1) } else { ((seed + r * 3 + g) % (largest + 1)) as u8 }
            });
            let bytes = pack_rows(dtype, codes.view(), scales.view(), zeros.view(), group).unwrap();
            let values = decode_rows(dtype, &bytes, rows * width).unwrap();
            for ((row, column), &code) in codes.indexed_iter() {
                let (scale, zero) = (scales[[row, column / group]], zeros[[row, column / group]]);
                // Sixteenths times small integers are exact in half precision.
                let expected = scale * (f32::from(code) - f32::from(zero));
                prop_assert_eq!(values[row * width + column], expected);
            }
        }

        #[test]
        fn errors_stay_below_a_step(values in prop::collection::vec(-4.0f32..4.0, 256)) {
            let values = Array2::from_shape_vec((1, 256), values).unwrap();
            for (dtype, step) in [(DType::Q4_K, 8.0 / 14.0), (DType::Q6_K, 8.0 / 60.0), (DType::Q8_0, 8.0 / 250.0)] {
                let bytes = quantize_rows(dtype, values.view(), None).unwrap();
                let decoded = decode_rows(dtype, &bytes, 256).unwrap();
                for (decoded, value) in decoded.iter().zip(&values) {
                    prop_assert!((decoded - value).abs() <= step, "{} {} {}", dtype, decoded, value);
                }
            }
        }
    }
}
