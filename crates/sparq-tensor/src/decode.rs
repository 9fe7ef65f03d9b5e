//! From bytes on disk to f32, in parallel over fixed chunks.
//!
//! Every element is computed from its own block alone, so the result does not depend on the number of threads.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::DType;
use crate::gguf::{k_quants, legacy};

/// Elements per parallel task: a multiple of every block size, 256 kB of f32.
const CHUNK: usize = 1 << 16;

/// Whether [`decode`] knows the type.
pub(crate) fn is_decodable(dtype: DType) -> bool {
    !matches!(dtype, DType::F8_E4M3 | DType::F8_E5M2)
}

/// Decodes a whole tensor; `None` if there is no memory for it.
///
/// `bytes` must hold exactly `elements` elements and [`is_decodable`] must be true of `dtype`.
pub(crate) fn decode(dtype: DType, bytes: &[u8], elements: usize) -> Option<Vec<f32>> {
    let mut out = zeros(elements)?;
    let chunk_bytes = CHUNK / dtype.block_size() * dtype.block_bytes();
    if elements <= CHUNK {
        decode_blocks(dtype, bytes, &mut out);
    } else {
        out.par_chunks_mut(CHUNK)
            .zip(bytes.par_chunks(chunk_bytes))
            .for_each(|(out, bytes)| decode_blocks(dtype, bytes, out));
    }
    Some(out)
}

/// As [`decode`], for a tensor of `rows` rows of which row `r` of the result is row `source(r)` on disk.
pub(crate) fn decode_rows(
    dtype: DType,
    bytes: &[u8],
    rows: usize,
    columns: usize,
    source: impl Fn(usize) -> usize + Sync,
) -> Option<Vec<f32>> {
    let mut out = zeros(rows * columns)?;
    if columns == 0 {
        return Some(out);
    }
    let row_bytes = columns / dtype.block_size() * dtype.block_bytes();
    out.par_chunks_mut(columns).with_min_len((CHUNK / columns).max(1)).enumerate().for_each(|(row, out)| {
        let start = source(row) * row_bytes;
        decode_blocks(dtype, &bytes[start..start + row_bytes], out);
    });
    Some(out)
}

/// The position of the first NaN or infinity.
pub(crate) fn first_non_finite(values: &[f32]) -> Option<usize> {
    // Folding without early exit lets the compiler vectorise the pass that nearly always finds nothing.
    let bad = |chunk: &[f32]| chunk.iter().fold(false, |bad, value| bad | !value.is_finite());
    let chunk =
        if values.len() <= CHUNK { bad(values).then_some(0) } else { values.par_chunks(CHUNK).position_first(bad) }?;
    let offset = chunk * CHUNK;
    values[offset..].iter().position(|value| !value.is_finite()).map(|at| offset + at)
}

fn zeros(elements: usize) -> Option<Vec<f32>> {
    let mut out = Vec::new();
    out.try_reserve_exact(elements).ok()?;
    out.resize(elements, 0.0);
    Some(out)
}

/// Decodes whole blocks, one thread.
fn decode_blocks(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => each(bytes, out, f32::from_le_bytes),
        DType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::F16 => halves(bytes, out, f16::from_bits),
        DType::BF16 => halves(bytes, out, bf16::from_bits),
        DType::Bool => each(bytes, out, |[b]: [u8; 1]| f32::from(u8::from(b != 0))),
        DType::U8 => each(bytes, out, |[b]: [u8; 1]| f32::from(b)),
        DType::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        DType::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
        DType::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        DType::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
        DType::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f32),
        DType::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
        DType::Q4_0 => blocks(bytes, out, legacy::q4_0),
        DType::Q4_1 => blocks(bytes, out, legacy::q4_1),
        DType::Q5_0 => blocks(bytes, out, legacy::q5_0),
        DType::Q5_1 => blocks(bytes, out, legacy::q5_1),
        DType::Q8_0 => blocks(bytes, out, legacy::q8_0),
        DType::Q2_K => blocks(bytes, out, k_quants::q2_k),
        DType::Q3_K => blocks(bytes, out, k_quants::q3_k),
        DType::Q4_K => blocks(bytes, out, k_quants::q4_k),
        DType::Q5_K => blocks(bytes, out, k_quants::q5_k),
        DType::Q6_K => blocks(bytes, out, k_quants::q6_k),
        DType::F8_E4M3 | DType::F8_E5M2 => {} // callers have asked `is_decodable`
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = convert(bytes);
    }
}

/// Half floats through a small buffer, because mapped bytes need not be aligned and slices convert with vector
/// instructions.
fn halves<H: Copy>(bytes: &[u8], out: &mut [f32], from_bits: impl Fn(u16) -> H)
where
    [H]: HalfFloatSliceExt,
{
    const BUFFER: usize = 512;
    let mut buffer = [from_bits(0); BUFFER];
    for (out, bytes) in out.chunks_mut(BUFFER).zip(bytes.chunks(2 * BUFFER)) {
        let buffer = &mut buffer[..out.len()];
        for (half, &bytes) in buffer.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = from_bits(u16::from_le_bytes(bytes));
        }
        buffer.convert_to_f32_slice(out);
    }
}

fn blocks<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    for (out, block) in out.as_chunks_mut::<ELEMENTS>().0.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
        decode(block, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_decodes_as_the_scalar_conversion() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        for (dtype, scalar) in [
            (DType::F16, (|b| f16::from_bits(b).to_f32()) as fn(u16) -> f32),
            (DType::BF16, |b| bf16::from_bits(b).to_f32()),
        ] {
            let decoded = decode(dtype, &bytes, bits.len()).unwrap();
            for (&b, value) in bits.iter().zip(decoded) {
                let expected = scalar(b);
                assert!(
                    value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()),
                    "{dtype} {b:#x}"
                );
            }
        }
    }

    #[test]
    fn chunks_and_odd_tails_agree_with_one_pass() {
        let values: Vec<f32> = (0..3 * CHUNK + 17).map(|i| i as f32 * 0.5).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(decode(DType::F32, &bytes, values.len()).unwrap(), values);
    }

    #[test]
    fn rows_are_taken_from_their_source() {
        let values: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let reversed = decode_rows(DType::F32, &bytes, 3, 2, |row| 2 - row).unwrap();
        assert_eq!(reversed, [4.0, 5.0, 2.0, 3.0, 0.0, 1.0]);
    }

    #[test]
    fn the_first_non_finite_value_is_found_in_any_chunk() {
        let mut values = vec![1.0f32; 2 * CHUNK + 5];
        assert_eq!(first_non_finite(&values), None);
        values[2 * CHUNK + 3] = f32::NAN;
        assert_eq!(first_non_finite(&values), Some(2 * CHUNK + 3));
        values[7] = f32::NEG_INFINITY;
        assert_eq!(first_non_finite(&values), Some(7));
    }

    #[test]
    fn integers_and_doubles_decode() {
        let two = |bytes: &[u8], dtype| decode(dtype, bytes, 2).unwrap();
        assert_eq!(two(&[0, 2], DType::Bool), [0.0, 1.0]);
        assert_eq!(two(&[255, 1], DType::U8), [255.0, 1.0]);
        assert_eq!(two(&[255, 1], DType::I8), [-1.0, 1.0]);
        assert_eq!(two(&[(-7i64).to_le_bytes(), 8i64.to_le_bytes()].concat(), DType::I64), [-7.0, 8.0]);
        assert_eq!(two(&[0.1f64.to_le_bytes(), (-2.5f64).to_le_bytes()].concat(), DType::F64), [0.1, -2.5]);
    }
}
