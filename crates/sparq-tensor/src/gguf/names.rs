//! GGUF's architectures and tensor names in Hugging Face's words.

use super::metadata::Metadata;
use crate::{Error, Result};

/// A model family whose GGUF files can be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// Llama 2 and 3, Mistral, SmolLM.
    Llama,
    Qwen2,
    Qwen3,
}

pub(crate) const SUPPORTED: &[&str] = &["llama", "qwen2", "qwen3"];

impl Architecture {
    pub(crate) fn from_metadata(metadata: &Metadata) -> Result<Self> {
        const KEY: &str = "general.architecture";
        match metadata.string(KEY)? {
            None => Err(metadata.missing(KEY)),
            Some("llama") => Ok(Self::Llama),
            Some("qwen2") => Ok(Self::Qwen2),
            Some("qwen3") => Ok(Self::Qwen3),
            Some(other) => Err(Error::UnsupportedArchitecture {
                file: metadata.file().to_path_buf(),
                architecture: other.chars().take(100).collect(),
                supported: SUPPORTED,
            }),
        }
    }

    /// By Hugging Face's `model_type`.
    pub(crate) fn from_model_type(model_type: &str) -> Option<Self> {
        match model_type {
            "llama" | "mistral" => Some(Self::Llama),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            _ => None,
        }
    }

    /// The value of `general.architecture`, which is also the prefix of the architecture's keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Whether the rows of query and key projections are stored in llama.cpp's rotary order.
    pub(crate) fn interleaves_heads(self) -> bool {
        self == Self::Llama
    }
}

/// What must be known about a tensor besides its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Projects to queries or keys.
    QueryOrKey,
    /// Divisors of the rotary frequencies; becomes part of the configuration.
    RopeFactors,
    Other,
}

/// The Hugging Face name of a tensor and its role; `None` if it has none.
pub(crate) fn translate(name: &str, blocks: u64) -> Option<(String, Role)> {
    let top_level = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(translated) = top_level {
        return Some((translated.to_owned(), Role::Other));
    }
    if name == "rope_freqs.weight" {
        return Some((name.to_owned(), Role::RopeFactors));
    }
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let number: u64 = block.parse().ok()?;
    // The comparison also refuses other spellings of a number, such as 01, that would name one block twice.
    if number >= blocks || number.to_string() != block {
        return None;
    }
    let (module, kind) = rest.rsplit_once('.')?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    let (translated, role) = match module {
        "attn_norm" => ("input_layernorm", Role::Other),
        "attn_q" => ("self_attn.q_proj", Role::QueryOrKey),
        "attn_k" => ("self_attn.k_proj", Role::QueryOrKey),
        "attn_v" => ("self_attn.v_proj", Role::Other),
        "attn_output" => ("self_attn.o_proj", Role::Other),
        "attn_q_norm" => ("self_attn.q_norm", Role::Other),
        "attn_k_norm" => ("self_attn.k_norm", Role::Other),
        "ffn_norm" => ("post_attention_layernorm", Role::Other),
        "ffn_gate" => ("mlp.gate_proj", Role::Other),
        "ffn_up" => ("mlp.up_proj", Role::Other),
        "ffn_down" => ("mlp.down_proj", Role::Other),
        _ => return None,
    };
    Some((format!("model.layers.{number}.{translated}.{kind}"), role))
}

/// The inverse of [`translate`]: GGUF's name of a tensor and its role.
pub(crate) fn to_gguf(name: &str) -> Option<(String, Role)> {
    let top_level = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(translated) = top_level {
        return Some((translated.to_owned(), Role::Other));
    }
    let (block, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let translated = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    let translated = format!("blk.{block}.{translated}.{kind}");
    // Whatever does not come back as it was has no name there.
    let (back, role) = translate(&translated, u64::MAX)?;
    (back == name).then_some((translated, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.norm.weight",
            "model.layers.12.self_attn.k_proj.bias",
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.3.post_attention_layernorm.weight",
        ] {
            let (there, role) = to_gguf(name).unwrap();
            assert_eq!(translate(&there, 100), Some((name.to_owned(), role)));
        }
        for refused in ["model.layers.01.mlp.up_proj.weight", "model.layers.0.mlp.experts.weight", "visual.x.weight"] {
            assert_eq!(to_gguf(refused), None);
        }
    }

    #[test]
    fn names_are_translated_or_refused() {
        let name = |name| translate(name, 12).map(|(name, _)| name);
        assert_eq!(name("token_embd.weight").as_deref(), Some("model.embed_tokens.weight"));
        assert_eq!(name("blk.11.attn_q.bias").as_deref(), Some("model.layers.11.self_attn.q_proj.bias"));
        assert_eq!(name("blk.0.ffn_norm.weight").as_deref(), Some("model.layers.0.post_attention_layernorm.weight"));
        for refused in [
            "blk.12.attn_q.weight",
            "blk.01.attn_q.weight",
            "blk.+1.attn_q.weight",
            "blk.99999999999999999999.attn_q.weight",
            "blk.0.ffn_gate_exps.weight",
            "blk.0.attn_q.scale",
            "blk.0",
            "blk.attn_q.weight",
            "",
        ] {
            assert_eq!(name(refused), None, "{refused}");
        }
        assert_eq!(translate("blk.1.attn_k.weight", 2).unwrap().1, Role::QueryOrKey);
        assert_eq!(translate("rope_freqs.weight", 2).unwrap().1, Role::RopeFactors);
    }
}
