//! Reading the numbers, strings and values of a GGUF file, each checked against what is left.

use super::value::{Value, ValueType};
use crate::{Fault, limits};

/// A position in the file's bytes. Every read is checked against what is left.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// Refuses counts that are absurd or cannot fit what is left of the file.
    pub(super) fn check_count(
        &self,
        what: &'static str,
        value: u64,
        limit: u64,
        minimal_size: u64,
    ) -> Result<(), Fault> {
        if value > limit {
            return Err(Fault::TooLarge { what, value, limit });
        }
        let needed = value.saturating_mul(minimal_size);
        if needed > self.left() { Err(Fault::Truncated { what, needed, available: self.left() }) } else { Ok(()) }
    }

    pub(super) fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], Fault> {
        if count > self.left() {
            return Err(Fault::Truncated { what, needed: count, available: self.left() });
        }
        let taken = &self.bytes[self.at..self.at + count as usize];
        self.at += count as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Fault> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Fault> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn string(&mut self, what: &'static str, limit: u64) -> Result<&'a str, Fault> {
        let length = self.u64(what)?;
        if length > limit {
            return Err(Fault::TooLarge { what, value: length, limit });
        }
        std::str::from_utf8(self.take(length, what)?).map_err(|_| Fault::NotUtf8 { what })
    }

    pub(super) fn value_type(&mut self, what: &'static str) -> Result<ValueType, Fault> {
        let number = self.u32(what)?;
        ValueType::from_number(number).ok_or_else(|| Fault::UnknownType { what, found: number.to_string() })
    }

    /// Reads a value; of an array only the position is kept.
    pub(super) fn value(&mut self, value_type: ValueType) -> Result<Value, Fault> {
        const WHAT: &str = "a metadata value";
        Ok(match value_type {
            ValueType::U8 => Value::U8(self.array::<1>(WHAT)?[0]),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array(WHAT)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array(WHAT)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array(WHAT)?)),
            ValueType::U32 => Value::U32(self.u32(WHAT)?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array(WHAT)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array(WHAT)?)),
            ValueType::U64 => Value::U64(self.u64(WHAT)?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array(WHAT)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array(WHAT)?)),
            ValueType::Bool => match self.array::<1>(WHAT)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(Fault::BadValue { what: "a metadata flag", value: other.to_string() }),
            },
            ValueType::String => Value::String(self.string(WHAT, limits::GGUF_STRING_BYTES)?.to_owned()),
            ValueType::Array => {
                let start = self.at;
                let (element, count) = self.skip_array(limits::GGUF_NESTING)?;
                Value::Array { element, count, range: start + 12..self.at }
            }
        })
    }

    /// Walks over an array including its element type and count, checking it.
    fn skip_array(&mut self, nesting: u32) -> Result<(ValueType, u64), Fault> {
        const WHAT: &str = "an array";
        let element = self.value_type("an array's elements")?;
        let count = self.u64(WHAT)?;
        self.check_count(WHAT, count, limits::GGUF_ARRAY_ELEMENTS, element.minimal_size())?;
        match element {
            ValueType::String => {
                for _ in 0..count {
                    self.string("a string in an array", limits::GGUF_STRING_BYTES)?;
                }
            }
            ValueType::Array => {
                let Some(nesting) = nesting.checked_sub(1) else {
                    let limit = u64::from(limits::GGUF_NESTING);
                    return Err(Fault::TooLarge { what: "the nesting of arrays", value: limit + 1, limit });
                };
                for _ in 0..count {
                    self.skip_array(nesting)?;
                }
            }
            _ => {
                self.take(count.saturating_mul(element.minimal_size()), WHAT)?;
            }
        }
        Ok((element, count))
    }
}
