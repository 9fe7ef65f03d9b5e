//! Why the format's own implementation refuses a safetensors file: it says little, and names no tensor.

use std::fmt;
use std::path::Path;

use safetensors::SafeTensorError;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::size::checked_elements;
use crate::{DType, Error, Fault, Result, limits};

/// The error for `bytes`, a whole file that was refused with `error`.
pub(super) fn explain(file: &Path, bytes: &[u8], error: &SafeTensorError) -> Error {
    let (length, rest) = bytes.split_at_checked(size_of::<u64>()).unwrap_or((&[], bytes));
    let length = length.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let truncated = |what, needed| Fault::Truncated { what, needed, available: rest.len() as u64 };
    let fault = match error {
        SafeTensorError::HeaderTooSmall => truncated("the header's length", 8),
        SafeTensorError::InvalidHeaderLength => truncated("the header", length),
        SafeTensorError::HeaderTooLarge => {
            Fault::TooLarge { what: "the header's length", value: length, limit: limits::SAFETENSORS_HEADER_BYTES }
        }
        _ => {
            let (header, data) = rest.split_at_checked(length as usize).unwrap_or((rest, &[]));
            match explain_header(file, header, data.len() as u64) {
                Err(found) => return found,
                Ok(()) => Fault::Json { what: "the header", reason: error.to_string() },
            }
        }
    };
    Error::malformed(file, fault)
}

fn explain_header(file: &Path, header: &[u8], available: u64) -> Result<()> {
    let fault = |fault| Error::malformed(file, fault);
    if header.first() != Some(&b'{') {
        return Err(fault(Fault::Magic { expected: "a JSON object after eight bytes of header length" }));
    }
    let header = std::str::from_utf8(header).map_err(|_| fault(Fault::NotUtf8 { what: "the header" }))?;
    let RawHeader(mut tensors) = serde_json::from_str(header)
        .map_err(|error| fault(Fault::Json { what: "the header", reason: error.to_string() }))?;
    for (name, tensor) in &tensors {
        explain_tensor(tensor, available).map_err(|fault| Error::tensor(file, name, fault))?;
    }
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(fault(Fault::Duplicate { what: "tensor name", name: pair[0].0.clone() }));
    }
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let (mut at, mut previous) = (0, "");
    for (name, RawTensor { data_offsets: (begin, end), .. }) in &tensors {
        if *begin < at {
            return Err(Error::tensor(file, name, Fault::Overlap { other: previous.to_owned() }));
        }
        if *begin > at {
            return Err(fault(Fault::Hole { begin: at, end: *begin }));
        }
        (at, previous) = (*end, name);
    }
    if at < available { Err(fault(Fault::Hole { begin: at, end: available })) } else { Ok(()) }
}

fn explain_tensor(tensor: &RawTensor, available: u64) -> Result<(), Fault> {
    let dtype = known(&tensor.dtype, &tensor.shape)?;
    let (begin, end) = tensor.data_offsets;
    if begin > end || end > available {
        return Err(Fault::OutOfRange { begin, end, available });
    }
    let expected = dtype.checked_bytes(&tensor.shape)?;
    if expected != end - begin {
        return Err(Fault::WrongSize { shape: tensor.shape.clone(), dtype, expected, found: end - begin });
    }
    Ok(())
}

/// The type of this name, of a shape that can be worked with.
pub(super) fn known(dtype: &str, shape: &[usize]) -> Result<DType, Fault> {
    let (value, limit) = (shape.len() as u64, limits::DIMENSIONS);
    if value > limit {
        return Err(Fault::TooLarge { what: "the number of dimensions", value, limit });
    }
    checked_elements(shape)?;
    DType::from_safetensors_name(dtype)
        .ok_or_else(|| Fault::UnknownType { what: "element type", found: dtype.to_owned() })
}

/// The header as JSON says it. A list, not a map, so that names that occur twice are seen.
struct RawHeader(Vec<(String, RawTensor)>);

#[derive(serde::Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(RawHeader(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
