//! The header of one safetensors file: `u64` length, JSON, then the data section.
//!
//! Parsed here rather than by the `safetensors` crate so that every refusal names the tensor and the reason; the tests
//! hold the two against each other.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::{DType, Error, Fault, Result, limits};

/// One tensor of a safetensors file.
#[derive(Debug, Clone)]
pub(crate) struct HeaderEntry {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Position in the file (not in the data section).
    pub(crate) range: Range<usize>,
}

/// Parses and checks the header of `bytes`, the whole file.
///
/// Checked: length, UTF-8, JSON, unique names, known types, shape × type = byte range, ranges inside the file, no
/// overlap, no byte without owner.
pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Vec<HeaderEntry>> {
    let fault = |fault| Error::malformed(file, fault);
    let truncated =
        |what, needed, available: usize| fault(Fault::Truncated { what, needed, available: available as u64 });
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(truncated("the header's length", 8, bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > limits::SAFETENSORS_HEADER_BYTES {
        let limit = limits::SAFETENSORS_HEADER_BYTES;
        return Err(fault(Fault::TooLarge { what: "the header's length", value: length, limit }));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(truncated("the header", length, rest.len()));
    };
    if header.first() != Some(&b'{') {
        return Err(fault(Fault::Magic { expected: "a JSON object after eight bytes of header length" }));
    }
    let header = std::str::from_utf8(header).map_err(|_| fault(Fault::NotUtf8 { what: "the header" }))?;
    let raw: RawHeader = serde_json::from_str(header)
        .map_err(|error| fault(Fault::Json { what: "the header", reason: error.to_string() }))?;

    let data_start = bytes.len() - data.len();
    let mut entries = Vec::with_capacity(raw.0.len());
    for (name, tensor) in raw.0 {
        let checked = check(&tensor, data.len()).map_err(|fault| Error::tensor(file, &name, fault))?;
        let (dtype, shape, range) = checked;
        entries.push(HeaderEntry { name, dtype, shape, range: range.start + data_start..range.end + data_start });
    }
    check_unique(file, &mut entries)?;
    check_coverage(file, &mut entries, data_start, bytes.len())?;
    Ok(entries)
}

fn check(tensor: &RawTensor, available: usize) -> Result<(DType, Vec<usize>, Range<usize>), Fault> {
    let dtype = DType::from_safetensors_name(&tensor.dtype)
        .ok_or_else(|| Fault::UnknownType { what: "element type", found: tensor.dtype.clone() })?;
    if tensor.shape.len() as u64 > limits::DIMENSIONS {
        let value = tensor.shape.len() as u64;
        return Err(Fault::TooLarge { what: "the number of dimensions", value, limit: limits::DIMENSIONS });
    }
    let shape: Vec<usize> = tensor
        .shape
        .iter()
        .map(|&n| usize::try_from(n).map_err(|_| Fault::Overflow { what: "a dimension" }))
        .collect::<Result<_, _>>()?;
    let (begin, end) = tensor.data_offsets;
    if begin > end || end > available as u64 {
        return Err(Fault::OutOfRange { begin, end, available: available as u64 });
    }
    let expected = dtype.checked_bytes(&shape)?;
    if expected != end - begin {
        return Err(Fault::WrongSize { shape, dtype, expected, found: end - begin });
    }
    Ok((dtype, shape, begin as usize..end as usize))
}

fn check_unique(file: &Path, entries: &mut [HeaderEntry]) -> Result<()> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    match entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(Error::malformed(file, Fault::Duplicate { what: "tensor name", name: pair[0].name.clone() })),
        None => Ok(()),
    }
}

/// Sorts by position and demands that the tensors follow each other without gap or overlap up to the end of the file.
fn check_coverage(file: &Path, entries: &mut [HeaderEntry], start: usize, end: usize) -> Result<()> {
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
    let mut at = start;
    let mut previous = "";
    for entry in entries.iter() {
        if entry.range.start < at {
            return Err(Error::tensor(file, &entry.name, Fault::Overlap { other: previous.to_owned() }));
        }
        check_hole(file, at..entry.range.start, start)?;
        at = entry.range.end;
        previous = &entry.name;
    }
    check_hole(file, at..end, start)
}

