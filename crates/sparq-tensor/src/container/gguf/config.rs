//! The fields of `config.json` that all models have.

use std::collections::BTreeMap;

use serde_json::Value;

use super::conventions::TOKEN_EMBEDDING;
use super::family::Family;
use super::metadata::Metadata;
use super::model::GgufModel;
use crate::entry::Entry;
use crate::{DType, Error, Result};

/// Makes the configuration.
pub(super) fn synthesise(metadata: &Metadata, family: &dyn Family, model: &GgufModel<'_>) -> Result<Value> {
    let tensors = model.tensors;
    let Some(embedding) = tensors.get(family.conventions().embedding()) else {
        let file = metadata.file().to_path_buf();
        return Err(Error::MissingTensor { file, tensor: TOKEN_EMBEDDING.to_owned() });
    };
    let mut config = family.config(model)?;
    config["tie_word_embeddings"] = (!tensors.contains_key("lm_head.weight")).into();
    config["vocab_size"] = embedding.info.shape[0].into();
    config["torch_dtype"] = torch_dtype(tensors).into();
    for (name, key) in [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ] {
        config[name] = metadata.integer(key)?.into();
    }
    Ok(config)
}

/// The type a dense copy needs in order to lose nothing that matters: quantized values (a half-precision scale times a
/// code) do not fit halves.
fn torch_dtype(tensors: &BTreeMap<String, Entry>) -> &'static str {
    let has = |wanted: fn(DType) -> bool| tensors.values().any(|entry| wanted(entry.info.dtype));
    if has(DType::is_block_quantized) {
        "float32"
    } else if has(|dtype| dtype == DType::BF16) {
        "bfloat16"
    } else if has(|dtype| dtype == DType::F16) {
        "float16"
    } else {
        "float32"
    }
}
