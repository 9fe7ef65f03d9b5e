//! What a configuration says about the grids of a compressed-tensors checkpoint.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Result;
use crate::codec::settings::{get, group_size, invalid, is_empty, unsupported};

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
        let size = get(weights, "group_size").map(|size| group_size(path, size)).transpose()?;
        Ok(Some(Self { bits, group_size: size.flatten() }))
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
