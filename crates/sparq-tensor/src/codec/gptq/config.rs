//! What a configuration says about a GPTQ checkpoint.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::GptqVersion;
use crate::codec::settings::{get, group_size, invalid, is_empty, unsupported};
use crate::{Error, Result};

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
        let size = get(config, "group_size").ok_or_else(|| missing("group_size"))?;
        let group_size = group_size(path, size)?;
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
        // The second is AutoRound's name for it.
        let has_exceptions =
            ["dynamic", "extra_config"].into_iter().any(|key| get(config, key).is_some_and(|value| !is_empty(value)));
        Ok(Self { path: path.to_path_buf(), bits, group_size, symmetric, version, has_exceptions })
    }
}
