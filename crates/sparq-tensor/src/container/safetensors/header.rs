//! The header of one safetensors file: `u64` length, JSON, then the data section.
//!
//! The `safetensors` crate, the format's own implementation, parses it and decides what is acceptable.

use std::ops::Range;
use std::path::Path;

use safetensors::SafeTensors;

use super::explain::{explain, known};
use crate::{DType, Error, Result};

/// One tensor of a safetensors file.
#[derive(Debug, Clone)]
pub(crate) struct HeaderEntry {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Position in the file (not in the data section).
    pub(crate) range: Range<usize>,
}

/// Parses and checks the header of `bytes`, the whole file; tensors in the order of their positions.
pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Vec<HeaderEntry>> {
    let (length, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| explain(file, bytes, &error))?;
    let start = size_of::<u64>() + length;
    let mut entries = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let (begin, end) = info.data_offsets;
        let dtype = known(&info.dtype.to_string(), &info.shape).map_err(|fault| Error::tensor(file, &name, fault))?;
        entries.push(HeaderEntry { name, dtype, shape: info.shape.clone(), range: start + begin..start + end });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;

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
