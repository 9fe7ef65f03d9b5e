//! `config.json` from GGUF metadata, in the style of transformers 4.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::architecture::Architecture;
use super::gpt2;
use super::metadata::Metadata;
use super::rope_scaling::{self, RopeFactors};
use crate::entry::Entry;
use crate::{DType, Error, Result, limits};

/// The model's sizes as far as reading its tensors needs them.
#[derive(Debug)]
pub(crate) struct Dimensions {
    pub(crate) blocks: u64,
    pub(crate) hidden: u64,
    pub(crate) heads: u64,
    pub(crate) key_value_heads: u64,
    pub(crate) head_dimension: usize,
    /// Elements of each head that the rotary embedding turns.
    pub(crate) rotated: usize,
    /// 0 without a mixture of experts.
    pub(crate) experts: u64,
}

/// Keys below the architecture's prefix.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    architecture: Architecture,
}

impl Keys<'_> {
    fn key(&self, suffix: &str) -> String {
        self.architecture.key(suffix)
    }

    fn integer(&self, suffix: &str) -> Result<Option<u64>> {
        self.metadata.integer(&self.key(suffix))
    }

    /// How far attention reaches back, if not to the beginning: converters write 0 for that too.
    fn window(&self) -> Result<Option<u64>> {
        Ok(self.integer("attention.sliding_window")?.filter(|&window| window != 0))
    }

    /// An integer between 1 and 2³¹ − 1.
    pub(super) fn size(&self, suffix: &str) -> Result<u64> {
        let key = self.key(suffix);
        let value = self.metadata.integer(&key)?.ok_or_else(|| self.metadata.missing(&key))?;
        self.check_size(&key, value)
    }

    pub(super) fn needed_float(&self, suffix: &str) -> Result<f64> {
        let key = self.key(suffix);
        self.metadata.float(&key)?.ok_or_else(|| self.metadata.missing(&key))
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
        let experts = keys.integer("expert_count")?.unwrap_or(0);
        let may_have_experts = matches!(architecture, Architecture::Llama | Architecture::Qwen3Moe);
        if experts > 0 && !may_have_experts || experts > limits::EXPERTS {
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
        let rotated = keys.integer("rope.dimension_count")?.unwrap_or(head_dimension);
        let may_be_partial = architecture == Architecture::Phi3 && (1..head_dimension).contains(&rotated);
        if rotated != head_dimension && !may_be_partial {
            let value = format!("{rotated} of {head_dimension} elements");
            return Err(metadata.unsupported("a rotary embedding of a part of each head", value));
        }
        let (head_dimension, rotated) = (head_dimension as usize, rotated as usize);
        Ok(Self { blocks, hidden, heads, key_value_heads, head_dimension, rotated, experts })
    }
}

