//! The values of quantized weights: `scale · (code − zero)`.
//!
//! Codes and zero points are unsigned here whatever the format calls them; rows are computed independently of each
//! other, so the result does not depend on the number of threads.

use half::{bf16, f16};
use ndarray::Array2;
use rayon::prelude::*;

use super::{Packing, Part};
use crate::mmap::MappedFile;
use crate::packing::compressed_tensors::{WordLayout, read_whole_codes, unpack_zero_points};
use crate::packing::gptq::{GptqVersion, unpack_qzeros};
use crate::packing::read_stream;
use crate::{DType, Error, Fault, Result, decode};

/// Rows computed at a time: as many words of a GPTQ file as a cache line has.
const ROWS: usize = 16;

/// A quantized weight; shapes and types of its parts are checked when it is made, contents when it is read.
#[derive(Debug)]
pub(crate) struct PackedWeight {
    pub(crate) packing: Packing,
    pub(super) bits: u32,
    pub(crate) codes: Part,
    pub(super) kind: Codes,
    pub(super) scales: Part,
    pub(super) offset: Offset,
    pub(super) groups: Groups,
}

/// How codes are stored.
#[derive(Debug)]
pub(super) enum Codes {
    /// Every row in words of its own.
    Rows(WordLayout),
    /// A signed byte each.
    SignedBytes,
    /// GPTQ: words along the input channels, one column for each output channel.
    Columns,
}

/// Where zero points are.
#[derive(Debug)]
pub(super) enum Offset {
    /// In the middle of the codes.
    Midpoint,
    /// Signed bytes, of the shape of the scales.
    Signed(Part),
    /// compressed-tensors: packed along the output channels.
    PackedOverRows(Part),
    /// GPTQ.
    Gptq { zeros: Part, version: GptqVersion, symmetric: bool },
}

/// Which input channels share a scale.
#[derive(Debug)]
pub(super) enum Groups {
    /// Runs of this many.
    Consecutive(usize),
    /// By a list; if it may say −1, that means runs of `otherwise`.
    Named { order: Part, minus_one_is_none: bool, otherwise: usize },
}

/// Scales and zero points, unpacked: `[rows or 1, groups]`.
struct Grid {
    rows: usize,
    groups: usize,
    scales: Vec<f32>,
    zeros: Vec<u8>,
    /// Group of every input channel.
    of_channel: Vec<u32>,
}

