//! GGUF's tensor names in Hugging Face's words.

use std::borrow::Cow;

use super::architecture::Architecture;

impl Architecture {
    /// Hugging Face's prefix of blocks, up to their number.
    fn blocks(self) -> &'static str {
        if self == Self::Gpt2 { "transformer.h." } else { "model.layers." }
    }

    /// Hugging Face's name of the token embedding.
    pub(crate) fn embedding(self) -> &'static str {
        if self == Self::Gpt2 { "transformer.wte.weight" } else { "model.embed_tokens.weight" }
    }

    /// Tensors outside of blocks.
    fn top_level(self) -> &'static [Row] {
        if self == Self::Gpt2 { GPT2_TOP_LEVEL } else { TOP_LEVEL }
    }

    /// Modules of a block: GGUF's name, Hugging Face's name below the block's, and the role. `*` is the number of
    /// an expert, all of whose matrices are one tensor in GGUF. The first that fits counts.
    fn modules(self) -> impl Iterator<Item = &'static Row> {
        let special: &[_] = match self {
            Self::Gpt2 => return GPT2.iter().chain(&[]),
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

    /// The name that transformers would save today: the first checkpoints of GPT-2 have no prefix.
    fn todays(self, name: &str) -> Cow<'_, str> {
        let is_short = self == Self::Gpt2 && !name.starts_with("transformer.") && name != "lm_head.weight";
        if is_short { Cow::Owned(format!("transformer.{name}")) } else { Cow::Borrowed(name) }
    }

    /// Whether files do without a tensor: the causal masks that the first checkpoints of GPT-2 carry.
    pub(crate) fn leaves_out(self, name: &str) -> bool {
        self == Self::Gpt2 && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
    }
}

/// GGUF's name, Hugging Face's, and the role.
type Row = (&'static str, &'static str, Role);

/// Modules of a block in most architectures.
const COMMON: &[Row] = &[
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

/// Modules of a block of GPT-2.
const GPT2: &[Row] = &[
    ("attn_norm", "ln_1", Role::Norm),
    ("attn_qkv", "attn.c_attn", Role::Conv1d),
    ("attn_output", "attn.c_proj", Role::Conv1d),
    ("ffn_norm", "ln_2", Role::Norm),
    ("ffn_up", "mlp.c_fc", Role::Conv1d),
    ("ffn_down", "mlp.c_proj", Role::Conv1d),
];

/// Tensors outside of blocks in most architectures.
const TOP_LEVEL: &[Row] = &[
    ("token_embd.weight", "model.embed_tokens.weight", Role::Other),
    ("output_norm.weight", "model.norm.weight", Role::Norm),
    ("output.weight", "lm_head.weight", Role::Other),
];

/// Those of GPT-2.
const GPT2_TOP_LEVEL: &[Row] = &[
    ("token_embd.weight", "transformer.wte.weight", Role::Other),
    ("position_embd.weight", "transformer.wpe.weight", Role::Other),
    ("output_norm.weight", "transformer.ln_f.weight", Role::Norm),
    ("output_norm.bias", "transformer.ln_f.bias", Role::Norm),
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
    /// A matrix that Hugging Face has as `[in, out]`; its bias.
    Conv1d,
    /// Matrices of all experts; their names have a `*` where the expert's number goes.
    Experts,
    Other,
}

/// Names of the tensors of divisors.
pub(crate) const ROPE_FACTORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// The Hugging Face name of a tensor and its role; `None` if it has none.
pub(crate) fn translate(architecture: Architecture, name: &str, blocks: u64) -> Option<(String, Role)> {
    if let Some((_, translated, role)) = architecture.top_level().iter().find(|(gguf, ..)| *gguf == name) {
        return Some(((*translated).to_owned(), *role));
    }
    if let Some(at) = ROPE_FACTORS.iter().position(|factors| *factors == name) {
        let is_known = match architecture {
            Architecture::Gpt2 => false,
            Architecture::Phi3 => at != 0,
            _ => at == 0,
        };
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
    Some((format!("{}{number}.{translated}.{kind}", architecture.blocks()), *role))
}

/// The inverse of [`translate`]: GGUF's name of a tensor, its role, and the number of the expert it belongs to.
pub(crate) fn to_gguf(architecture: Architecture, name: &str) -> Option<(String, Role, Option<u64>)> {
    let name = &*architecture.todays(name);
    if let Some((translated, _, role)) = architecture.top_level().iter().find(|(_, theirs, _)| *theirs == name) {
        return Some(((*translated).to_owned(), *role, None));
    }
    let (block, rest) = name.strip_prefix(architecture.blocks())?.split_once('.')?;
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
            (Architecture::Gpt2, "transformer.h.11.attn.c_attn.weight"),
            (Architecture::Gpt2, "transformer.h.0.mlp.c_proj.bias"),
            (Architecture::Gpt2, "transformer.h.0.ln_2.bias"),
            (Architecture::Gpt2, "transformer.wpe.weight"),
            (Architecture::Gpt2, "transformer.ln_f.bias"),
            (Architecture::Gpt2, "lm_head.weight"),
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
    fn the_first_names_of_gpt2_are_known_and_its_masks_left_out() {
        let gguf = |name| to_gguf(Architecture::Gpt2, name).map(|(name, ..)| name);
        assert_eq!(gguf("wte.weight").as_deref(), Some("token_embd.weight"));
        assert_eq!(gguf("h.3.attn.c_attn.bias").as_deref(), Some("blk.3.attn_qkv.bias"));
        for mask in ["h.0.attn.bias", "transformer.h.0.attn.masked_bias"] {
            assert!(Architecture::Gpt2.leaves_out(mask) && gguf(mask).is_none(), "{mask}");
        }
        assert!(!Architecture::Gpt2.leaves_out("h.0.attn.c_attn.bias"));
        for refused in ["model.layers.0.mlp.up_proj.weight", "h.0.mlp.c_fc.scale", "h.00.ln_1.weight"] {
            assert_eq!(gguf(refused), None, "{refused}");
        }
        for refused in ["rope_freqs.weight", "blk.0.attn_q.weight", "blk.0.ffn_gate.weight"] {
            assert_eq!(translate(Architecture::Gpt2, refused, 1), None, "{refused}");
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
