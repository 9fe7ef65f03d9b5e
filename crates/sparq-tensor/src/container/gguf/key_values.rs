//! Metadata on its way into a GGUF file.

use super::metadata::Metadata;
use super::value::{Value, ValueType};

/// Serialised metadata entries.
#[derive(Debug, Default)]
pub(super) struct KeyValues {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

/// Metadata below an architecture's prefix on its way into a GGUF file: `u32("block_count", 2)` adds `llama.block_count`.
#[derive(Debug)]
pub struct Entries<'a> {
    pub(super) entries: &'a mut KeyValues,
    pub(super) prefix: &'static str,
}

impl Entries<'_> {
    /// Adds an unsigned integer.
    pub fn u32(&mut self, suffix: &str, value: u32) {
        self.entries.u32(&format!("{}.{suffix}", self.prefix), value);
    }

    /// Adds a float.
    pub fn f32(&mut self, suffix: &str, value: f32) {
        self.entries.f32(&format!("{}.{suffix}", self.prefix), value);
    }

    /// Adds a string.
    pub fn string(&mut self, suffix: &str, value: &str) {
        self.entries.string(&format!("{}.{suffix}", self.prefix), value);
    }
}

impl KeyValues {
    /// The bytes of a file of so many tensors up to their descriptions, which [`put_tensor`] adds.
    pub(super) fn into_header(self, tensors: usize) -> Vec<u8> {
        let mut header = b"GGUF".to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend((tensors as u64).to_le_bytes());
        header.extend(self.count.to_le_bytes());
        header.extend(self.bytes);
        header
    }

    fn entry(&mut self, key: &str, value_type: ValueType) -> &mut Vec<u8> {
        put_string(&mut self.bytes, key);
        self.bytes.extend(value_type.number().to_le_bytes());
        self.count += 1;
        &mut self.bytes
    }

    pub(super) fn u16(&mut self, key: &str, value: u16) {
        self.entry(key, ValueType::U16).extend(value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, key: &str, value: i32) {
        self.entry(key, ValueType::I32).extend(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, key: &str, value: u32) {
        self.entry(key, ValueType::U32).extend(value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, key: &str, value: f32) {
        self.entry(key, ValueType::F32).extend(value.to_le_bytes());
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, ValueType::Bool).push(u8::from(value));
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        put_string(self.entry(key, ValueType::String), value);
    }

    pub(super) fn strings<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a str>) {
        let out = self.array(key, ValueType::String, values.len());
        values.for_each(|value| put_string(out, value));
    }

    pub(super) fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, ValueType::I32, values.len()).extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    pub(super) fn f32s(&mut self, key: &str, values: &[f32]) {
        self.array(key, ValueType::F32, values.len()).extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn array(&mut self, key: &str, element: ValueType, count: usize) -> &mut Vec<u8> {
        let out = self.entry(key, ValueType::Array);
        out.extend(element.number().to_le_bytes());
        out.extend((count as u64).to_le_bytes());
        out
    }

    /// Copies the entries that `wanted` names. `file` is the whole file they come from.
    pub(super) fn copy(&mut self, metadata: &Metadata, file: &[u8], wanted: impl Fn(&str) -> bool) {
        for (key, value) in metadata.entries().filter(|(key, _)| wanted(key)) {
            let out = self.entry(key, value.value_type());
            match value {
                Value::U8(n) => out.push(*n),
                Value::I8(n) => out.extend(n.to_le_bytes()),
                Value::U16(n) => out.extend(n.to_le_bytes()),
                Value::I16(n) => out.extend(n.to_le_bytes()),
                Value::U32(n) => out.extend(n.to_le_bytes()),
                Value::I32(n) => out.extend(n.to_le_bytes()),
                Value::U64(n) => out.extend(n.to_le_bytes()),
                Value::I64(n) => out.extend(n.to_le_bytes()),
                Value::F32(x) => out.extend(x.to_le_bytes()),
                Value::F64(x) => out.extend(x.to_le_bytes()),
                Value::Bool(flag) => out.push(u8::from(*flag)),
                Value::String(text) => put_string(out, text),
                Value::Array { element, count, range } => {
                    out.extend(element.number().to_le_bytes());
                    out.extend(count.to_le_bytes());
                    out.extend(file.get(range.clone()).unwrap_or_default());
                }
            }
        }
    }
}

/// Describes a tensor: its `shape` with the innermost dimension last, and where it starts in the data section.
pub(super) fn put_tensor(out: &mut Vec<u8>, name: &str, shape: &[usize], ggml_type: u32, offset: u64) {
    put_string(out, name);
    out.extend((shape.len() as u32).to_le_bytes());
    out.extend(shape.iter().rev().flat_map(|&dimension| (dimension as u64).to_le_bytes()));
    out.extend(ggml_type.to_le_bytes());
    out.extend(offset.to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
