//! config.json of an export.

use crate::float_type::torch_name;
use crate::{Error, Result};
use serde_json::Value;
use sparq_tensor::{Checkpoint, CheckpointWriter, DType};
use std::collections::BTreeSet;

/// Copies the source's side files; config.json gets the number type and, if given, a quantization_config. It stays
/// byte-equal unless something changes.
pub(crate) fn write_side_files(
    writer: &mut CheckpointWriter,
    source: &Checkpoint,
    types: &BTreeSet<DType>,
    quantization: Option<&Value>,
) -> Result<()> {
    let mut has_config = false;
    for file in source.side_files()? {
        let is_config = file.name == "config.json";
        has_config |= is_config;
        let bytes = if is_config { config(file.bytes, types, quantization)? } else { file.bytes };
        writer.write_side_file(&file.name, &bytes)?;
    }
    if quantization.is_some() && !has_config {
        let reason = "it is missing, and the format's settings belong into it".to_owned();
        return Err(Error::Config { reason });
    }
    Ok(())
}

fn config(bytes: Vec<u8>, types: &BTreeSet<DType>, quantization: Option<&Value>) -> Result<Vec<u8>> {
    let bad = |error: serde_json::Error| Error::Config { reason: error.to_string() };
    let mut config: Value = serde_json::from_slice(&bytes).map_err(bad)?;
    let mut changed = false;
    if let (Some(name), 1) = (types.first().copied().and_then(torch_name), types.len()) {
        for key in ["torch_dtype", "dtype"] {
            if let Some(value) = config.get_mut(key).filter(|value| value.is_string() && *value != name) {
                *value = Value::from(name);
                changed = true;
            }
        }
    }
    if let Some(quantization) = quantization {
        let Some(object) = config.as_object_mut() else {
            return Err(Error::Config { reason: "it is not an object".to_owned() });
        };
        object.insert("quantization_config".into(), quantization.clone());
        changed = true;
    }
    if !changed {
        return Ok(bytes);
    }
    let mut bytes = serde_json::to_vec_pretty(&config).map_err(bad)?;
    bytes.push(b'\n');
    Ok(bytes)
}
