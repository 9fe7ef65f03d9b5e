//! GGUF's architectures and tensor names in Hugging Face's words.

use super::metadata::Metadata;
use crate::{Error, Result};

/// A model family whose GGUF files can be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    Gemma3,
    /// Llama 2 and 3, Mistral, Mixtral, SmolLM.
    Llama,
    Olmo2,
    Phi3,
    Qwen2,
    Qwen3,
    Qwen3Moe,
}

pub(crate) const SUPPORTED: &[&str] = &["gemma3", "llama", "olmo2", "phi3", "qwen2", "qwen3", "qwen3moe"];

impl Architecture {
    pub(crate) fn from_metadata(metadata: &Metadata) -> Result<Self> {
        const KEY: &str = "general.architecture";
        match metadata.string(KEY)? {
            None => Err(metadata.missing(KEY)),
            Some("gemma3") => Ok(Self::Gemma3),
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
            Self::Llama => "llama",
            Self::Olmo2 => "olmo2",
            Self::Phi3 => "phi3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
        }
    }

    /// Whether the rows of query and key projections are stored in llama.cpp's rotary order.
    pub(crate) fn interleaves_heads(self) -> bool {
        self == Self::Llama
    }

    /// What files add to the weights of norms.
    pub(crate) fn norm_offset(self) -> f32 {
        if self == Self::Gemma3 { 1.0 } else { 0.0 }
    }

    /// Modules of a block: GGUF's name, Hugging Face's name below `model.layers.N.`, and the role. `*` is the number of
    /// an expert, all of whose matrices are one tensor in GGUF. The first that fits counts.
    fn modules(self) -> impl Iterator<Item = &'static (&'static str, &'static str, Role)> {
        let special: &[_] = match self {
            Self::Gemma3 => &[
                ("post_attention_norm", "post_attention_layernorm", Role::Norm),
                ("ffn_norm", "pre_feedforward_layernorm", Role::Norm),
                ("post_ffw_norm", "post_feedforward_layernorm", Role::Norm),
            ],
            Self::Olmo2 => &[
                ("post_attention_norm", "post_attention_layernorm", Role::Norm),
                ("post_ffw_norm", "post_feedforward_layernorm", Role::Norm),
            ],
            Self::Phi3 => {
                &[("attn_qkv", "self_attn.qkv_proj", Role::Other), ("ffn_up", "mlp.gate_up_proj", Role::Other)]
            }
            Self::Llama => &[
                ("ffn_gate_inp", "block_sparse_moe.gate", Role::Other),
                ("ffn_gate_exps", "block_sparse_moe.experts.*.w1", Role::Experts),
                ("ffn_up_exps", "block_sparse_moe.experts.*.w3", Role::Experts),
                ("ffn_down_exps", "block_sparse_moe.experts.*.w2", Role::Experts),
            ],
            Self::Qwen3Moe => &[
                ("ffn_gate_inp", "mlp.gate", Role::Other),
                ("ffn_gate_exps", "mlp.experts.*.gate_proj", Role::Experts),
                ("ffn_up_exps", "mlp.experts.*.up_proj", Role::Experts),
                ("ffn_down_exps", "mlp.experts.*.down_proj", Role::Experts),
            ],
            Self::Qwen2 | Self::Qwen3 => &[],
        };
        special.iter().chain(COMMON)
    }
}

/// Modules of a block in most architectures.
const COMMON: &[(&str, &str, Role)] = &[
    ("attn_norm", "input_layernorm", Role::Norm),
    ("attn_q", "self_attn.q_proj", Role::QueryOrKey),
    ("attn_k", "self_attn.k_proj", Role::QueryOrKey),
    ("attn_v", "self_attn.v_proj", Role::Other),
    ("attn_output", "self_attn.o_proj", Role::Other),
    ("attn_q_norm", "self_attn.q_norm", Role::Norm),
    ("attn_k_norm", "self_attn.k_norm", Role::Norm),
    ("ffn_norm", "post_attention_layernorm", Role::Norm),
    ("ffn_gate", "mlp.gate_proj", Role::Other),
    ("ffn_up", "mlp.up_proj", Role::Other),
    ("ffn_down", "mlp.down_proj", Role::Other),
];

/// Tensors outside of blocks.
const TOP_LEVEL: &[(&str, &str, Role)] = &[
    ("token_embd.weight", "model.embed_tokens.weight", Role::Other),
    ("output_norm.weight", "model.norm.weight", Role::Norm),
    ("output.weight", "lm_head.weight", Role::Other),
];

/// What must be known about a tensor besides its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Projects to queries or keys.
    QueryOrKey,
    /// Divisors of the rotary frequencies, in order: for all lengths, short and long sequences; they become part of the
    /// configuration.
    RopeFactors(usize),
    Norm,
    /// Matrices of all experts; their names have a `*` where the expert's number goes.
    Experts,
    Other,
}

