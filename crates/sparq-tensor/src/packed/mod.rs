//! Quantized checkpoints of others' formats, presented as dense ones.
//!
//! Where a directory's configuration announces compressed-tensors or GPTQ, the tensors that make up a quantized weight
//! (codes, scales, zero points, group indices) disappear from the list and `X.weight` stands for them; its values are
//! computed when it is read.

mod compressed_tensors;
mod config;
mod dequantize;
mod gptq;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

pub(crate) use self::dequantize::PackedWeight;
use crate::checkpoint::{Entry, Loaded, TensorInfo};
use crate::gguf::arrangement::Arrangement;
use crate::{DType, Error, Fault, Result, files};

/// How the integer codes of a quantized weight are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Packing {
    /// compressed-tensors, packed or one byte each. Values are computed in the type of the scales, as the format says.
    CompressedTensors {
        /// Bits per code.
        bits: u8,
    },
    /// GPTQ, version 1 or 2.
    Gptq {
        /// Bits per code.
        bits: u8,
    },
}

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
        return gptq::present(loaded, &config::Gptq::parse(&path, &quantization)?).map(|()| true);
    }
    Ok(false)
}

fn present_as(loaded: &mut Loaded, path: &Path, quantization: &Value) -> Result<bool> {
    let method = quantization.get("quant_method").and_then(Value::as_str);
    match method {
        Some("compressed-tensors") => {}
        None if quantization.get("config_groups").is_some() => {}
        Some("gptq") => {
            gptq::present(loaded, &config::Gptq::parse(path, quantization)?)?;
            return Ok(true);
        }
        other => {
            let value = other.unwrap_or("none").chars().take(100).collect();
            let what = "quant_method other than compressed-tensors and gptq".to_owned();
            return Err(Error::Unsupported { file: path.to_path_buf(), what, value });
        }
    }
    compressed_tensors::present(loaded, &config::CompressedTensors::parse(path, quantization)?)?;
    Ok(true)
}

/// `config.json` without what announces quantized weights.
pub(crate) fn strip(config: &mut Value) {
    if let Some(config) = config.as_object_mut() {
        config.remove("quantization_config");
        config.remove("compression_config");
    }
}

/// One of the tensors a quantized weight is made of.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) file: usize,
    pub(crate) range: Range<usize>,
    pub(crate) info: TensorInfo,
}

impl Part {
    fn fault(&self, fault: Fault) -> Error {
        Error::tensor(&self.info.file, &self.info.name, fault)
    }

    fn bad_shape(&self, reason: &'static str) -> Error {
        self.fault(Fault::BadShape { shape: self.info.shape.clone(), reason })
    }

    fn check_type(&self, allowed: &[DType], reason: &'static str) -> Result<()> {
        if allowed.contains(&self.info.dtype) {
            return Ok(());
        }
        Err(self.fault(Fault::UnsupportedType { what: reason, found: self.info.dtype.to_string() }))
    }

    fn bytes<'a>(&self, files: &'a [crate::mmap::MappedFile]) -> Result<&'a [u8]> {
        Ok(&files[self.file].checked_bytes()?[self.range.clone()])
    }
}

/// The types scales have.
const SCALE_TYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// Takes a tensor out of the list.
fn take(tensors: &mut BTreeMap<String, Entry>, name: &str) -> Option<Part> {
    tensors.remove(name).map(|entry| Part { file: entry.file, range: entry.range, info: entry.info })
}

/// As [`take`], for one that must be there.
fn take_needed(tensors: &mut BTreeMap<String, Entry>, name: &str, beside: &Part) -> Result<Part> {
    take(tensors, name).ok_or_else(|| Error::MissingTensor { file: beside.info.file.clone(), tensor: name.to_owned() })
}

/// Names of modules that have a tensor with this suffix.
fn modules(tensors: &BTreeMap<String, Entry>, suffix: &str) -> Vec<String> {
    tensors.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
}

/// Puts a weight into the list.
fn insert(loaded: &mut Loaded, module: &str, shape: [usize; 2], dtype: DType, packed: PackedWeight) -> Result<()> {
    let name = format!("{module}.weight");
    let codes = &packed.codes;
    let info = TensorInfo {
        name: name.clone(),
        shape: shape.to_vec(),
        dtype,
        bytes: packed.parts().map(|part| part.info.bytes).sum(),
        file: codes.info.file.clone(),
        packing: Some(packed.packing),
    };
    let (file, range) = (codes.file, codes.range.clone());
    let taken = codes.info.file.clone();
    let entry = Entry { info, file, range, arrangement: Arrangement::AsPresented, packed: Some(Box::new(packed)) };
    if loaded.tensors.insert(name.clone(), entry).is_some() {
        return Err(Error::tensor(&taken, &name, Fault::Duplicate { what: "the weight", name: name.clone() }));
    }
    Ok(())
}
