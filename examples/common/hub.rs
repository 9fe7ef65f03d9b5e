//! Models by their name on the Hugging Face Hub, with the feature `hub`.

use anyhow::Result;
use std::path::{Path, PathBuf};

/// The directory of the model that `--model` names: the path itself if it exists, otherwise the cached copy of
/// `org/name` on the Hub, which is downloaded first if necessary.
///
/// # Errors
/// If there is neither, or the Hub cannot be reached.
pub(crate) fn resolve(model: &Path) -> Result<PathBuf> {
    match hub_id(model) {
        Some(id) if !model.exists() => download(&id),
        _ => Ok(model.to_path_buf()),
    }
}

/// `org/name`, if the path can be one: two plain names and no ending of a weight file.
fn hub_id(model: &Path) -> Option<String> {
    let text = model.to_str()?;
    let (organisation, name) = text.split_once('/')?;
    let is_plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    let is_file = [".gguf", ".safetensors"].iter().any(|ending| name.to_ascii_lowercase().ends_with(ending));
    (is_plain(organisation) && is_plain(name) && !is_file).then(|| text.to_owned())
}

#[cfg(not(feature = "hub"))]
fn download(id: &str) -> Result<PathBuf> {
    anyhow::bail!(
        "there is no file or directory {id}; to fetch {id} from the Hugging Face Hub, build with --features hub, or \
         download it by other means and pass its directory: --model path/to/directory"
    )
}

#[cfg(feature = "hub")]
fn download(id: &str) -> Result<PathBuf> {
    use anyhow::Context;
    use hf_hub::api::sync::ApiBuilder;
    let help = || {
        format!(
            "cannot fetch {id} from the Hugging Face Hub; without a connection, pass the directory of a model that is on \
             this machine: --model path/to/directory"
        )
    };
    // The cache and the token are where Python's client has them.
    let api = ApiBuilder::from_env().with_progress(true).build().with_context(help)?;
    let repository = api.model(id.to_owned());
    let files = repository.info().with_context(help)?.siblings;
    let mut directory = None;
    for file in files.iter().map(|file| file.rfilename.as_str()).filter(|name| is_needed(name)) {
        let path = repository.get(file).with_context(help)?;
        directory = path.parent().map(Path::to_path_buf);
    }
    directory.with_context(|| format!("{id} has no safetensors weights; choose another model"))
}

/// Whether a file of a repository is one that a checkpoint is read from.
#[cfg_attr(not(feature = "hub"), allow(dead_code, reason = "the tests of every build cover it"))]
fn is_needed(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    // Weights lie in model.safetensors or its shards; others of a repository are the same in another layout.
    let is_other = ending == Some("safetensors") && !name.starts_with("model");
    // Older repositories have no tokenizer.json.
    let is_tokenizer = matches!(name, "merges.txt" | "tokenizer.model");
    !name.contains('/') && !is_other && (is_tokenizer || matches!(ending, Some("safetensors" | "json" | "jinja")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_names() {
        assert_eq!(hub_id(Path::new("HuggingFaceTB/SmolLM2-135M")).as_deref(), Some("HuggingFaceTB/SmolLM2-135M"));
        for path in ["model", "./model", "../a", "/a/b", "a/b/c", "a/b.gguf", "a/", "a/b c", "a/model.safetensors"] {
            assert_eq!(hub_id(Path::new(path)), None, "{path}");
        }
        assert!(is_needed("model-00001-of-00002.safetensors") && is_needed("config.json") && is_needed("merges.txt"));
        assert!(!is_needed("consolidated.safetensors"));
        assert!(!is_needed("onnx/model.safetensors") && !is_needed("pytorch_model.bin") && !is_needed("README.md"));
    }
}