fn check_hole(file: &Path, hole: Range<usize>, data_start: usize) -> Result<()> {
    if hole.is_empty() {
        return Ok(());
    }
    let (begin, end) = ((hole.start - data_start) as u64, (hole.end - data_start) as u64);
    Err(Error::malformed(file, Fault::Hole { begin, end }))
}

/// The header as JSON says it. A list, not a map, so that names that occur twice are seen.
struct RawHeader(Vec<(String, RawTensor)>);

#[derive(serde::Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn fault(header: &str, data: usize) -> (Option<String>, Fault) {
        match parse(Path::new("x"), &file(header, data)).unwrap_err() {
            Error::Malformed { fault, .. } => (None, fault),
            Error::MalformedTensor { tensor, fault, .. } => (Some(tensor), fault),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_header_gives_positions_in_the_file() {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[2,10]},"b":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}  "#;
        let entries = parse(Path::new("x"), &file(header, 10)).unwrap();
        let start = 8 + header.len();
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].name.as_str(), entries[0].range.clone()), ("b", start..start + 2));
        assert_eq!((entries[1].shape.as_slice(), entries[1].range.clone()), (&[1, 2][..], start + 2..start + 10));
    }

    #[test]
    fn each_lie_is_named() {
        let overlap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
        assert_eq!(fault(overlap, 6), (Some("b".into()), Fault::Overlap { other: "a".into() }));
        let twice = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        assert_eq!(fault(twice, 2), (None, Fault::Duplicate { what: "tensor name", name: "a".into() }));
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert!(matches!(fault(&one("F32", "[2]", "[0,4]"), 4).1, Fault::WrongSize { expected: 8, found: 4, .. }));
        assert!(matches!(fault(&one("F32", "[1]", "[0,4]"), 3).1, Fault::OutOfRange { end: 4, available: 3, .. }));
        assert!(matches!(fault(&one("F32", "[1]", "[4,0]"), 4).1, Fault::OutOfRange { .. }));
        assert!(matches!(fault(&one("Q9", "[1]", "[0,4]"), 4).1, Fault::UnknownType { .. }));
        assert!(matches!(
            fault(&one("F32", "[4294967296,4294967296,4294967296]", "[0,4]"), 4).1,
            Fault::Overflow { .. }
        ));
        assert!(matches!(fault(&one("F32", "[0,9223372036854775807,2]", "[0,0]"), 0).1, Fault::Overflow { .. }));
        assert!(matches!(fault(&one("F32", "[-1]", "[0,4]"), 4).1, Fault::Json { .. }));
        assert!(matches!(fault(&one("F32", &format!("[{}1]", "1,".repeat(40)), "[0,4]"), 4).1, Fault::TooLarge { .. }));
        assert_eq!(fault(&one("U8", "[2]", "[1,3]"), 3).1, Fault::Hole { begin: 0, end: 1 });
        assert_eq!(fault(&one("U8", "[2]", "[0,2]"), 3).1, Fault::Hole { begin: 2, end: 3 });
        assert!(matches!(fault("[]", 0).1, Fault::Magic { .. }));
        assert!(matches!(fault("{\"a\":", 0).1, Fault::Json { .. }));
        assert!(matches!(fault("{}{}", 0).1, Fault::Json { .. }));
    }

    #[test]
    fn lengths_are_checked_before_use() {
        let parse = |bytes: &[u8]| match parse(Path::new("x"), bytes) {
            Err(Error::Malformed { fault, .. }) => fault,
            other => panic!("{other:?}"),
        };
        assert!(matches!(parse(b"1234567"), Fault::Truncated { needed: 8, available: 7, .. }));
        assert!(matches!(parse(&[0xff; 20]), Fault::TooLarge { .. }));
        let mut short = 50u64.to_le_bytes().to_vec();
        short.extend_from_slice(b"{}");
        assert!(matches!(parse(&short), Fault::Truncated { needed: 50, available: 2, .. }));
        let mut text = 3u64.to_le_bytes().to_vec();
        text.extend_from_slice(b"{\xff}");
        assert!(matches!(parse(&text), Fault::NotUtf8 { .. }));
    }
}
