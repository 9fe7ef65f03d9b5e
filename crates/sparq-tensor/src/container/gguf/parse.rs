//! The GGUF container: magic, counts, metadata, tensor descriptions, aligned data.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::metadata::Metadata;
use super::reader::Reader;
use super::value::Value;
use crate::{DType, Error, Fault, Result, limits};

/// What a GGUF file says, with positions in the file.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) metadata: Metadata,
    /// In file order; names are unique, ranges lie inside the file and do not overlap.
    pub(crate) tensors: Vec<GgufTensor>,
}

/// One tensor description.
#[derive(Debug)]
pub(crate) struct GgufTensor {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// Outermost dimension first, the reverse of the file's order.
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

/// Alignment of the data section unless the metadata says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The fewest bytes a metadata entry takes: key length, type, one byte of value.
const MINIMAL_ENTRY: u64 = 8 + 4 + 1;
/// The fewest bytes a tensor description takes: name length, dimension count, one dimension, type, offset.
const MINIMAL_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// Parses and checks everything but the weights. `bytes` is the whole file.
pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Container> {
    let fault = |fault| Error::malformed(file, fault);
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4, "the magic number").map_err(fault)? != b"GGUF" {
        return Err(fault(Fault::Magic { expected: "GGUF" }));
    }
    let version = reader.u32("the version").map_err(fault)?;
    if !(2..=3).contains(&version) {
        let supported = if (2..=3).contains(&version.swap_bytes()) { "2, 3, little-endian only" } else { "2, 3" };
        return Err(fault(Fault::Version { version, supported }));
    }
    let tensor_count = reader.u64("the tensor count").map_err(fault)?;
    let entry_count = reader.u64("the metadata count").map_err(fault)?;
    reader.check_count("the metadata count", entry_count, limits::GGUF_ENTRIES, MINIMAL_ENTRY).map_err(fault)?;
    reader.check_count("the tensor count", tensor_count, limits::GGUF_TENSORS, MINIMAL_TENSOR).map_err(fault)?;

    let entries = read_metadata(&mut reader, entry_count).map_err(fault)?;
    let metadata = Metadata::new(file, entries);
    let alignment = match metadata.get("general.alignment") {
        Some(Value::U32(alignment)) => u64::from(*alignment),
        Some(other) => return Err(metadata.invalid("general.alignment", "a u32", other)),
        None => DEFAULT_ALIGNMENT,
    };
    if !alignment.is_power_of_two() || alignment < 8 {
        return Err(fault(Fault::Misaligned { what: "general.alignment", value: alignment, alignment: 8 }));
    }

    let mut descriptions = Vec::new(); // grows with what is really there
    for _ in 0..tensor_count {
        descriptions.push(read_description(file, &mut reader)?);
    }
    let data_start = (reader.at as u64)
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| fault(Fault::Overflow { what: "the start of the data section" }))?;
    let available = (bytes.len() as u64).saturating_sub(data_start);
    let mut tensors = Vec::with_capacity(descriptions.len());
    for description in descriptions {
        let name = description.name.clone();
        let tensor = place(description, data_start, available, alignment);
        tensors.push(tensor.map_err(|fault| Error::tensor(file, &name, fault))?);
    }
    check_unique_and_disjoint(file, &tensors)?;
    Ok(Container { metadata, tensors })
}

struct Description {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    offset: u64,
}

fn read_metadata(reader: &mut Reader<'_>, count: u64) -> Result<BTreeMap<String, Value>, Fault> {
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let key = reader.string("a metadata key", limits::GGUF_KEY_BYTES)?.to_owned();
        let value_type = reader.value_type("a metadata value")?;
        let value = reader.value(value_type)?;
        if entries.contains_key(&key) {
            return Err(Fault::Duplicate { what: "metadata key", name: key });
        }
        entries.insert(key, value);
    }
    Ok(entries)
}

fn read_description(file: &Path, reader: &mut Reader<'_>) -> Result<Description> {
    let name = reader
        .string("a tensor name", limits::GGUF_NAME_BYTES)
        .map_err(|fault| Error::malformed(file, fault))?
        .to_owned();
    let read = |reader: &mut Reader<'_>| {
        let dimensions = u64::from(reader.u32("the number of dimensions")?);
        if dimensions > limits::GGUF_DIMENSIONS {
            let limit = limits::GGUF_DIMENSIONS;
            return Err(Fault::TooLarge { what: "the number of dimensions", value: dimensions, limit });
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            let dimension = reader.u64("a dimension")?;
            shape.push(usize::try_from(dimension).map_err(|_| Fault::Overflow { what: "a dimension" })?);
        }
        shape.reverse();
        if shape.is_empty() || shape.contains(&0) {
            return Err(Fault::BadShape { shape, reason: "it has no elements" });
        }
        let type_number = reader.u32("the element type")?;
        let dtype = DType::from_ggml_type(type_number).map_err(|name| match name {
            Some(name) => Fault::UnsupportedType { what: "element type", found: name.to_owned() },
            None => Fault::UnknownType { what: "element type", found: type_number.to_string() },
        })?;
        let offset = reader.u64("the tensor's offset")?;
        Ok((dtype, shape, offset))
    };
    let (dtype, shape, offset) = read(reader).map_err(|fault| match fault {
        // The file is as it should be, this reader falls short.
        Fault::UnsupportedType { found: value, .. } => {
            Error::Unsupported { file: file.to_path_buf(), what: format!("the element type of {name}"), value }
        }
        fault => Error::tensor(file, &name, fault),
    })?;
    Ok(Description { name, dtype, shape, offset })
}

fn place(tensor: Description, data_start: u64, available: u64, alignment: u64) -> Result<GgufTensor, Fault> {
    let Description { name, dtype, shape, offset } = tensor;
    if offset % alignment != 0 {
        return Err(Fault::Misaligned { what: "its offset", value: offset, alignment });
    }
    let size = dtype.checked_bytes(&shape)?;
    let end = offset.checked_add(size).ok_or(Fault::Overflow { what: "its end" })?;
    if end > available {
        return Err(Fault::OutOfRange { begin: offset, end, available });
    }
    let range = (data_start + offset) as usize..(data_start + end) as usize;
    Ok(GgufTensor { name, dtype, shape, range })
}

fn check_unique_and_disjoint(file: &Path, tensors: &[GgufTensor]) -> Result<()> {
    let mut by_name: Vec<&GgufTensor> = tensors.iter().collect();
    by_name.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = by_name.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::malformed(file, Fault::Duplicate { what: "tensor name", name: pair[0].name.clone() }));
    }
    let mut by_position = by_name;
    by_position.sort_by_key(|tensor| tensor.range.start);
    match by_position.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        Some(pair) => Err(Error::tensor(file, &pair[1].name, Fault::Overlap { other: pair[0].name.clone() })),
        None => Ok(()),
    }
}
