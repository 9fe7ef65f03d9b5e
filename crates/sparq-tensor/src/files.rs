//! Reading small files whole, with a limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::{Error, Fault, Result, content, limits};

/// Reads a file that must not exceed `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("examine", path))?.len();
    let too_large = |value| Error::malformed(path, Fault::TooLarge { what: "the file's size", value, limit });
    if length > limit {
        return Err(too_large(length));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that grew, or a device without a length, from one that fits.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    match content::stand_in(&bytes) {
        Some(found) => Err(Error::OtherContent { file: path.to_path_buf(), found }),
        None => Ok(bytes),
    }
}

/// As [`read_limited`], without the byte order mark that some editors put in front of UTF-8.
pub(crate) fn read_unmarked(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = read_limited(path, limit)?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// Reads a text file of at most `limit` bytes, without its byte order mark.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for a larger file, or one that is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, limit: u64) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read_unmarked(path, limit)?).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = bytes[..position].split(|&byte| byte == b'\n').count();
        let known: [(&[u8], &str); 6] = [
            (b"\xff\xfe", "; it begins as UTF-16 does"),
            (b"\xfe\xff", "; it begins as UTF-16 does"),
            (b"\x1f\x8b", "; it begins as gzip does"),
            (b"\x28\xb5\x2f\xfd", "; it begins as Zstandard does"),
            (b"PK\x03\x04", "; it begins as a zip archive does"),
            (b"PAR1", "; it begins as Parquet does"),
        ];
        let begins = known.iter().find(|(magic, _)| bytes.starts_with(magic)).map_or("", |(_, begins)| begins);
        Error::malformed(path, Fault::NotText { position, line, byte: bytes[position], begins })
    })
}

/// Reads a JSON file; `what` names it in the error.
pub(crate) fn read_json(path: &Path, what: &'static str) -> Result<Value> {
    let bytes = read_unmarked(path, limits::JSON_BYTES)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::malformed(path, Fault::Json { what, reason: error.to_string() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_loses_its_mark_and_other_bytes_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path, 20).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"\xef\xbb\xbfa\xc3\xa9").unwrap(), "aé");
        assert_eq!(read(b"\xef\xbb\xbf").unwrap(), "");
        assert!(read(b"one\ntwo \xe9").unwrap_err().contains("byte 0xe9 at position 8 (line 2)"));
        assert!(read(b"\xff\xfea\0").unwrap_err().contains("UTF-16"));
        assert!(read(&[b'a'; 21]).unwrap_err().contains("limit of 20"));
        std::fs::write(&path, "\u{feff}{\"a\": 1}").unwrap();
        assert_eq!(read_json(&path, "a file").unwrap()["a"], 1);
    }
}
