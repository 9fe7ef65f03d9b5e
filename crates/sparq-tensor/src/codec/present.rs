//! Quantized checkpoints of others' formats, presented as dense ones.
//!
//! Where a directory's configuration announces compressed-tensors or GPTQ, the tensors that make up a quantized weight
//! (codes, scales, zero points, group indices) disappear from the list and `X.weight` stands for them; its values are
//! computed when it is read.

use std::path::Path;

use serde_json::Value;

use super::{coded, compressed_tensors, gptq};
use crate::entry::Loaded;
use crate::{Error, Result, files};

/// Replaces the parts of quantized weights in `loaded` by the weights. Returns whether the configuration announced any.
pub(crate) fn present(loaded: &mut Loaded, directory: &Path, config: Option<&Value>) -> Result<bool> {
    let path = directory.join("config.json");
    let inside = config.and_then(|config| {
        let get = |key| config.get(key).filter(|value| !value.is_null());
        get("quantization_config").or_else(|| get("compression_config"))
    });
    if let Some(quantization) = inside {
        return present_as(loaded, &path, quantization);
    }
    // Old GPTQ checkpoints keep their settings in a file of their own.
    let path = directory.join("quantize_config.json");
    if loaded.tensors.keys().any(|name| name.ends_with(".qweight")) && path.exists() {
        let quantization = files::read_json(&path, "quantize_config.json")?;
        return gptq::present(loaded, &path, &quantization).map(|()| true);
    }
    Ok(false)
}

fn present_as(loaded: &mut Loaded, path: &Path, quantization: &Value) -> Result<bool> {
    let method = quantization.get("quant_method").and_then(Value::as_str);
    match method {
        Some("compressed-tensors") => {}
        Some(coded::METHOD) => return coded::present(loaded, path, quantization).map(|()| true),
        None if quantization.get("config_groups").is_some() => {}
        // AutoRound's own format with GPTQ's packing.
        Some("auto-round") if quantization.get("packing_format").is_some_and(|name| name == "auto_round:auto_gptq") => {
            return gptq::present(loaded, path, quantization).map(|()| true);
        }
        Some("gptq") => {
            return gptq::present(loaded, path, quantization).map(|()| true);
        }
        other => {
            let value = other.unwrap_or("none").chars().take(100).collect();
            let what = "quant_method other than compressed-tensors, gptq and sparq".to_owned();
            return Err(Error::Unsupported { file: path.to_path_buf(), what, value });
        }
    }
    compressed_tensors::present(loaded, path, quantization).map(|()| true)
}

/// `config.json` without what announces quantized weights.
pub(crate) fn strip(config: &mut Value) {
    if let Some(config) = config.as_object_mut() {
        config.remove("quantization_config");
        config.remove("compression_config");
    }
}
