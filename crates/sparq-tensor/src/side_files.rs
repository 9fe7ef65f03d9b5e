//! The files of a checkpoint that are not weights.

use std::path::Path;

use serde_json::Value;

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

/// The side files of a Hugging Face directory, sorted by name, with the code that it brings along. `config.json` is that
/// of `config` if it `differs` from the file.
pub(crate) fn from_directory(directory: &Path, config: Option<&Value>, differs: bool) -> Result<Vec<SideFile>> {
    // The directory of a bare file name is the empty path, which cannot be listed.
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let has_code = config.is_some_and(names_code) || {
        let path = listed.join("tokenizer_config.json");
        // What it holds is not looked at but for this, and need not be JSON that can be read here.
        path.is_file()
            && serde_json::from_slice(&files::read_limited(&path, limits::JSON_BYTES)?).is_ok_and(|it| names_code(&it))
    };
    let mut side_files = Vec::new();
    for item in std::fs::read_dir(listed).map_err(Error::io("list", listed))? {
        let path = item.map_err(Error::io("list", listed))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // Files that auto_map names import others.
        let is_code = has_code && path.extension().is_some_and(|extension| extension == "py");
        let wanted = NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_code;
        if wanted && path.is_file() {
            let bytes = match config.filter(|_| differs && name == "config.json") {
                Some(config) => pretty(config),
                None => files::read_unmarked(&path, limits::SIDE_FILE_BYTES)?,
            };
            side_files.push(SideFile { name: name.to_owned(), bytes });
        }
    }
    side_files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(side_files)
}

/// Whether a configuration has classes of its own.
fn names_code(config: &Value) -> bool {
    config.get("auto_map").is_some_and(|map| !map.is_null())
}

fn pretty(value: &Value) -> Vec<u8> {
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
