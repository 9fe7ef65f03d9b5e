use crate::FloatType;
use sparq_tensor::WriteOptions;

/// What all formats are asked alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportSettings {
    /// Number type of what is not stored as codes, and of scales where the format leaves the choice.
    pub float_type: FloatType,
    /// Most bytes of tensors in one file, for formats that have shards.
    pub max_shard_bytes: u64,
    /// Replace an existing checkpoint.
    pub overwrite: bool,
}

impl Default for ExportSettings {
    fn default() -> Self {
        let options = WriteOptions::default();
        Self { float_type: FloatType::Source, max_shard_bytes: options.max_shard_bytes, overwrite: false }
    }
}

impl ExportSettings {
    pub(crate) fn write_options(&self) -> WriteOptions {
        WriteOptions { max_shard_bytes: self.max_shard_bytes, overwrite: self.overwrite }
    }
}
