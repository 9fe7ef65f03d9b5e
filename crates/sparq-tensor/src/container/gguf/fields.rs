use std::path::PathBuf;

use serde_json::Value;

use crate::{Error, Result};

/// Fields of a `config.json` from which a GGUF file's metadata are made.
#[derive(Debug)]
pub struct ConfigFields<'a> {
    pub(super) config: &'a Value,
    pub(super) path: PathBuf,
}

impl ConfigFields<'_> {
    /// The value of a field that is there and not null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.config.get(field).filter(|value| !value.is_null())
    }

    /// A positive number below 2³².
    ///
    /// # Errors
    /// [`Error::InvalidMetadata`] for another value.
    pub fn optional(&self, field: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64().and_then(|value| u32::try_from(value).ok()) {
            Some(value) if value > 0 => Ok(Some(value)),
            _ => Err(Error::InvalidMetadata {
                file: self.path.clone(),
                key: field.to_owned(),
                expected: "a positive number",
                found: value.to_string().chars().take(100).collect(),
            }),
        }
    }

    /// As [`optional`](Self::optional), for a field that must be there.
    ///
    /// # Errors
    /// [`Error::MissingMetadata`], [`Error::InvalidMetadata`].
    pub fn needed(&self, field: &str) -> Result<u32> {
        self.optional(field)?.ok_or_else(|| self.missing(field))
    }

    /// A number of any kind.
    pub fn number(&self, field: &str) -> Option<f64> {
        self.get(field).and_then(Value::as_f64)
    }

    /// True or false.
    pub fn flag(&self, field: &str) -> Option<bool> {
        self.get(field).and_then(Value::as_bool)
    }

    /// The error for a setting that GGUF, or llama.cpp, cannot express.
    pub fn unsupported(&self, what: impl Into<String>, value: impl Into<String>) -> Error {
        Error::Unsupported { file: self.path.clone(), what: what.into(), value: value.into() }
    }

    /// The error for a field that is not there.
    pub fn missing(&self, field: &str) -> Error {
        Error::MissingMetadata { file: self.path.clone(), key: field.to_owned() }
    }
}