impl PackedWeight {
    /// What the weight is made of.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        let zeros = match &self.offset {
            Offset::Midpoint => None,
            Offset::Signed(zeros) | Offset::PackedOverRows(zeros) | Offset::Gptq { zeros, .. } => Some(zeros),
        };
        let order = match &self.groups {
            Groups::Consecutive(_) => None,
            Groups::Named { order, .. } => Some(order),
        };
        [&self.codes, &self.scales].into_iter().chain(zeros).chain(order)
    }

    /// Gives back the pages that reading it took.
    pub(crate) fn release(&self, files: &[MappedFile]) {
        for part in self.parts() {
            files[part.file].release(&part.range);
        }
    }

    /// The values, row-major.
    pub(crate) fn dequantize(&self, files: &[MappedFile], rows: usize, width: usize) -> Result<Vec<f32>> {
        let grid = self.grid(files, rows, width)?;
        let no_memory =
            || Error::OutOfMemory { tensor: self.codes.info.name.clone(), bytes: (rows * width) as u64 * 4 };
        let mut values = Vec::new();
        values.try_reserve_exact(rows * width).map_err(|_| no_memory())?;
        values.resize(rows * width, 0.0f32);
        let bytes = self.codes.bytes(files)?;
        let round = rounding(match self.packing {
            Packing::CompressedTensors { .. } => self.scales.info.dtype,
            Packing::Gptq { .. } => DType::F32,
        });
        values.par_chunks_mut(ROWS * width).enumerate().for_each(|(chunk, values)| {
            let mut codes = vec![0u8; values.len()];
            self.read_codes(bytes, rows, width, chunk * ROWS, &mut codes);
            let lines = values.chunks_exact_mut(width).zip(codes.chunks_exact(width));
            for (row, (values, codes)) in lines.enumerate() {
                let at = if grid.rows == 1 { 0 } else { (chunk * ROWS + row) * grid.groups };
                let (scales, zeros) = (&grid.scales[at..at + grid.groups], &grid.zeros[at..at + grid.groups]);
                for ((value, &code), &group) in values.iter_mut().zip(codes).zip(&grid.of_channel) {
                    let steps = i16::from(code) - i16::from(zeros[group as usize]);
                    // Adding zero turns a negative zero into a positive one.
                    *value = round(scales[group as usize] * f32::from(steps)) + 0.0;
                }
            }
        });
        Ok(values)
    }

    /// Codes of the rows from `first` on, as many as `out` has.
    fn read_codes(&self, bytes: &[u8], rows: usize, width: usize, first: usize, out: &mut [u8]) {
        match self.kind {
            Codes::SignedBytes => {
                let bytes = &bytes[first * width..][..out.len()];
                out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte ^ 0x80);
            }
            Codes::Rows(layout) => {
                let row_bytes = 4 * layout.words(width, self.bits);
                for (out, bytes) in out.chunks_exact_mut(width).zip(bytes[first * row_bytes..].chunks_exact(row_bytes))
                {
                    match layout {
                        WordLayout::Dense => read_stream(bytes, self.bits, out),
                        WordLayout::WholeCodes => {
                            let words: Vec<u32> =
                                bytes.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
                            read_whole_codes(&words, self.bits, out);
                        }
                    }
                }
            }
            Codes::Columns => {
                let count = out.len() / width;
                let words = bytes.len() / 4 / rows;
                let mut stream = vec![0u8; count * words * 4];
                for word in 0..words {
                    let line = &bytes[4 * (word * rows + first)..][..4 * count];
                    for (row, &word_bytes) in line.as_chunks::<4>().0.iter().enumerate() {
                        stream[4 * (row * words + word)..][..4].copy_from_slice(&word_bytes);
                    }
                }
                for (out, stream) in out.chunks_exact_mut(width).zip(stream.chunks_exact(4 * words)) {
                    read_stream(stream, self.bits, out);
                }
            }
        }
    }

    fn grid(&self, files: &[MappedFile], rows: usize, width: usize) -> Result<Grid> {
        let info = &self.scales.info;
        let elements = info.elements();
        let no_memory = || Error::OutOfMemory { tensor: info.name.clone(), bytes: elements as u64 * 4 };
        let mut scales = decode::decode(info.dtype, self.scales.bytes(files)?, elements).ok_or_else(no_memory)?;
        let (grid_rows, groups) = match *info.shape.as_slice() {
            [groups, count] if matches!(self.kind, Codes::Columns) => {
                let turned = Array2::from_shape_fn((count, groups), |(row, group)| scales[group * count + row]);
                scales = turned.into_raw_vec_and_offset().0;
                (count, groups)
            }
            [count, groups] => (count, groups),
            _ => (1, 1),
        };
        let zeros = self.zeros(files, rows, scales.len())?;
        let of_channel = self.of_channel(files, width, groups)?;
        Ok(Grid { rows: grid_rows, groups, scales, zeros, of_channel })
    }

    /// Zero points in the order of the scales.
    fn zeros(&self, files: &[MappedFile], rows: usize, count: usize) -> Result<Vec<u8>> {
        let midpoint = 1u8 << (self.bits - 1);
        let words = |part: &Part| {
            let bytes = part.bytes(files)?.as_chunks::<4>().0;
            let words: Vec<i32> = bytes.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect();
            let shape = (part.info.shape[0], part.info.shape[1]);
            Array2::from_shape_vec(shape, words).map_err(|_| part.bad_shape("it is not a matrix"))
        };
        let checked = |part: &Part, zeros: Option<Array2<u8>>| match zeros {
            Some(zeros) if zeros.len() == count => Ok(zeros.into_raw_vec_and_offset().0),
            _ => Err(part.bad_shape("it does not hold one zero point for each scale")),
        };
        match &self.offset {
            Offset::Midpoint => Ok(vec![midpoint; count]),
            Offset::Signed(part) => {
                let largest = i16::from(midpoint) - 1;
                let shift = |&byte: &u8| {
                    let zero = i16::from(byte.cast_signed());
                    if (-i16::from(midpoint)..=largest).contains(&zero) {
                        return Ok((zero + i16::from(midpoint)) as u8);
                    }
                    Err(part.fault(Fault::BadValue { what: "a zero point", value: zero.to_string() }))
                };
                part.bytes(files)?.iter().map(shift).collect()
            }
            Offset::PackedOverRows(part) => {
                let Codes::Rows(layout) = self.kind else { return checked(part, None) };
                checked(part, unpack_zero_points(words(part)?.view(), self.bits, rows, layout))
            }
            Offset::Gptq { zeros: part, version, symmetric } => {
                let zeros = checked(part, unpack_qzeros(words(part)?.view(), self.bits, rows, *version))?;
                // Files with version-2 zero points that call themselves version 1 exist, and read as noise.
                let is_off = *symmetric && *version == GptqVersion::V1;
                if is_off && zeros.iter().all(|&zero| zero == midpoint + 1) {
                    let value = format!("{midpoint}, where checkpoint_format gptq has {}", midpoint - 1);
                    let what = "every stored zero point of a symmetric weight (gptq_v2 in truth?)";
                    return Err(part.fault(Fault::BadValue { what, value }));
                }
                Ok(zeros)
            }
        }
    }

    fn of_channel(&self, files: &[MappedFile], width: usize, groups: usize) -> Result<Vec<u32>> {
        let runs = |size: usize| (0..width).map(|channel| (channel / size) as u32).collect();
        match &self.groups {
            Groups::Consecutive(size) => Ok(runs(*size)),
            Groups::Named { order, minus_one_is_none, otherwise } => {
                let bytes = order.bytes(files)?.as_chunks::<4>().0;
                let indices: Vec<i32> = bytes.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect();
                if *minus_one_is_none && indices.contains(&-1) {
                    return Ok(runs(*otherwise));
                }
                let check = |index: i32| {
                    let group = u32::try_from(index).ok().filter(|&group| (group as usize) < groups);
                    group
                        .ok_or_else(|| order.fault(Fault::BadValue { what: "a group index", value: index.to_string() }))
                };
                indices.into_iter().map(check).collect()
            }
        }
    }
}

/// Rounds to a type and back.
fn rounding(dtype: DType) -> fn(f32) -> f32 {
    match dtype {
        DType::F16 => |value| f16::from_f32(value).to_f32(),
        DType::BF16 => |value| bf16::from_f32(value).to_f32(),
        _ => |value| value,
    }
}
