//! Where each tensor of a safetensors file to be written goes.

use std::collections::BTreeSet;

use super::METADATA;
use crate::{DType, Error, Result, limits};

/// A tensor to be written: name, shape (outermost dimension first) and element type on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name, unique in the checkpoint.
    pub name: String,
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The element type on disk; none of the block-quantized ones.
    pub dtype: DType,
}

impl TensorSpec {
    /// A specification.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, dtype: DType) -> Self {
        Self { name: name.into(), shape: shape.into(), dtype }
    }
}

/// The first bytes of a file and the positions of its tensors.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Length field and JSON header, padded to a multiple of 8 bytes.
    pub(crate) header: Vec<u8>,
    /// Position in the file of each tensor, in the order of the specifications.
    pub(crate) positions: Vec<u64>,
    /// The size of the file.
    pub(crate) file_bytes: u64,
}

/// Lays out a file. Tensors with larger elements come first, which keeps every tensor aligned to its element size;
/// ties keep their order.
pub(crate) fn layout(specs: &[&TensorSpec]) -> Result<Layout> {
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(1usize << specs[i].dtype.block_bytes().trailing_zeros()));

    let mut header = format!("{{\"__metadata__\":{{\"{}\":\"{}\"}}", METADATA.0, METADATA.1);
    let mut offsets = vec![0u64; specs.len()];
    let mut at = 0u64;
    for i in order {
        let spec = specs[i];
        let dtype = spec
            .dtype
            .safetensors_name()
            .ok_or_else(|| invalid(spec, format!("safetensors has no type {}; plan F32, F16 or BF16", spec.dtype)))?;
        let end = at.checked_add(spec.bytes()?).ok_or_else(|| invalid(spec, "the file would be too large".into()))?;
        let name = serde_json::Value::from(spec.name.as_str());
        let shape = spec.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let entry = format!(",{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{at},{end}]}}");
        header.push_str(&entry);
        offsets[i] = at;
        at = end;
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let start = 8 + header.len() as u64;
    if let (true, Some(spec)) = (header.len() as u64 > limits::SAFETENSORS_HEADER_BYTES, specs.first()) {
        return Err(invalid(spec, "the header would be too long; use smaller shards".into()));
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    let positions = offsets.into_iter().map(|offset| start + offset).collect();
    Ok(Layout { header: bytes, positions, file_bytes: start + at })
}

/// Refuses names that occur twice or that the format reserves.
pub(crate) fn check_names(specs: &[TensorSpec]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for spec in specs {
        if spec.name == "__metadata__" {
            return Err(invalid(spec, "the name is reserved by the format".into()));
        }
        if !seen.insert(spec.name.as_str()) {
            return Err(invalid(spec, "the name occurs twice".into()));
        }
    }
    Ok(())
}

impl TensorSpec {
    /// The size in bytes.
    ///
    /// # Errors
    /// [`Error::InvalidPlan`] if it overflows, or blocks do not fill the rows.
    pub fn bytes(&self) -> Result<u64> {
        self.dtype.checked_bytes(&self.shape).map_err(|fault| invalid(self, fault.to_string()))
    }
}

fn invalid(spec: &TensorSpec, reason: String) -> Error {
    Error::InvalidPlan { tensor: spec.name.clone(), reason }
}
