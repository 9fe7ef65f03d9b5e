//! Weights stored as integer codes, scales and zero points in tensors of their own, and their values:
//! `scale · (code − zero)`.
//!
//! Codes and zero points are unsigned here whatever the format calls them; rows are computed independently of each
//! other, so the result does not depend on the number of threads.

use std::fmt;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ndarray::Array2;
use rayon::prelude::*;

use super::coded::{CodedForm, DecodedWeight};
use super::tensor;
use crate::mmap::MappedFile;
use crate::{DType, Error, Fault, Packing, Result, TensorInfo};

/// Rows computed at a time: as many words of a GPTQ file as a cache line has.
const ROWS: usize = 16;

/// The types scales have.
pub(super) const SCALE_TYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// One of the tensors a quantized weight is made of.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) file: usize,
    pub(crate) range: Range<usize>,
    pub(crate) info: TensorInfo,
}

impl Part {
    pub(super) fn fault(&self, fault: Fault) -> Error {
        Error::tensor(&self.info.file, &self.info.name, fault)
    }

    pub(super) fn bad_shape(&self, reason: &'static str) -> Error {
        self.fault(Fault::BadShape { shape: self.info.shape.clone(), reason })
    }

    pub(super) fn check_type(&self, allowed: &[DType], reason: &'static str) -> Result<()> {
        if allowed.contains(&self.info.dtype) {
            return Ok(());
        }
        Err(self.fault(Fault::UnsupportedType { what: reason, found: self.info.dtype.to_string() }))
    }

    pub(crate) fn bytes<'a>(&self, files: &'a [MappedFile]) -> Result<&'a [u8]> {
        Ok(&files[self.file].checked_bytes()?[self.range.clone()])
    }

    /// The words of a matrix of them.
    pub(super) fn words(&self, files: &[MappedFile]) -> Result<Array2<i32>> {
        let bytes = self.bytes(files)?.as_chunks::<4>().0;
        let words: Vec<i32> = bytes.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect();
        let &[rows, columns] = self.info.shape.as_slice() else { return Err(self.bad_shape("it is not a matrix")) };
        Array2::from_shape_vec((rows, columns), words).map_err(|_| self.bad_shape("it is not a matrix"))
    }
}

/// A weight that is stored in several tensors.
pub(crate) trait Packed: fmt::Debug + Send + Sync {
    /// How it is stored.
    fn packing(&self) -> Packing;

    /// The type of its values.
    fn dtype(&self) -> DType;

    /// What it is made of, the codes first.
    fn parts(&self) -> Vec<&Part>;

    /// The values of a weight of this shape, row-major.
    fn dequantize(&self, files: &[MappedFile], rows: usize, width: usize) -> Result<Vec<f32>>;

    /// What stands beside its codes, if it is entropy-coded.
    fn coded_form(&self) -> Option<CodedForm> {
        None
    }

    /// Its codes and what stands beside them, if it is entropy-coded.
    fn decoded(&self, files: &[MappedFile], rows: usize, width: usize) -> Result<Option<DecodedWeight>> {
        let _ = (files, rows, width);
        Ok(None)
    }

    /// The weight itself if its rows can be decoded one by one.
    fn by_rows(&self) -> Option<&PackedWeight> {
        None
    }

    /// Gives back the pages that reading it took.
    fn release(&self, files: &[MappedFile]) {
        for part in self.parts() {
            files[part.file].release(&part.range);
        }
    }
}

/// How a format stores codes and zero points.
pub(super) trait Layout: fmt::Debug + Send + Sync {
    /// Reads the codes of the rows from `first` on, as many as `out` has, from the bytes of the tensor of codes of a weight
    /// `[rows, width]`.
    fn read_codes(&self, bits: u32, bytes: &[u8], shape: [usize; 2], first: usize, out: &mut [u8]);

    /// The zero points that `part` holds for `rows` output channels, in the order of the scales; none if they are not as
    /// many as they should be.
    ///
    /// # Errors
    /// For zero points out of range.
    fn zeros(&self, bits: u32, part: &Part, files: &[MappedFile], rows: usize) -> Result<Option<Vec<u8>>>;
}

