//! The files of a checkpoint that are not weights.

use std::path::Path;

use crate::codec::present;
use crate::container::gguf::read::Synthesised;
use crate::{Error, Result, files, limits};

/// Files carried over whole; names beginning with one of [`PREFIXES`] as well.
const NAMES: [&str; 7] = [
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
];
const PREFIXES: [&str; 4] = ["tokenizer", "chat_template", "spiece.model", "sentencepiece"];

/// A file beside the weights, to be carried over unchanged but for a byte order mark.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SideFile {
    /// A plain file name.
    pub name: String,
    /// The contents.
    pub bytes: Vec<u8>,
}

/// The side files of a Hugging Face directory, sorted by name. If quantized weights are presented as dense ones,
/// `config.json` does not mention quantization.
pub(crate) fn from_directory(directory: &Path, presents_packed: bool) -> Result<Vec<SideFile>> {
    // The directory of a bare file name is the empty path, which cannot be listed.
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let mut side_files = Vec::new();
    for item in std::fs::read_dir(listed).map_err(Error::io("list", listed))? {
        let path = item.map_err(Error::io("list", listed))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let wanted = NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if wanted && path.is_file() {
            let bytes = if presents_packed && name == "config.json" {
                let mut config = files::read_json(&path, "config.json")?;
                present::strip(&mut config);
                pretty(&config)
            } else {
                files::read_unmarked(&path, limits::SIDE_FILE_BYTES)?
            };
            side_files.push(SideFile { name: name.to_owned(), bytes });
        }
    }
    side_files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(side_files)
}

fn pretty(value: &serde_json::Value) -> Vec<u8> {
    let mut text = format!("{value:#}");
    text.push('\n');
    text.into_bytes()
}

/// The side files made from GGUF metadata, sorted by name. A tokenizer without an equivalent is left out: the weights
/// are usable without.
pub(crate) fn from_gguf(synthesised: &Synthesised, file: &[u8]) -> Result<Vec<SideFile>> {
    let mut side_files = vec![SideFile { name: "config.json".into(), bytes: pretty(&synthesised.config) }];
    let tokenizer = match synthesised.tokenizer_json(file) {
        Err(Error::Unsupported { .. }) => None,
        other => other?,
    };
    if let Some(bytes) = tokenizer {
        side_files.push(SideFile { name: "tokenizer.json".into(), bytes });
        if let Some(config) = synthesised.tokenizer_config(file)? {
            side_files.push(SideFile { name: "tokenizer_config.json".into(), bytes: pretty(&config) });
        }
    }
    Ok(side_files)
}
