//! `config.json` from GGUF metadata, in the style of transformers 4.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::metadata::Metadata;
use super::names::Architecture;
use super::rope_scaling;
use crate::checkpoint::Entry;
use crate::{DType, Error, Result, limits};

/// The model's sizes as far as reading its tensors needs them.
#[derive(Debug)]
pub(crate) struct Dimensions {
    pub(crate) blocks: u64,
    pub(crate) hidden: u64,
    pub(crate) heads: u64,
    pub(crate) key_value_heads: u64,
    pub(crate) head_dimension: usize,
}

/// Keys below the architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: Architecture,
}

impl Keys<'_> {
    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture.name())
    }

    fn integer(&self, suffix: &str) -> Result<Option<u64>> {
        self.metadata.integer(&self.key(suffix))
    }

    /// An integer between 1 and 2³¹ − 1.
    fn size(&self, suffix: &str) -> Result<u64> {
        let key = self.key(suffix);
        let value = self.metadata.integer(&key)?.ok_or_else(|| self.metadata.missing(&key))?;
        self.check_size(&key, value)
    }

    fn check_size(&self, key: &str, value: u64) -> Result<u64> {
        if (1..=i32::MAX as u64).contains(&value) {
            return Ok(value);
        }
        Err(Error::InvalidMetadata {
            file: self.metadata.file().to_path_buf(),
            key: key.to_owned(),
            expected: "a number between 1 and 2147483647",
            found: value.to_string(),
        })
    }
}

impl Dimensions {
    pub(crate) fn from_metadata(metadata: &Metadata, architecture: Architecture) -> Result<Self> {
        let keys = Keys { metadata, architecture };
        let blocks = keys.size("block_count")?;
        if blocks > limits::BLOCKS {
            return Err(metadata.unsupported("the number of transformer blocks", blocks.to_string()));
        }
        if let Some(experts) = keys.integer("expert_count")?.filter(|&n| n > 0) {
            return Err(metadata.unsupported("a mixture of experts", format!("{experts} experts")));
        }
        let hidden = keys.size("embedding_length")?;
        let heads = keys.size("attention.head_count")?;
        let key_value_heads = match keys.integer("attention.head_count_kv")? {
            Some(value) => keys.check_size(&keys.key("attention.head_count_kv"), value)?,
            None => heads,
        };
        let head_dimension = match keys.integer("attention.key_length")? {
            Some(value) => keys.check_size(&keys.key("attention.key_length"), value)?,
            None if hidden % heads == 0 => hidden / heads,
            None => return Err(metadata.missing(&keys.key("attention.key_length"))),
        };
        if let Some(length) = keys.integer("attention.value_length")?.filter(|&n| n != head_dimension) {
            let value = format!("{head_dimension} and {length}");
            return Err(metadata.unsupported("attention with keys and values of different size", value));
        }
        if let Some(rotated) = keys.integer("rope.dimension_count")?.filter(|&n| n != head_dimension) {
            let value = format!("{rotated} of {head_dimension} elements");
            return Err(metadata.unsupported("a rotary embedding of a part of each head", value));
        }
        Ok(Self { blocks, hidden, heads, key_value_heads, head_dimension: head_dimension as usize })
    }
}

/// Makes the configuration. `tensors` by Hugging Face name; `rope_factors` are the values of `rope_freqs.weight`.
pub(crate) fn synthesise(
    metadata: &Metadata,
    architecture: Architecture,
    dimensions: &Dimensions,
    tensors: &BTreeMap<String, Entry>,
    rope_factors: Option<&[f32]>,
) -> Result<Value> {
    let keys = Keys { metadata, architecture };
    let has = |name: &str| tensors.contains_key(name);
    let Some(embedding) = tensors.get("model.embed_tokens.weight") else {
        return Err(Error::MissingTensor {
            file: metadata.file().to_path_buf(),
            tensor: "token_embd.weight".to_owned(),
        });
    };
    let epsilon_key = keys.key("attention.layer_norm_rms_epsilon");
    let epsilon = metadata.float(&epsilon_key)?.ok_or_else(|| metadata.missing(&epsilon_key))?;
    let theta = metadata.float(&keys.key("rope.freq_base"))?.unwrap_or(10_000.0);
    let sliding_window = keys.integer("attention.sliding_window")?;
    let (model_type, class) = match architecture {
        // Hugging Face's Llama has no sliding window; Mistral is the same model with one.
        Architecture::Llama if sliding_window.is_some() => ("mistral", "MistralForCausalLM"),
        Architecture::Llama => ("llama", "LlamaForCausalLM"),
        Architecture::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        Architecture::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
    };
    let mut config = json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": dimensions.hidden,
        "intermediate_size": keys.size("feed_forward_length")?,
        "num_hidden_layers": dimensions.blocks,
        "num_attention_heads": dimensions.heads,
        "num_key_value_heads": dimensions.key_value_heads,
        "head_dim": dimensions.head_dimension,
        "max_position_embeddings": keys.size("context_length")?,
        "rms_norm_eps": epsilon,
        "rope_theta": theta,
        "rope_scaling": rope_scaling::from_metadata(metadata, architecture, theta, dimensions, rope_factors)?,
        "tie_word_embeddings": !has("lm_head.weight"),
        "attention_bias": has("model.layers.0.self_attn.q_proj.bias"),
        "mlp_bias": has("model.layers.0.mlp.up_proj.bias"),
        "vocab_size": embedding.info.shape[0],
        "torch_dtype": torch_dtype(tensors),
    });
    if let Some(window) = sliding_window {
        config["sliding_window"] = window.into();
        if architecture != Architecture::Llama {
            config["use_sliding_window"] = true.into();
        }
    }
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
