use crate::{Error, Result};
use serde_json::{Map, Value};

/// No dimension of a real model comes near: the largest known vocabularies are 2¹⁸, the widest layers 2¹⁷.
const LARGEST_DIMENSION: u64 = 1 << 24;

/// Typed access to the fields of one config.json object, with the limits that make later arithmetic safe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(value: &'a Value) -> Result<Self> {
        match value.as_object() {
            Some(object) => Ok(Self { object }),
            None => Err(Error::config("config.json", "an object is needed")),
        }
    }

    /// The value of a field that is present and not null.
    pub(crate) fn get(self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    /// Names of the fields among `known` that this object has.
    pub(crate) fn present(self, known: &[&'static str]) -> Vec<&'static str> {
        known.iter().copied().filter(|field| self.object.contains_key(*field)).collect()
    }

    /// A positive integer, `None` if absent or null.
    pub(crate) fn optional_dimension(self, field: &'static str) -> Result<Option<usize>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if (1..=LARGEST_DIMENSION).contains(&number) => Ok(Some(number as usize)),
            _ => Err(Error::config(field, format!("an integer from 1 to {LARGEST_DIMENSION} is needed, got {value}"))),
        }
    }

    /// A positive integer, `default` if absent, `None` if null.
    pub(crate) fn dimension_unless_null(self, field: &'static str, default: usize) -> Result<Option<usize>> {
        if self.object.contains_key(field) { self.optional_dimension(field) } else { Ok(Some(default)) }
    }

    /// A positive integer that must be there.
    pub(crate) fn dimension(self, field: &'static str) -> Result<usize> {
        self.optional_dimension(field)?.ok_or_else(|| Error::config(field, "missing"))
    }

    /// A non-negative integer, `None` if absent or null.
    pub(crate) fn optional_count(self, field: &'static str) -> Result<Option<usize>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if number <= LARGEST_DIMENSION => Ok(Some(number as usize)),
            _ => Err(Error::config(field, format!("an integer from 0 to {LARGEST_DIMENSION} is needed, got {value}"))),
        }
    }

    /// A finite number greater than zero.
    pub(crate) fn optional_positive(self, field: &'static str) -> Result<Option<f64>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() && number < 1e30 => Ok(Some(number)),
            _ => Err(Error::config(field, format!("a positive number is needed, got {value}"))),
        }
    }

    /// A finite number greater than zero that must be there.
    pub(crate) fn positive(self, field: &'static str) -> Result<f64> {
        self.optional_positive(field)?.ok_or_else(|| Error::config(field, "missing"))
    }

    /// A boolean, `default` if absent or null.
    pub(crate) fn flag(self, field: &'static str, default: bool) -> Result<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| Error::config(field, format!("true or false is needed, got {value}")))
            }
        }
    }

    /// A string, `None` if absent or null.
    pub(crate) fn text(self, field: &'static str) -> Result<Option<&'a str>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => {
                value.as_str().map(Some).ok_or_else(|| Error::config(field, format!("a string is needed, got {value}")))
            }
        }
    }

    /// A list of positive numbers, `None` if absent or null.
    pub(crate) fn positives(self, field: &'static str) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let number = |value: &Value| value.as_f64().filter(|number| *number > 0.0 && *number < 1e30);
        match value.as_array().and_then(|values| values.iter().map(number).collect()) {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(Error::config(field, "a list of positive numbers is needed")),
        }
    }

    /// A nested object, `None` if absent, null or empty.
    pub(crate) fn object(self, field: &'static str) -> Result<Option<Fields<'a>>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok((!object.is_empty()).then_some(Fields { object })),
            Some(value) => Err(Error::config(field, format!("an object is needed, got {value}"))),
        }
    }

    /// One token id or a list of them; empty if absent or null.
    pub(crate) fn tokens(self, field: &'static str) -> Result<Vec<u32>> {
        let id = |value: &Value| {
            value
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| Error::config(field, format!("a token id is needed, got {value}")))
        };
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_outside_of_their_range_are_named() {
        let value = json!({"a": 0, "b": -1, "c": 1.5, "d": "7", "e": u64::MAX, "f": 7, "g": null});
        let fields = Fields::new(&value).unwrap();
        for field in ["a", "b", "c", "d", "e", "g", "absent"] {
            let message = fields.dimension(field).unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
        assert_eq!(fields.dimension("f").unwrap(), 7);
    }

    #[test]
    fn token_ids_may_be_one_or_many() {
        let value = json!({"one": 3, "many": [1, 2], "bad": [1, "x"], "large": 4294967296_u64});
        let fields = Fields::new(&value).unwrap();
        assert_eq!(fields.tokens("one").unwrap(), [3]);
        assert_eq!(fields.tokens("many").unwrap(), [1, 2]);
        assert!(fields.tokens("absent").unwrap().is_empty());
        assert!(fields.tokens("bad").is_err());
        assert!(fields.tokens("large").is_err());
    }
}
