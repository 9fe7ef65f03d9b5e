//! GGUF metadata from a Hugging Face directory's `config.json` and tokenizer.

use std::path::Path;

use serde_json::Value;

use super::conventions::TOKEN_EMBEDDING;
use super::family::{Family, Layout, architectures, of_model_type};
use super::fields::ConfigFields;
use super::key_values::{Entries, KeyValues};
use super::names::to_gguf;
use super::to_tokenizer;
use crate::{Checkpoint, Error, Result, TensorInfo};

/// What the writer of a file needs to know about the model.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) entries: KeyValues,
    pub(super) family: &'static dyn Family,
    pub(super) layout: Layout,
}

/// Describes a checkpoint that is no GGUF file itself.
pub(super) fn describe(source: &Checkpoint, directory: &Path) -> Result<Description> {
    let fields = ConfigFields { config: source.config()?, path: directory.join("config.json") };
    let model_type = fields.get("model_type").and_then(Value::as_str).ok_or_else(|| fields.missing("model_type"))?;
    let families = source.families();
    if families.is_empty() {
        return Err(Error::NoFamilies { path: source.path().to_path_buf() });
    }
    let family = of_model_type(families, model_type).ok_or_else(|| Error::UnsupportedArchitecture {
        file: fields.path.clone(),
        architecture: model_type.chars().take(100).collect(),
        supported: architectures(families),
    })?;
    let conventions = family.conventions();
    let mut entries = KeyValues::default();
    entries.string("general.architecture", conventions.architecture);
    entries.string("general.type", "model");
    let name = fields.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty());
    entries.string("general.name", name.unwrap_or(model_type));
    let layout = family.describe(&fields, &mut Entries { entries: &mut entries, prefix: conventions.architecture })?;
    let is_embedding = |info: &&TensorInfo| {
        let name = to_gguf(family, &info.name).map(|(name, ..)| name);
        name.as_deref() == Some(TOKEN_EMBEDDING) && info.shape.len() == 2
    };
    let Some(embedding) = source.tensors().find(is_embedding) else {
        let file = source.path().to_path_buf();
        return Err(Error::MissingTensor { file, tensor: conventions.embedding().to_owned() });
    };
    entries.u32(&format!("{}.vocab_size", conventions.architecture), embedding.shape[0] as u32);
    to_tokenizer::describe(source, directory, embedding.shape[0], &mut entries)?;
    Ok(Description { entries, family, layout })
}
