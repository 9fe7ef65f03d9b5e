//! GGUF metadata: typed values and typed access to them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::parse::Reader;
use crate::{Error, Fault, Result};

/// The type of a metadata value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        use ValueType::{Array, Bool, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
        const BY_NUMBER: [ValueType; 13] = [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64];
        BY_NUMBER.get(number as usize).copied()
    }

    /// As files write it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::U8 => 0,
            Self::I8 => 1,
            Self::U16 => 2,
            Self::I16 => 3,
            Self::U32 => 4,
            Self::I32 => 5,
            Self::F32 => 6,
            Self::Bool => 7,
            Self::String => 8,
            Self::Array => 9,
            Self::U64 => 10,
            Self::I64 => 11,
            Self::F64 => 12,
        }
    }

    /// The fewest bytes a value takes.
    pub(crate) fn minimal_size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// A metadata value. Arrays stay in the file: only vocabularies are large, and only the tokenizer needs them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array { element: ValueType, count: u64, range: Range<usize> },
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    pub(crate) fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array { .. } => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// As f64, f32 through its shortest decimal form: 1e-5 and not 9.999999747378752e-6.
    fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => x.to_string().parse().ok(),
            Self::F64(x) => Some(x),
            _ => None,
        }
    }
}

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
