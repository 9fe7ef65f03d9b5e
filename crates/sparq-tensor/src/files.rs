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

/// Reads a JSON file; `what` names it in the error.
pub(crate) fn read_json(path: &Path, what: &'static str) -> Result<Value> {
    let bytes = read_limited(path, limits::JSON_BYTES)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::malformed(path, Fault::Json { what, reason: error.to_string() }))
}
