//! GGUF metadata from a Hugging Face directory's `config.json` and tokenizer.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::architecture::{Architecture, SUPPORTED};
use super::config::{GEMMA3_LOCAL_THETA, GEMMA3_PATTERN};
use super::key_values::KeyValues;
use super::names::{ROPE_FACTORS, to_gguf};
use super::{gpt2, rope_scaling, to_tokenizer};
use crate::{Checkpoint, Error, Result, TensorInfo};

/// What the writer of a file needs to know about the model.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) entries: KeyValues,
    pub(super) architecture: Architecture,
    pub(super) layout: Layout,
}

/// What decides how tensors are laid out, beyond their names.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// 0 where it does not matter.
    pub(super) head_dimension: usize,
    /// 0 without a mixture of experts.
    pub(super) experts: u64,
    /// Tensors of rotary divisors, by their names in the file.
    pub(super) rope_divisors: Vec<(&'static str, Vec<f32>)>,
}

/// Fields of `config.json`.
pub(super) struct Fields<'a> {
    config: &'a Value,
    path: PathBuf,
}

impl Fields<'_> {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn optional(&self, key: &str) -> Result<Option<u32>> {
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

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    pub(super) fn unsupported(&self, what: &str, value: String) -> Error {
        Error::Unsupported { file: self.path.clone(), what: what.to_owned(), value }
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
    let mut entries = KeyValues::default();
    entries.string("general.architecture", architecture.name());
    entries.string("general.type", "model");
    let name = fields.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty());
    entries.string("general.name", name.unwrap_or(model_type));
    let layout = match architecture {
        Architecture::Gpt2 => gpt2::describe(&fields, &mut entries).map(|()| Layout::default())?,
        _ => decoder(&fields, architecture, model_type, &mut entries)?,
    };
    let is_embedding = |info: &&TensorInfo| {
        let name = to_gguf(architecture, &info.name).map(|(name, ..)| name);
        name.as_deref() == Some("token_embd.weight") && info.shape.len() == 2
    };
    let Some(embedding) = source.tensors().find(is_embedding) else {
        let file = source.path().to_path_buf();
        return Err(Error::MissingTensor { file, tensor: architecture.embedding().to_owned() });
    };
    entries.u32(&architecture.key("vocab_size"), embedding.shape[0] as u32);
    to_tokenizer::describe(source, directory, embedding.shape[0], &mut entries)?;
    Ok(Description { entries, architecture, layout })
}

/// Llama and its relatives.
fn decoder(
    fields: &Fields<'_>,
    architecture: Architecture,
    model_type: &str,
    entries: &mut KeyValues,
) -> Result<Layout> {
    let (hidden, heads) = (fields.needed("hidden_size")?, fields.needed("num_attention_heads")?);
    let default_head = match architecture {
        Architecture::Gemma3 => 256,
        Architecture::Qwen3 => 128,
        _ => hidden / heads.max(1),
    };
    let head_dimension = fields.optional("head_dim")?.unwrap_or(default_head);
    let key = |suffix: &str| architecture.key(suffix);
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
    let rope_divisors = rope(fields, architecture, head_dimension as usize, entries)?;
    let uses_window = match architecture {
        Architecture::Gemma3 | Architecture::Phi3 => true,
        Architecture::Llama => matches!(model_type, "mistral" | "mixtral"),
        _ if fields.flag("use_sliding_window") == Some(true) => {
            let value = format!("llama.cpp computes {} without", architecture.name());
            return Err(fields.unsupported("use_sliding_window", value));
        }
        _ => false,
    };
    let window = fields.optional("sliding_window")?.filter(|_| uses_window);
    // Of Phi-3 llama.cpp wants to be told that there is none.
    if let Some(window) = window.or((architecture == Architecture::Phi3).then_some(0)) {
        entries.u32(&key("attention.sliding_window"), window);
    }
    let experts = experts(fields, architecture, model_type, entries)?;
    if architecture == Architecture::Gemma3 {
        gemma3(fields, hidden / heads.max(1), head_dimension)?;
    }
    Ok(Layout { head_dimension: head_dimension as usize, experts, rope_divisors })
}

