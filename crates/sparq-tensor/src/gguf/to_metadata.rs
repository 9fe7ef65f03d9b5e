//! GGUF metadata from a Hugging Face directory's `config.json` and tokenizer.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::key_values::KeyValues;
use super::names::{Architecture, SUPPORTED};
use super::{rope_scaling, to_tokenizer};
use crate::{Checkpoint, Error, Result};

/// What the writer of a file needs to know about the model.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) entries: KeyValues,
    pub(super) interleaves_heads: bool,
    pub(super) head_dimension: usize,
    /// Values of `rope_freqs.weight`, if the file has one.
    pub(super) rope_divisors: Option<Vec<f32>>,
}

/// Fields of `config.json`.
struct Fields<'a> {
    config: &'a Value,
    path: PathBuf,
}

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    fn optional(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|value| u32::try_from(value).ok()) {
            Some(value) if value > 0 => Ok(Some(value)),
            _ => Err(Error::InvalidMetadata {
                file: self.path.clone(),
                key: key.to_owned(),
                expected: "a positive number",
                found: value.to_string().chars().take(100).collect(),
            }),
        }
    }

    fn needed(&self, key: &str) -> Result<u32> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> Error {
        Error::MissingMetadata { file: self.path.clone(), key: key.to_owned() }
    }
}

/// Describes a checkpoint that is no GGUF file itself.
pub(super) fn describe(source: &Checkpoint, directory: &Path) -> Result<Description> {
    let fields = Fields { config: source.config()?, path: directory.join("config.json") };
    let model_type = fields.get("model_type").and_then(Value::as_str).ok_or_else(|| fields.missing("model_type"))?;
    let architecture = Architecture::from_model_type(model_type).ok_or_else(|| Error::UnsupportedArchitecture {
        file: fields.path.clone(),
        architecture: model_type.chars().take(100).collect(),
        supported: SUPPORTED,
    })?;
    let (hidden, heads) = (fields.needed("hidden_size")?, fields.needed("num_attention_heads")?);
    let head_dimension = fields.optional("head_dim")?.unwrap_or(hidden / heads.max(1));

    let mut entries = KeyValues::default();
    entries.string("general.architecture", architecture.name());
    entries.string("general.type", "model");
    let name = fields.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty());
    entries.string("general.name", name.unwrap_or(model_type));
    let key = |suffix: &str| format!("{}.{suffix}", architecture.name());
    entries.u32(&key("block_count"), fields.needed("num_hidden_layers")?);
    entries.u32(&key("context_length"), fields.needed("max_position_embeddings")?);
    entries.u32(&key("embedding_length"), hidden);
    entries.u32(&key("feed_forward_length"), fields.needed("intermediate_size")?);
    entries.u32(&key("attention.head_count"), heads);
    entries.u32(&key("attention.head_count_kv"), fields.optional("num_key_value_heads")?.unwrap_or(heads));
    if head_dimension.checked_mul(heads) != Some(hidden) {
        entries.u32(&key("attention.key_length"), head_dimension);
        entries.u32(&key("attention.value_length"), head_dimension);
    }
    let epsilon = fields.get("rms_norm_eps").and_then(Value::as_f64).ok_or_else(|| fields.missing("rms_norm_eps"))?;
    entries.f32(&key("attention.layer_norm_rms_epsilon"), epsilon as f32);
    entries.u32(&key("rope.dimension_count"), head_dimension);

    // Since transformers 5 the rotary settings are in an object of their own.
    let parameters = fields.get("rope_parameters");
    let theta = fields.get("rope_theta").or_else(|| parameters?.get("rope_theta")).and_then(Value::as_f64);
    let theta = theta.unwrap_or(10_000.0);
    entries.f32(&key("rope.freq_base"), theta as f32);
    let scaling = fields.get("rope_scaling").or(parameters);
    let written = rope_scaling::to_gguf(scaling, theta, head_dimension as usize)
        .map_err(|value| Error::Unsupported { file: fields.path.clone(), what: "rotary scaling".to_owned(), value })?;
    let rope_divisors = match written {
        rope_scaling::Written::Nothing => None,
        rope_scaling::Written::Keys(kind, factor, length) => {
            entries.string(&key("rope.scaling.type"), kind);
            entries.f32(&key("rope.scaling.factor"), factor);
            if let Some(length) = length {
                entries.u32(&key("rope.scaling.original_context_length"), length);
            }
            None
        }
        rope_scaling::Written::Divisors(divisors) => Some(divisors),
    };
    let uses_window = fields.get("use_sliding_window").and_then(Value::as_bool).unwrap_or(model_type == "mistral");
    if let Some(window) = fields.optional("sliding_window")?.filter(|_| uses_window) {
        entries.u32(&key("attention.sliding_window"), window);
    }
    let Some(embedding) = source.get("model.embed_tokens.weight").filter(|tensor| tensor.shape.len() == 2) else {
        let file = source.path().to_path_buf();
        return Err(Error::MissingTensor { file, tensor: "model.embed_tokens.weight".into() });
    };
    entries.u32(&key("vocab_size"), embedding.shape[0] as u32);
    to_tokenizer::describe(source, directory, embedding.shape[0], &mut entries)?;
    let interleaves_heads = architecture.interleaves_heads();
    Ok(Description { entries, interleaves_heads, head_dimension: head_dimension as usize, rope_divisors })
}
