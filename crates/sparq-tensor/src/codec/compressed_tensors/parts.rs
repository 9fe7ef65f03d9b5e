//! Which tensors of a compressed-tensors checkpoint make up a weight, and whether they fit each other.

use std::path::Path;

use serde_json::Value;

use super::config::{CompressedTensors, Grid};
use super::{WordLayout, read_whole_codes, unpack_zero_points};
use crate::codec::packed::{Groups, Layout, PackedWeight, Part, SCALE_TYPES};
use crate::codec::stream::read_stream;
use crate::entry::Loaded;
use crate::mmap::MappedFile;
use crate::size::checked_elements;
use crate::{DType, Error, Fault, Packing, Result};

/// Replaces the parts of quantized weights in `loaded` by the weights. `path` is the file that `config` is from.
pub(crate) fn present(loaded: &mut Loaded, path: &Path, config: &Value) -> Result<()> {
    let config = CompressedTensors::parse(path, config)?;
    for module in loaded.modules(".weight_packed") {
        packed(loaded, &config, &module)?;
    }
    for module in loaded.modules(".weight_scale") {
        let is_int = |name: String| loaded.tensors.get(&name).is_some_and(|entry| entry.info.dtype == DType::I8);
        if is_int(format!("{module}.weight")) {
            one_byte_each(loaded, &module)?;
        }
    }
    Ok(())
}

/// `weight_packed`, `weight_scale`, `weight_shape`, perhaps `weight_zero_point` and `weight_g_idx`.
fn packed(loaded: &mut Loaded, config: &CompressedTensors, module: &str) -> Result<()> {
    let name = |suffix| format!("{module}.{suffix}");
    let Some(codes) = loaded.take(&name("weight_packed")) else { return Ok(()) };
    codes.check_type(&[DType::I32], "the type of packed codes")?;
    let shape = loaded.take_needed(&name("weight_shape"), &codes)?;
    let scales = loaded.take_needed(&name("weight_scale"), &codes)?;
    let zeros = loaded.take(&name("weight_zero_point"));
    let order = loaded.take(&name("weight_g_idx"));

    let [rows, width] = read_shape(loaded, &shape)?;
    let [packed_rows, words] = matrix(&codes, "packed codes are a matrix")?;
    if packed_rows != rows {
        return Err(codes.bad_shape("it has not the rows that weight_shape names"));
    }
    let groups = group_size(&scales, rows, width)?;
    let (bits, layout) = choose(config, &codes, words, width, groups)?;
    if order.as_ref().is_some_and(|order| order.info.dtype != DType::I32 || order.info.shape != [width]) {
        return Err(codes.bad_shape("its weight_g_idx does not name one group for every input channel"));
    }
    match &zeros {
        Some(zeros) if zeros.info.dtype == DType::I32 => {
            let count = scales.info.shape.get(1).copied().unwrap_or(1);
            if zeros.info.shape != [layout.words(rows, bits), count] {
                return Err(zeros.bad_shape("packed zero points need one column for each group, packed over the rows"));
            }
        }
        zeros => check_signed_zeros(zeros.as_ref(), &scales)?,
    }
    let dtype = scales.info.dtype;
    let groups = match order {
        Some(order) => Groups::Named { order, minus_one_is_none: true, otherwise: groups },
        None => Groups::Consecutive(groups),
    };
    let packing = Packing::CompressedTensors { bits: bits as u8 };
    let layout: Box<dyn Layout> = Box::new(layout);
    let scales_transposed = false;
    let weight = PackedWeight { packing, bits, dtype, codes, layout, scales, scales_transposed, zeros, groups };
    loaded.insert(module, [rows, width], weight)
}

/// `weight` with signed bytes, `weight_scale`, perhaps `weight_zero_point`.
fn one_byte_each(loaded: &mut Loaded, module: &str) -> Result<()> {
    let name = |suffix| format!("{module}.{suffix}");
    let Some(codes) = loaded.take(&name("weight")) else { return Ok(()) };
    let scales = loaded.take_needed(&name("weight_scale"), &codes)?;
    let zeros = loaded.take(&name("weight_zero_point"));
    for suffix in ["weight_shape", "input_scale", "input_zero_point"] {
        loaded.take(&name(suffix)); // of activations, which are left alone here
    }
    let [rows, width] = matrix(&codes, "codes of a linear layer are a matrix")?;
    if rows == 0 || width == 0 {
        return Err(codes.bad_shape("it has no elements"));
    }
    let groups = group_size(&scales, rows, width)?;
    check_signed_zeros(zeros.as_ref(), &scales)?;
    let (bits, dtype, groups) = (8, scales.info.dtype, Groups::Consecutive(groups));
    let packing = Packing::CompressedTensors { bits: 8 };
    let layout: Box<dyn Layout> = Box::new(SignedBytes);
    let scales_transposed = false;
    let weight = PackedWeight { packing, bits, dtype, codes, layout, scales, scales_transposed, zeros, groups };
    loaded.insert(module, [rows, width], weight)
}

fn check_signed_zeros(zeros: Option<&Part>, scales: &Part) -> Result<()> {
    let Some(zeros) = zeros else { return Ok(()) };
    zeros.check_type(&[DType::I8], "the type of zero points")?;
    if zeros.info.shape != scales.info.shape {
        return Err(zeros.bad_shape("it has not the shape of the scales"));
    }
    Ok(())
}