/// A quantized weight; shapes and types of its parts are checked when it is made, contents when it is read.
#[derive(Debug)]
pub(crate) struct PackedWeight {
    pub(super) packing: Packing,
    pub(super) bits: u32,
    /// The type of the values.
    pub(super) dtype: DType,
    pub(crate) codes: Part,
    pub(super) layout: Box<dyn Layout>,
    pub(super) scales: Part,
    /// Whether scales are `[groups, out]`.
    pub(super) scales_transposed: bool,
    /// None: all in the middle of the codes.
    pub(super) zeros: Option<Part>,
    pub(super) groups: Groups,
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
#[derive(Debug)]
pub(crate) struct Grid {
    rows: usize,
    groups: usize,
    scales: Vec<f32>,
    zeros: Vec<u8>,
    /// Group of every input channel.
    of_channel: Vec<u32>,
    /// How many channels follow each other in a group, if that is all there is to know.
    run: Option<usize>,
}

impl Packed for PackedWeight {
    fn packing(&self) -> Packing {
        self.packing
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn parts(&self) -> Vec<&Part> {
        let order = match &self.groups {
            Groups::Consecutive(_) => None,
            Groups::Named { order, .. } => Some(order),
        };
        [&self.codes, &self.scales].into_iter().chain(&self.zeros).chain(order).collect()
    }

    fn dequantize(&self, files: &[MappedFile], rows: usize, width: usize) -> Result<Vec<f32>> {
        let grid = self.grid(files, rows, width)?;
        let elements = rows * width;
        let no_memory = || Error::out_of_memory(&self.codes.info.name, elements);
        let mut values = tensor::zeros(elements).ok_or_else(no_memory)?;
        let bytes = self.codes.bytes(files)?;
        values.par_chunks_mut(ROWS * width).enumerate().for_each(|(chunk, values)| {
            self.decode_chunk(bytes, &grid, [rows, width], chunk * ROWS, values);
        });
        Ok(values)
    }

    fn by_rows(&self) -> Option<&PackedWeight> {
        Some(self)
    }
}

impl PackedWeight {
    /// Decodes as many rows as `out` has, from row `first` on, on the calling thread; `bytes` are those of the codes.
    pub(crate) fn decode(&self, bytes: &[u8], grid: &Grid, shape: [usize; 2], first: usize, out: &mut [f32]) {
        for (chunk, out) in out.chunks_mut(ROWS * shape[1]).enumerate() {
            self.decode_chunk(bytes, grid, shape, first + chunk * ROWS, out);
        }
    }

    fn decode_chunk(&self, bytes: &[u8], grid: &Grid, shape: [usize; 2], first: usize, out: &mut [f32]) {
        let width = shape[1];
        let mut codes = vec![0_u8; out.len()];
        self.layout.read_codes(self.bits, bytes, shape, first, &mut codes);
        for (row, (values, codes)) in out.chunks_exact_mut(width).zip(codes.chunks_exact(width)).enumerate() {
            let at = if grid.rows == 1 { 0 } else { (first + row) * grid.groups };
            let (scales, zeros) = (&grid.scales[at..at + grid.groups], &grid.zeros[at..at + grid.groups]);
            match grid.run {
                Some(run) => {
                    let runs = values.chunks_mut(run).zip(codes.chunks(run)).zip(scales.iter().zip(zeros));
                    for ((values, codes), (scale, zero)) in runs {
                        for (value, code) in values.iter_mut().zip(codes) {
                            *value = scale * (f32::from(*code) - f32::from(*zero));
                        }
                    }
                }
                None => {
                    for ((value, code), group) in values.iter_mut().zip(codes).zip(&grid.of_channel) {
                        *value = scales[*group as usize] * (f32::from(*code) - f32::from(zeros[*group as usize]));
                    }
                }
            }
            round(self.dtype, values);
        }
    }

    /// Scales and zero points of a weight of this shape.
    pub(crate) fn grid(&self, files: &[MappedFile], rows: usize, width: usize) -> Result<Grid> {
        let info = &self.scales.info;
        let elements = info.elements();
        let no_memory = || Error::out_of_memory(&info.name, elements);
        let mut scales = tensor::decode(info.dtype, self.scales.bytes(files)?, elements).ok_or_else(no_memory)?;
        let (grid_rows, groups) = match *info.shape.as_slice() {
            [groups, count] if self.scales_transposed => {
                let turned = Array2::from_shape_fn((count, groups), |(row, group)| scales[group * count + row]);
                scales = turned.into_raw_vec_and_offset().0;
                (count, groups)
            }
            [count, groups] => (count, groups),
            _ => (1, 1),
        };
        let zeros = self.zeros(files, rows, scales.len())?;
        let of_channel = self.of_channel(files, width, groups)?;
        let run = match self.groups {
            Groups::Consecutive(size) => Some(size),
            Groups::Named { .. } => None,
        };
        Ok(Grid { rows: grid_rows, groups, scales, zeros, of_channel, run })
    }

    /// Zero points in the order of the scales.
    fn zeros(&self, files: &[MappedFile], rows: usize, count: usize) -> Result<Vec<u8>> {
        let Some(part) = &self.zeros else { return Ok(vec![1 << (self.bits - 1); count]) };
        let zeros = self.layout.zeros(self.bits, part, files, rows)?.filter(|zeros| zeros.len() == count);
        zeros.ok_or_else(|| part.bad_shape("it does not hold one zero point for each scale"))
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
fn round(dtype: DType, values: &mut [f32]) {
    match dtype {
        DType::F16 => round_to::<f16>(values),
        DType::BF16 => round_to::<bf16>(values),
        _ => {}
    }
    for value in values {
        *value += 0.0; // turns a negative zero into a positive one
    }
}

/// Through a small buffer, because slices convert with vector instructions.
fn round_to<H: Copy + Default>(values: &mut [f32])
where
    [H]: HalfFloatSliceExt,
{
    const BUFFER: usize = 512;
    let mut buffer = [H::default(); BUFFER];
    for values in values.chunks_mut(BUFFER) {
        let buffer = &mut buffer[..values.len()];
        buffer.convert_from_f32_slice(values);
        buffer.convert_to_f32_slice(values);
    }
}
