//! What a configuration says about quantized weights.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::packing::gptq::GptqVersion;
use crate::{Error, Result};

fn unsupported(path: &Path, what: &str, value: &Value) -> Error {
    let value = value.to_string().chars().take(100).collect();
    Error::Unsupported { file: path.to_path_buf(), what: what.to_owned(), value }
}

fn invalid(path: &Path, key: &str, expected: &'static str, found: &Value) -> Error {
    let found = found.to_string().chars().take(100).collect();
    Error::InvalidMetadata { file: path.to_path_buf(), key: key.to_owned(), expected, found }
}

/// A value that is there and says something.
fn get<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Grids of a compressed-tensors checkpoint.
#[derive(Debug)]
pub(super) struct CompressedTensors {
    pub(super) path: PathBuf,
    /// Which module has which is found by what fits its tensors: patterns over names need not be understood.
    pub(super) grids: Vec<Grid>,
}

/// One group of a compressed-tensors configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) bits: u32,
    /// Channels in a group, if the weights of a row are grouped.
    pub(super) group_size: Option<usize>,
}

impl CompressedTensors {
    pub(super) fn parse(path: &Path, config: &Value) -> Result<Self> {
        const FORMATS: [&str; 5] = ["pack-quantized", "int-quantized", "naive-quantized", "mixed-precision", "dense"];
        if let Some(format) = get(config, "format")
            && !format.as_str().is_some_and(|format| FORMATS.contains(&format))
        {
            return Err(unsupported(path, "the compressed-tensors format", format));
        }
        // Rotated or sparsely stored weights are not what their codes say.
        if let Some(transform) = get(config, "transform_config").filter(|value| !is_empty(value)) {
            return Err(unsupported(path, "transform_config", transform));
        }
        let sparsity = get(config, "sparsity_config").filter(|value| !is_empty(value));
        if let Some(sparsity) = sparsity.filter(|value| get(value, "format").is_some_and(|format| format != "dense")) {
            return Err(unsupported(path, "a sparse container", sparsity));
        }
        let mut grids = Vec::new();
        if let Some(groups) = get(config, "config_groups") {
            let object = groups.as_object();
            let object = object.ok_or_else(|| invalid(path, "config_groups", "an object", groups))?;
            for (name, group) in object {
                let grid = Grid::parse(path, name, group)?;
                grids.extend(grid.filter(|grid| !grids.contains(grid)));
            }
        }
        Ok(Self { path: path.to_path_buf(), grids })
    }
}

impl Grid {
    /// `None` if the group leaves weights alone.
    fn parse(path: &Path, name: &str, group: &Value) -> Result<Option<Self>> {
        // A preset stands in for a group: "W4A16": ["Linear"].
        if group.is_array() {
            return Self::preset(name).map(Some).ok_or_else(|| unsupported(path, "the preset", &Value::from(name)));
        }
        let Some(weights) = get(group, "weights") else { return Ok(None) };
        if get(weights, "type").is_some_and(|kind| kind != "int") {
            return Err(unsupported(path, "weights of type", &weights["type"]));
        }
        let bits = match get(weights, "num_bits") {
            None => 8,
            Some(bits) => match bits.as_u64() {
                Some(bits @ 1..=8) => bits as u32,
                _ => return Err(invalid(path, "num_bits", "1 to 8", bits)),
            },
        };
        let group_size = match get(weights, "group_size") {
            None => None,
            Some(size) => match size.as_i64() {
                Some(-1) => None,
                Some(size) if size > 0 => Some(size as usize),
                _ => return Err(invalid(path, "group_size", "a positive number or -1", size)),
            },
        };
        Ok(Some(Self { bits, group_size }))
    }

    /// Presets of integer weights: `W4A16`, `W8A8`, `W4A16_ASYM`, `INT8`.
    fn preset(name: &str) -> Option<Self> {
        if name == "INT8" {
            return Some(Self { bits: 8, group_size: None });
        }
        let (bits, rest) = name.strip_prefix('W')?.split_once('A')?;
        let bits = bits.parse().ok().filter(|bits| (1..=8).contains(bits))?;
        let is_known = matches!(rest.trim_end_matches("_ASYM"), "16" | "8" | "4");
        is_known.then_some(Self { bits, group_size: (bits < 8).then_some(128) })
    }
}

/// Settings of a GPTQ checkpoint.
#[derive(Debug)]
pub(super) struct Gptq {
    pub(super) path: PathBuf,
    pub(super) bits: u32,
    /// None: one group a row.
    pub(super) group_size: Option<usize>,
    pub(super) symmetric: bool,
    pub(super) version: GptqVersion,
    /// Whether modules may have settings of their own.
    pub(super) has_exceptions: bool,
}

impl Gptq {
    pub(super) fn parse(path: &Path, config: &Value) -> Result<Self> {
        let missing = |key: &str| Error::MissingMetadata { file: path.to_path_buf(), key: key.to_owned() };
        let bits = get(config, "bits").ok_or_else(|| missing("bits"))?;
        let bits = match bits.as_u64() {
            Some(bits @ (2 | 3 | 4 | 8)) => bits as u32,
            _ => return Err(invalid(path, "bits", "2, 3, 4 or 8", bits)),
        };
        let group_size = match get(config, "group_size") {
            None => return Err(missing("group_size")),
            Some(size) => match size.as_i64() {
                Some(-1) => None,
                Some(size) if size > 0 => Some(size as usize),
                _ => return Err(invalid(path, "group_size", "a positive number or -1", size)),
            },
        };
        let format = get(config, "checkpoint_format").or_else(|| get(config, "format"));
        let version = match format.map(|format| (format, format.as_str())) {
            None | Some((_, Some("gptq"))) => GptqVersion::V1,
            Some((_, Some("gptq_v2"))) => GptqVersion::V2,
            Some((format, _)) => return Err(unsupported(path, "checkpoint_format", format)),
        };
        if let Some(pack) = get(config, "pack_dtype").filter(|pack| *pack != "int32" && *pack != "torch.int32") {
            return Err(unsupported(path, "pack_dtype", pack));
        }
        let symmetric = get(config, "sym").and_then(Value::as_bool).unwrap_or(true);
        let has_exceptions = get(config, "dynamic").is_some_and(|value| !is_empty(value));
        Ok(Self { path: path.to_path_buf(), bits, group_size, symmetric, version, has_exceptions })
    }
}
