//! What the configurations of quantized checkpoints have in common.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

pub(super) fn unsupported(path: &Path, what: &str, value: &Value) -> Error {
    let value = value.to_string().chars().take(100).collect();
    Error::Unsupported { file: path.to_path_buf(), what: what.to_owned(), value }
}

pub(super) fn invalid(path: &Path, key: &str, expected: &'static str, found: &Value) -> Error {
    let found = found.to_string().chars().take(100).collect();
    Error::InvalidMetadata { file: path.to_path_buf(), key: key.to_owned(), expected, found }
}

/// A value that is there and says something.
pub(super) fn get<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

pub(super) fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// `group_size`; none for one group a row.
pub(super) fn group_size(path: &Path, size: &Value) -> Result<Option<usize>> {
    match size.as_i64() {
        Some(-1) => Ok(None),
        Some(size) if size > 0 => Ok(Some(size as usize)),
        _ => Err(invalid(path, "group_size", "a positive number or -1", size)),
    }
}