/// The rotary embedding; returns tensors of divisors that belong to it.
fn rope(
    fields: &Fields<'_>,
    architecture: Architecture,
    head_dimension: usize,
    entries: &mut KeyValues,
) -> Result<Vec<(&'static str, Vec<f32>)>> {
    let key = |suffix: &str| architecture.key(suffix);
    // Since transformers 5 the rotary settings are in an object of their own, for Gemma 3 in one for each kind of block.
    let parameters = fields.get("rope_parameters");
    let parameters = parameters.map(|object| object.get("full_attention").unwrap_or(object));
    let number = |key: &str| fields.get(key).or_else(|| parameters?.get(key)).and_then(Value::as_f64);
    let default_theta = if architecture == Architecture::Gemma3 { 1e6 } else { 10_000.0 };
    let theta = number("rope_theta").unwrap_or(default_theta);
    let part = number("partial_rotary_factor").filter(|_| architecture == Architecture::Phi3).unwrap_or(1.0);
    let rotated = (head_dimension as f64 * part) as usize;
    entries.u32(&key("rope.dimension_count"), rotated as u32);
    entries.f32(&key("rope.freq_base"), theta as f32);
    let now = number("max_position_embeddings").unwrap_or(0.0);
    let before = number("original_max_position_embeddings").unwrap_or(now);
    let scaling = fields.get("rope_scaling").or(parameters);
    let lengths = rope_scaling::Lengths { now, before };
    let written = rope_scaling::to_gguf(scaling, theta, rotated, lengths)
        .map_err(|value| fields.unsupported("rotary scaling", value))?;
    match written {
        rope_scaling::Written::Nothing => Ok(Vec::new()),
        rope_scaling::Written::Keys(kind, factor, length) => {
            entries.string(&key("rope.scaling.type"), kind);
            entries.f32(&key("rope.scaling.factor"), factor);
            if let Some(length) = length {
                entries.u32(&key("rope.scaling.original_context_length"), length);
            }
            Ok(Vec::new())
        }
        rope_scaling::Written::Divisors(divisors) => Ok(vec![(ROPE_FACTORS[0], divisors)]),
        rope_scaling::Written::LongRope(short, long, attention_factor) => {
            if architecture != Architecture::Phi3 {
                return Err(fields.unsupported("rotary scaling", format!("longrope in {}", architecture.name())));
            }
            entries.f32(&key("rope.scaling.attn_factor"), attention_factor);
            entries.u32(&key("rope.scaling.original_context_length"), before as u32);
            Ok(vec![(ROPE_FACTORS[1], short), (ROPE_FACTORS[2], long)])
        }
    }
}

/// The mixture of experts; returns how many there are.
fn experts(fields: &Fields<'_>, architecture: Architecture, model_type: &str, entries: &mut KeyValues) -> Result<u64> {
    if !matches!(model_type, "mixtral" | "qwen3_moe") {
        return Ok(0);
    }
    let key = |suffix: &str| architecture.key(suffix);
    let count = match fields.optional("num_local_experts")? {
        Some(count) => count,
        None => fields.needed("num_experts")?,
    };
    entries.u32(&key("expert_count"), count);
    entries.u32(&key("expert_used_count"), fields.needed("num_experts_per_tok")?);
    if architecture == Architecture::Qwen3Moe {
        entries.u32(&key("expert_feed_forward_length"), fields.needed("moe_intermediate_size")?);
        if fields.flag("norm_topk_prob") != Some(true) {
            return Err(fields.unsupported("norm_topk_prob", "false: llama.cpp always divides by the sum".into()));
        }
        let has_dense = fields.get("mlp_only_layers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if has_dense || fields.optional("decoder_sparse_step")?.unwrap_or(1) != 1 {
            let value = "some blocks have none, and llama.cpp expects one in each".to_owned();
            return Err(fields.unsupported("a mixture of experts", value));
        }
    }
    Ok(count.into())
}

/// Refuses Gemma 3 with settings other than those which llama.cpp takes for granted.
fn gemma3(fields: &Fields<'_>, head_share: u32, head_dimension: u32) -> Result<()> {
    let blocks = fields.needed("num_hidden_layers")?;
    let number = |key: &str| fields.get(key).and_then(Value::as_f64);
    let scalar = number("query_pre_attn_scalar").unwrap_or(256.0);
    let expected = f64::from(if blocks == 62 { head_share } else { head_dimension });
    if scalar != expected {
        let value = format!("{scalar}, where llama.cpp takes {expected} for granted");
        return Err(fields.unsupported("query_pre_attn_scalar", value));
    }
    let local = fields.get("rope_parameters").and_then(|object| object.get("sliding_attention")?.get("rope_theta"));
    let local = local.and_then(Value::as_f64).or_else(|| number("rope_local_base_freq"));
    if local.is_some_and(|theta| theta != GEMMA3_LOCAL_THETA) {
        let value = format!("{local:?}, where llama.cpp takes {GEMMA3_LOCAL_THETA} for granted");
        return Err(fields.unsupported("the rotary base of blocks with a window", value));
    }
    if number("final_logit_softcapping").is_some() {
        return Err(fields.unsupported("final_logit_softcapping", "llama.cpp leaves it out for Gemma 3".to_owned()));
    }
    let has_window = |block: u64| !(block + 1).is_multiple_of(GEMMA3_PATTERN);
    let follows_pattern = match fields.get("layer_types").and_then(Value::as_array) {
        Some(types) => (0..).zip(types).all(|(block, kind)| (*kind == "sliding_attention") == has_window(block)),
        None => number("sliding_window_pattern").is_none_or(|pattern| pattern == GEMMA3_PATTERN as f64),
    };
    if !follows_pattern {
        let value = format!("other than every {GEMMA3_PATTERN}th, which llama.cpp takes for granted");
        return Err(fields.unsupported("blocks without a window", value));
    }
    fields.needed("sliding_window").map(drop)
}
