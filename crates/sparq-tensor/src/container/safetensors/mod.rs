//! The safetensors format: one file's header, and directories of files.

pub(crate) mod directory;
mod explain;
pub(crate) mod header;
pub(crate) mod layout;
pub(crate) mod prefix;
pub(crate) mod single_file;
pub(crate) mod writer;

/// Metadata every file written here carries; some readers refuse files without it.
pub(crate) const METADATA: (&str, &str) = ("format", "pt");
/// The only weight file of an unsharded checkpoint.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// The index of a sharded checkpoint.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