/// Names of the tensors of divisors.
pub(crate) const ROPE_FACTORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// The Hugging Face name of a tensor and its role; `None` if it has none.
pub(crate) fn translate(architecture: Architecture, name: &str, blocks: u64) -> Option<(String, Role)> {
    if let Some((_, translated, role)) = TOP_LEVEL.iter().find(|(gguf, ..)| *gguf == name) {
        return Some(((*translated).to_owned(), *role));
    }
    if let Some(at) = ROPE_FACTORS.iter().position(|factors| *factors == name) {
        let is_known = (at == 0) == (architecture != Architecture::Phi3);
        return is_known.then(|| (name.to_owned(), Role::RopeFactors(at)));
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
    let (_, translated, role) = architecture.modules().find(|(gguf, ..)| *gguf == module)?;
    if kind == "bias" && *role == Role::Experts {
        return None;
    }
    Some((format!("model.layers.{number}.{translated}.{kind}"), *role))
}

/// The inverse of [`translate`]: GGUF's name of a tensor, its role, and the number of the expert it belongs to.
pub(crate) fn to_gguf(architecture: Architecture, name: &str) -> Option<(String, Role, Option<u64>)> {
    if let Some((translated, _, role)) = TOP_LEVEL.iter().find(|(_, theirs, _)| *theirs == name) {
        return Some(((*translated).to_owned(), *role, None));
    }
    let (block, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let fits = |theirs: &str| match theirs.split_once('*') {
        None => (theirs == module).then_some(None),
        Some((before, after)) => {
            let digits = module.strip_prefix(before)?.strip_suffix(after)?;
            let expert: u64 = digits.parse().ok()?;
            (expert.to_string() == digits).then_some(Some(expert))
        }
    };
    let (translated, role, expert) =
        architecture.modules().find_map(|(ours, theirs, role)| Some((ours, *role, fits(theirs)?)))?;
    let translated = format!("blk.{block}.{translated}.{kind}");
    // Whatever does not come back as it was has no name there.
    let (back, _) = translate(architecture, &translated, u64::MAX)?;
    let back = expert.map_or_else(|| back.clone(), |expert| back.replace('*', &expert.to_string()));
    (back == name).then_some((translated, role, expert))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (architecture, name) in [
            (Architecture::Llama, "model.embed_tokens.weight"),
            (Architecture::Llama, "lm_head.weight"),
            (Architecture::Gemma3, "model.norm.weight"),
            (Architecture::Llama, "model.layers.12.self_attn.k_proj.bias"),
            (Architecture::Llama, "model.layers.0.mlp.down_proj.weight"),
            (Architecture::Qwen3, "model.layers.3.post_attention_layernorm.weight"),
            (Architecture::Gemma3, "model.layers.3.post_attention_layernorm.weight"),
            (Architecture::Gemma3, "model.layers.3.pre_feedforward_layernorm.weight"),
            (Architecture::Olmo2, "model.layers.3.post_feedforward_layernorm.weight"),
            (Architecture::Phi3, "model.layers.3.mlp.gate_up_proj.weight"),
            (Architecture::Phi3, "model.layers.3.self_attn.qkv_proj.weight"),
            (Architecture::Llama, "model.layers.1.block_sparse_moe.experts.7.w3.weight"),
            (Architecture::Qwen3Moe, "model.layers.1.mlp.experts.127.down_proj.weight"),
            (Architecture::Qwen3Moe, "model.layers.1.mlp.gate.weight"),
        ] {
            let (there, role, expert) = to_gguf(architecture, name).expect(name);
            let (back, same_role) = translate(architecture, &there, 100).expect(name);
            assert_eq!((back.replace('*', &expert.unwrap_or(0).to_string()).as_str(), same_role), (name, role));
        }
        for refused in [
            "model.layers.01.mlp.up_proj.weight",
            "model.layers.0.mlp.experts.weight",
            "model.layers.0.mlp.experts.gate_up_proj",
            "model.layers.0.block_sparse_moe.experts.01.w1.weight",
            "model.layers.0.block_sparse_moe.experts.1.w1.bias",
            "visual.x.weight",
        ] {
            assert_eq!(to_gguf(Architecture::Llama, refused), None, "{refused}");
        }
    }

    #[test]
    fn one_name_may_mean_several_things() {
        let name = |architecture, name| translate(architecture, name, 12).map(|(name, _)| name);
        let norm = "blk.0.ffn_norm.weight";
        let theirs = |module: &str| Some(format!("model.layers.0.{module}.weight"));
        assert_eq!(name(Architecture::Llama, norm), theirs("post_attention_layernorm"));
        assert_eq!(name(Architecture::Gemma3, norm), theirs("pre_feedforward_layernorm"));
        assert_eq!(name(Architecture::Phi3, "blk.0.ffn_up.weight"), theirs("mlp.gate_up_proj"));
        assert_eq!(name(Architecture::Qwen3, "blk.0.attn_qkv.weight"), None);
    }

    #[test]
    fn names_are_translated_or_refused() {
        let name = |name| translate(Architecture::Qwen2, name, 12).map(|(name, _)| name);
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
        assert_eq!(translate(Architecture::Llama, "blk.1.attn_k.weight", 2).unwrap().1, Role::QueryOrKey);
        assert_eq!(translate(Architecture::Llama, "rope_freqs.weight", 2).unwrap().1, Role::RopeFactors(0));
        assert_eq!(translate(Architecture::Phi3, "rope_factors_long.weight", 2).unwrap().1, Role::RopeFactors(2));
    }
}
