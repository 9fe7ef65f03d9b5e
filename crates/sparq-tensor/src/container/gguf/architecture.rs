//! GGUF's architectures in Hugging Face's words.

use super::metadata::Metadata;
use crate::{Error, Result};

/// A model family whose GGUF files can be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    Gemma3,
    Gpt2,
    /// Llama 2 and 3, Mistral, Mixtral, SmolLM.
    Llama,
    Olmo2,
    Phi3,
    Qwen2,
    Qwen3,
    Qwen3Moe,
}

pub(crate) const SUPPORTED: &[&str] = &["gemma3", "gpt2", "llama", "olmo2", "phi3", "qwen2", "qwen3", "qwen3moe"];

impl Architecture {
    pub(crate) fn from_metadata(metadata: &Metadata) -> Result<Self> {
        const KEY: &str = "general.architecture";
        match metadata.string(KEY)? {
            None => Err(metadata.missing(KEY)),
            Some("gemma3") => Ok(Self::Gemma3),
            Some("gpt2") => Ok(Self::Gpt2),
            Some("llama") => Ok(Self::Llama),
            Some("olmo2") => Ok(Self::Olmo2),
            Some("phi3") => Ok(Self::Phi3),
            Some("qwen2") => Ok(Self::Qwen2),
            Some("qwen3") => Ok(Self::Qwen3),
            Some("qwen3moe") => Ok(Self::Qwen3Moe),
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
            "gemma3_text" => Some(Self::Gemma3),
            "gpt2" => Some(Self::Gpt2),
            "llama" | "mistral" | "mixtral" => Some(Self::Llama),
            "olmo2" => Some(Self::Olmo2),
            "phi3" => Some(Self::Phi3),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            "qwen3_moe" => Some(Self::Qwen3Moe),
            _ => None,
        }
    }

    /// The value of `general.architecture`, which is also the prefix of the architecture's keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gemma3 => "gemma3",
            Self::Gpt2 => "gpt2",
            Self::Llama => "llama",
            Self::Olmo2 => "olmo2",
            Self::Phi3 => "phi3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
        }
    }

    /// A key of the architecture's own.
    pub(crate) fn key(self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name())
    }

    /// Whether the rows of query and key projections are stored in llama.cpp's rotary order.
    pub(crate) fn interleaves_heads(self) -> bool {
        self == Self::Llama
    }

    /// What files add to the weights of norms.
    pub(crate) fn norm_offset(self) -> f32 {
        if self == Self::Gemma3 { 1.0 } else { 0.0 }
    }
}