/// Every row in words of its own.
impl Layout for WordLayout {
    fn read_codes(&self, bits: u32, bytes: &[u8], [_, width]: [usize; 2], first: usize, out: &mut [u8]) {
        let row_bytes = 4 * self.words(width, bits);
        for (out, bytes) in out.chunks_exact_mut(width).zip(bytes[first * row_bytes..].chunks_exact(row_bytes)) {
            match self {
                Self::Dense => read_stream(bytes, bits, out),
                Self::WholeCodes => {
                    let words: Vec<u32> =
                        bytes.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
                    read_whole_codes(&words, bits, out);
                }
            }
        }
    }

    fn zeros(&self, bits: u32, part: &Part, files: &[MappedFile], rows: usize) -> Result<Option<Vec<u8>>> {
        if part.info.dtype == DType::I8 {
            return SignedBytes.zeros(bits, part, files, rows);
        }
        let zeros = unpack_zero_points(part.words(files)?.view(), bits, rows, *self);
        Ok(zeros.map(|zeros| zeros.into_raw_vec_and_offset().0))
    }
}

/// A signed byte for each code and each zero point.
#[derive(Debug)]
struct SignedBytes;

impl Layout for SignedBytes {
    fn read_codes(&self, _: u32, bytes: &[u8], [_, width]: [usize; 2], first: usize, out: &mut [u8]) {
        let bytes = &bytes[first * width..][..out.len()];
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte ^ 0x80);
    }

    fn zeros(&self, bits: u32, part: &Part, files: &[MappedFile], _: usize) -> Result<Option<Vec<u8>>> {
        let midpoint = 1i16 << (bits - 1);
        let shift = |&byte: &u8| {
            let zero = i16::from(byte.cast_signed());
            if (-midpoint..midpoint).contains(&zero) {
                return Ok((zero + midpoint) as u8);
            }
            Err(part.fault(Fault::BadValue { what: "a zero point", value: zero.to_string() }))
        };
        part.bytes(files)?.iter().map(shift).collect::<Result<_>>().map(Some)
    }
}

fn matrix(part: &Part, reason: &'static str) -> Result<[usize; 2]> {
    part.info.shape.as_slice().try_into().map_err(|_| part.bad_shape(reason))
}

/// The contents of `weight_shape`: two positive numbers whose product is the number of a tensor's elements.
fn read_shape(loaded: &Loaded, shape: &Part) -> Result<[usize; 2]> {
    shape.check_type(&[DType::I64, DType::I32], "the type of weight_shape")?;
    let bytes = shape.bytes(&loaded.files)?;
    let numbers: Vec<i64> = match shape.info.dtype {
        DType::I64 => bytes.as_chunks::<8>().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect(),
    };
    let numbers: Option<Vec<usize>> =
        numbers.iter().map(|&number| usize::try_from(number).ok().filter(|&number| number > 0)).collect();
    match numbers.as_deref() {
        Some(&[rows, width]) => {
            checked_elements(&[rows, width]).map_err(|fault| shape.fault(fault))?;
            Ok([rows, width])
        }
        _ => Err(shape.bad_shape("it does not hold two positive numbers")),
    }
}

/// Input channels that share a scale, from the shape of the scales, as the format's own reader finds them.
fn group_size(scales: &Part, rows: usize, width: usize) -> Result<usize> {
    scales.check_type(&SCALE_TYPES, "the type of scales")?;
    match *scales.info.shape.as_slice() {
        [] | [1] => Ok(width),
        [count, groups] if count == rows || count == 1 => {
            if groups == 0 || !width.is_multiple_of(groups) {
                return Err(scales.bad_shape("its columns do not divide the input channels into groups of one size"));
            }
            Ok(width / groups)
        }
        _ => Err(scales.bad_shape("scales are one number, or have one row for every output channel")),
    }
}

/// The grid of the configuration that explains the stored shapes.
fn choose(
    config: &CompressedTensors,
    codes: &Part,
    words: usize,
    width: usize,
    group_size: usize,
) -> Result<(u32, WordLayout)> {
    let fits_groups = |grid: &&Grid| grid.group_size.is_none_or(|size| size.min(width) == group_size);
    let mut found: Vec<(u32, WordLayout)> = Vec::new();
    for grid in config.grids.iter().filter(fits_groups) {
        // Where both layouts take the same number of words and differ, as for a single word, the newer is meant.
        let layouts = [WordLayout::Dense, WordLayout::WholeCodes];
        let layout = layouts.into_iter().find(|layout| layout.words(width, grid.bits) == words);
        if let Some(layout) = layout.filter(|_| found.iter().all(|&(bits, _)| bits != grid.bits)) {
            found.push((grid.bits, layout));
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(codes.fault(Fault::BadShape {
            shape: codes.info.shape.clone(),
            reason: "no entry of config_groups has the bits and the group size that its words and scales imply",
        })),
        many => {
            let bits: Vec<String> = many.iter().map(|(bits, _)| bits.to_string()).collect();
            let what = format!("config_groups that leave open the bits of {}", codes.info.name);
            Err(Error::Unsupported { file: config.path.clone(), what, value: bits.join(" or ") })
        }
    }
}