/// Makes the configuration. `tensors` by Hugging Face name.
pub(crate) fn synthesise(
    metadata: &Metadata,
    architecture: Architecture,
    dimensions: &Dimensions,
    tensors: &BTreeMap<String, Entry>,
    rope_factors: &RopeFactors,
) -> Result<Value> {
    let keys = Keys { metadata, architecture };
    let Some(embedding) = tensors.get(architecture.embedding()) else {
        let file = metadata.file().to_path_buf();
        return Err(Error::MissingTensor { file, tensor: "token_embd.weight".to_owned() });
    };
    let mut config = match decoder_class(&keys, dimensions)? {
        None => gpt2::config(&keys, dimensions)?,
        Some(class) => decoder(&keys, class, dimensions, tensors, rope_factors)?,
    };
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

/// `model_type` and class of Llama and its relatives; none for GPT-2.
fn decoder_class(keys: &Keys<'_>, dimensions: &Dimensions) -> Result<Option<(&'static str, &'static str)>> {
    let has_window = keys.window()?.is_some();
    Ok(Some(match keys.architecture {
        Architecture::Gpt2 => return Ok(None),
        // Hugging Face's Llama has no sliding window; Mistral is the same model with one.
        Architecture::Llama if dimensions.experts > 0 => ("mixtral", "MixtralForCausalLM"),
        Architecture::Llama if has_window => ("mistral", "MistralForCausalLM"),
        Architecture::Llama => ("llama", "LlamaForCausalLM"),
        Architecture::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        Architecture::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        Architecture::Qwen3Moe => ("qwen3_moe", "Qwen3MoeForCausalLM"),
        Architecture::Gemma3 => ("gemma3_text", "Gemma3ForCausalLM"),
        Architecture::Olmo2 => ("olmo2", "Olmo2ForCausalLM"),
        Architecture::Phi3 => ("phi3", "Phi3ForCausalLM"),
    }))
}

/// Llama and its relatives.
fn decoder(
    keys: &Keys<'_>,
    (model_type, class): (&str, &str),
    dimensions: &Dimensions,
    tensors: &BTreeMap<String, Entry>,
    rope_factors: &RopeFactors,
) -> Result<Value> {
    let (metadata, architecture) = (keys.metadata, keys.architecture);
    let has = |name: &str| tensors.contains_key(name);
    let epsilon = keys.needed_float("attention.layer_norm_rms_epsilon")?;
    let theta = metadata.float(&keys.key("rope.freq_base"))?.unwrap_or(10_000.0);
    let sliding_window = keys.window()?;
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
        "attention_bias": has("model.layers.0.self_attn.q_proj.bias"),
        "mlp_bias": has("model.layers.0.mlp.up_proj.bias"),
    });
    if let Some(window) = sliding_window {
        config["sliding_window"] = window.into();
        if !matches!(architecture, Architecture::Llama | Architecture::Gemma3 | Architecture::Phi3) {
            config["use_sliding_window"] = true.into();
        }
    }
    own_fields(keys, architecture, dimensions, &mut config)?;
    Ok(config)
}

/// What only some architectures have.
fn own_fields(keys: &Keys<'_>, architecture: Architecture, dimensions: &Dimensions, config: &mut Value) -> Result<()> {
    if dimensions.experts > 0 {
        let count = if architecture == Architecture::Llama { "num_local_experts" } else { "num_experts" };
        config[count] = dimensions.experts.into();
        config["num_experts_per_tok"] = keys.size("expert_used_count")?.into();
    }
    match architecture {
        Architecture::Qwen3Moe => {
            config["moe_intermediate_size"] = keys.size("expert_feed_forward_length")?.into();
            config["norm_topk_prob"] = true.into(); // as llama.cpp computes it
        }
        Architecture::Gemma3 => {
            // What files do not say is fixed in llama.cpp.
            config["hidden_activation"] = "gelu_pytorch_tanh".into();
            config["query_pre_attn_scalar"] = gemma3_scalar(dimensions).into();
            config["sliding_window_pattern"] = GEMMA3_PATTERN.into();
            config["rope_local_base_freq"] = GEMMA3_LOCAL_THETA.into();
            if config.get("sliding_window").is_none() {
                return Err(keys.metadata.missing(&keys.key("attention.sliding_window")));
            }
        }
        Architecture::Phi3 => {
            config["partial_rotary_factor"] = (dimensions.rotated as f64 / dimensions.head_dimension as f64).into();
            config["original_max_position_embeddings"] =
                keys.integer("rope.scaling.original_context_length")?.unwrap_or(keys.size("context_length")?).into();
        }
        _ => {}
    }
    Ok(())
}

/// Every so many blocks of Gemma 3 one has no window.
pub(super) const GEMMA3_PATTERN: u64 = 6;
/// Base of the rotary embedding of Gemma 3's blocks with a window.
pub(super) const GEMMA3_LOCAL_THETA: f64 = 10_000.0;

/// What llama.cpp scales the queries of Gemma 3 by, as `query_pre_attn_scalar`: the model with 62 blocks is an exception.
pub(super) fn gemma3_scalar(dimensions: &Dimensions) -> u64 {
    match dimensions.blocks {
        62 => dimensions.hidden / dimensions.heads.max(1),
        _ => dimensions.head_dimension as u64,
    }
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
