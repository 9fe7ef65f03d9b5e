//! Typed access to the metadata of a GGUF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::value::Value;
use crate::{Error, Fault, Result};

/// All metadata of a file.
#[derive(Debug)]
pub(crate) struct Metadata {
    file: PathBuf,
    entries: BTreeMap<String, Value>,
}

impl Metadata {
    pub(crate) fn new(file: &Path, entries: BTreeMap<String, Value>) -> Self {
        Self { file: file.to_path_buf(), entries }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    pub(crate) fn missing(&self, key: &str) -> Error {
        Error::MissingMetadata { file: self.file.clone(), key: key.to_owned() }
    }

    pub(crate) fn invalid(&self, key: &str, expected: &'static str, found: &Value) -> Error {
        let found = match found {
            Value::Array { element, count, .. } => format!("an array of {count} {element:?}"),
            other => format!("{other:?}").chars().take(100).collect(),
        };
        Error::InvalidMetadata { file: self.file.clone(), key: key.to_owned(), expected, found }
    }

    pub(crate) fn unsupported(&self, what: impl Into<String>, value: impl Into<String>) -> Error {
        Error::Unsupported { file: self.file.clone(), what: what.into(), value: value.into() }
    }

    /// A non-negative integer of any width.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A finite float of any width.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite float", |value| value.as_f64().filter(|x| x.is_finite()))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a flag", |value| if let Value::Bool(flag) = value { Some(*flag) } else { None })
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<&str>> {
        self.get(key)
            .map(|value| match value {
                Value::String(text) => Ok(text.as_str()),
                other => Err(self.invalid(key, "a string", other)),
            })
            .transpose()
    }

    /// An array of strings. `bytes` is the whole file.
    pub(crate) fn strings(&self, key: &str, bytes: &[u8]) -> Result<Option<Vec<String>>> {
        self.array(key, "an array of strings", bytes, |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// An array of non-negative integers. `bytes` is the whole file.
    pub(crate) fn integers(&self, key: &str, bytes: &[u8]) -> Result<Option<Vec<u64>>> {
        self.array(key, "an array of non-negative integers", bytes, |value| value.as_u64())
    }

    /// An array of single-precision floats. `bytes` is the whole file.
    pub(crate) fn floats(&self, key: &str, bytes: &[u8]) -> Result<Option<Vec<f32>>> {
        self.array(key, "an array of f32", bytes, |value| match value {
            Value::F32(x) => Some(x),
            _ => None,
        })
    }

    fn typed<T>(&self, key: &str, expected: &'static str, get: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        self.get(key).map(|value| get(value).ok_or_else(|| self.invalid(key, expected, value))).transpose()
    }

    fn array<T>(
        &self,
        key: &str,
        expected: &'static str,
        bytes: &[u8],
        get: impl Fn(Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Value::Array { element, count, range } = value else {
            return Err(self.invalid(key, expected, value));
        };
        // The bytes were walked when the file was opened; a fault now means that it has changed since.
        let bytes = bytes.get(..range.end).ok_or_else(|| {
            let (needed, available) = (range.end as u64, bytes.len() as u64);
            Error::malformed(&self.file, Fault::Truncated { what: "an array", needed, available })
        })?;
        let mut reader = Reader { bytes, at: range.start };
        let mut items = Vec::new();
        for _ in 0..*count {
            let item = reader.value(*element).map_err(|fault| Error::malformed(&self.file, fault))?;
            items.push(get(item).ok_or_else(|| self.invalid(key, expected, value))?);
        }
        Ok(Some(items))
    }
}
