//! Whole tensors from bytes on disk to f32, in parallel over fixed chunks.
//!
//! Every element is computed from its own block alone, so the result does not depend on the number of threads.

use rayon::prelude::*;

use super::{ggml, plain};
use crate::DType;

/// Elements per parallel task: a multiple of every block size, 256 kB of f32.
const CHUNK: usize = 1 << 16;

/// Decodes a whole tensor; `None` if there is no memory for it.
///
/// `bytes` must hold exactly `elements` elements and [`is_decodable`](plain::is_decodable) must be true of `dtype`.
pub(crate) fn decode(dtype: DType, bytes: &[u8], elements: usize) -> Option<Vec<f32>> {
    let mut out = zeros(elements)?;
    let chunk_bytes = CHUNK / dtype.block_size() * dtype.block_bytes();
    if elements <= CHUNK {
        decode_serially(dtype, bytes, &mut out);
    } else {
        out.par_chunks_mut(CHUNK)
            .zip(bytes.par_chunks(chunk_bytes))
            .for_each(|(out, bytes)| decode_serially(dtype, bytes, out));
    }
    Some(out)
}

/// As [`decode`], for a tensor of `rows` rows of which row `r` of the result is row `source(r)` on disk.
pub(crate) fn decode_reordered(
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
        decode_serially(dtype, &bytes[start..start + row_bytes], out);
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

/// Position and value of the first NaN or infinity in a tensor on disk; `bytes` as for [`decode`].
pub(crate) fn find_non_finite(dtype: DType, bytes: &[u8]) -> Option<(usize, f32)> {
    let chunk_bytes = CHUNK / dtype.block_size() * dtype.block_bytes();
    let in_chunk = |(chunk, bytes): (usize, &[u8])| {
        let mut values = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_size()];
        decode_serially(dtype, bytes, &mut values);
        first_non_finite(&values).map(|at| (chunk * CHUNK + at, values[at]))
    };
    bytes.par_chunks(chunk_bytes).enumerate().find_map_first(in_chunk)
}

/// So many zeros; `None` if there is no memory for them.
pub(super) fn zeros(elements: usize) -> Option<Vec<f32>> {
    let mut out = Vec::new();
    out.try_reserve_exact(elements).ok()?;
    out.resize(elements, 0.0);
    Some(out)
}

/// Decodes as many elements as `out` has, on the calling thread.
pub(crate) fn decode_serially(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if dtype.is_block_quantized() { ggml::decode(dtype, bytes, out) } else { plain::decode(dtype, bytes, out) }
}

/// Values of `elements` elements stored as `dtype`; `None` if `bytes` has another size or the type no decoder.
pub fn decode_rows(dtype: DType, bytes: &[u8], elements: usize) -> Option<Vec<f32>> {
    let fits = dtype.bytes_for(&[elements]) == Some(bytes.len() as u64);
    if fits && plain::is_decodable(dtype) { decode(dtype, bytes, elements) } else { None }
}

/// The index of element `position` of a row-major tensor.
pub(crate) fn unravel(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (index, &dimension) in index.iter_mut().zip(shape).rev() {
        *index = position % dimension.max(1);
        position /= dimension.max(1);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let reversed = decode_reordered(DType::F32, &bytes, 3, 2, |row| 2 - row).unwrap();
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
        let bytes: Vec<u8> = values[8..].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(find_non_finite(DType::F32, &bytes).is_some_and(|(at, value)| at == 2 * CHUNK - 5 && value.is_nan()));
        assert_eq!(find_non_finite(DType::F32, &bytes[..4 * CHUNK]), None);
    }

    #[test]
    fn positions_unravel_row_major() {
        assert_eq!(unravel(7, &[2, 5]), [1, 2]);
        assert_eq!(unravel(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(unravel(0, &[]), [0usize; 0]);
    }
}
