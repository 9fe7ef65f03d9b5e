//! What Llama and its relatives have in common in GGUF files. What one of them has for itself is in its own file.

mod read;
mod rope_scaling;
mod write;

use serde_json::Value;
use sparq_tensor::Result;
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, Family, GgufModel, Keys, Layout, Role, Row};
use std::collections::BTreeSet;
use std::fmt;

pub(super) use read::window;

/// What the GGUF files of a relative of Llama have for themselves.
pub(super) trait Relative: fmt::Debug + Send + Sync {
    /// Names, and how tensors lie in files.
    const GGUF: Conventions;
    /// The class in transformers.
    const CLASS: &'static str;
    /// What becomes of windows.
    const WINDOW: Window;
    /// The field of a config that counts experts, of a family that has them.
    const EXPERTS: Option<&'static str> = None;
    /// Elements of a head of a config that does not say; none for an even share of the width.
    const DEFAULT_HEAD: Option<u32> = None;
    /// Base of the rotary embedding of a config that does not say.
    const DEFAULT_THETA: f64 = 10_000.0;

    /// Whether a file that names the architecture is of this family.
    fn is_in(keys: &Keys<'_>) -> Result<bool> {
        let _ = keys;
        Ok(true)
    }

    /// Adds what only this family's config has.
    fn complete_config(model: &GgufModel<'_>, config: &mut Value) -> Result<()> {
        let _ = (model, config);
        Ok(())
    }

    /// Adds what only this family's metadata has, and refuses what llama.cpp does not compute.
    fn complete_metadata(fields: &ConfigFields<'_>, entries: &mut Entries<'_>, layout: &mut Layout) -> Result<()> {
        let _ = (fields, entries, layout);
        Ok(())
    }
}

/// What becomes of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// The family has none.
    Absent,
    /// They go both ways.
    Kept,
    /// Configs switch them on, and llama.cpp computes the family without.
    Switched,
}

/// A relative of Llama as a family of GGUF files.
#[derive(Debug)]
pub(super) struct Decoder<T>(pub(super) T);

impl<T: Relative> Family for Decoder<T> {
    fn conventions(&self) -> &'static Conventions {
        &T::GGUF
    }

    fn is_in(&self, keys: &Keys<'_>) -> Result<bool> {
        T::is_in(keys)
    }

    fn reads(&self, config: &Value, has: &dyn Fn(&str) -> bool) -> Option<BTreeSet<String>> {
        super::reads(config, has)
    }

    fn config(&self, model: &GgufModel<'_>) -> Result<Value> {
        let mut config = read::config::<T>(model)?;
        T::complete_config(model, &mut config)?;
        Ok(config)
    }

    fn describe(&self, fields: &ConfigFields<'_>, entries: &mut Entries<'_>) -> Result<Layout> {
        let mut layout = write::describe::<T>(fields, entries)?;
        T::complete_metadata(fields, entries, &mut layout)?;
        Ok(layout)
    }
}

/// The conventions of Llama's relatives, to be completed by names of the family.
pub(super) const DECODER: Conventions = Conventions {
    architecture: "",
    model_type: "",
    top_level: TOP_LEVEL,
    blocks: "model.layers.",
    modules: &[MODULES],
    rope_factors: &[ALL_LENGTHS],
    interleaves_heads: false,
    norm_offset: 0.0,
    may_have_experts: false,
    may_rotate_partly: false,
};

/// Divisors of the rotary frequencies for sequences of all lengths.
const ALL_LENGTHS: &str = "rope_freqs.weight";
/// Those for short sequences.
pub(super) const SHORT: &str = "rope_factors_short.weight";
/// Those for long sequences.
pub(super) const LONG: &str = "rope_factors_long.weight";

/// Modules of a block of Llama.
pub(super) const MODULES: &[Row] = &[
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
const TOP_LEVEL: &[Row] = &[
    ("token_embd.weight", "model.embed_tokens.weight", Role::Other),
    ("output_norm.weight", "model.norm.weight", Role::Norm),
    ("output.weight", "lm_head.weight", Role::Other),
];

#[cfg(test)]
mod tests {
    use super::super::{gemma3::Gemma3, gpt2::Gpt2, llama::Llama, mixtral::Mixtral, olmo2::Olmo2};
    use super::super::{phi3::Phi3, qwen2::Qwen2, qwen3::Qwen3, qwen3_moe::Qwen3Moe};
    use super::*;
    use sparq_tensor::gguf::{to_gguf, to_hugging_face};

    #[test]
    fn names_go_both_ways() {
        let names: [(&dyn Family, &str); 20] = [
            (&Decoder(Llama), "model.embed_tokens.weight"),
            (&Decoder(Llama), "lm_head.weight"),
            (&Decoder(Gemma3), "model.norm.weight"),
            (&Decoder(Llama), "model.layers.12.self_attn.k_proj.bias"),
            (&Decoder(Llama), "model.layers.0.mlp.down_proj.weight"),
            (&Decoder(Qwen3), "model.layers.3.post_attention_layernorm.weight"),
            (&Decoder(Gemma3), "model.layers.3.post_attention_layernorm.weight"),
            (&Decoder(Gemma3), "model.layers.3.pre_feedforward_layernorm.weight"),
            (&Decoder(Olmo2), "model.layers.3.post_feedforward_layernorm.weight"),
            (&Decoder(Phi3), "model.layers.3.mlp.gate_up_proj.weight"),
            (&Decoder(Phi3), "model.layers.3.self_attn.qkv_proj.weight"),
            (&Decoder(Mixtral), "model.layers.1.block_sparse_moe.experts.7.w3.weight"),
            (&Decoder(Qwen3Moe), "model.layers.1.mlp.experts.127.down_proj.weight"),
            (&Decoder(Qwen3Moe), "model.layers.1.mlp.gate.weight"),
            (&Gpt2, "transformer.h.11.attn.c_attn.weight"),
            (&Gpt2, "transformer.h.0.mlp.c_proj.bias"),
            (&Gpt2, "transformer.h.0.ln_2.bias"),
            (&Gpt2, "transformer.wpe.weight"),
            (&Gpt2, "transformer.ln_f.bias"),
            (&Gpt2, "lm_head.weight"),
        ];
        for (architecture, name) in names {
            let (there, role, expert) = to_gguf(architecture, name).expect(name);
            let (back, same_role) = to_hugging_face(architecture, &there, 100).expect(name);
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
            assert_eq!(to_gguf(&Decoder(Mixtral), refused), None, "{refused}");
        }
    }

    #[test]
    fn the_first_names_of_gpt2_are_known_and_its_masks_left_out() {
        let gguf = |name| to_gguf(&Gpt2, name).map(|(name, ..)| name);
        assert_eq!(gguf("wte.weight").as_deref(), Some("token_embd.weight"));
        assert_eq!(gguf("h.3.attn.c_attn.bias").as_deref(), Some("blk.3.attn_qkv.bias"));
        for mask in ["h.0.attn.bias", "transformer.h.0.attn.masked_bias"] {
            assert_eq!(gguf(mask), None, "{mask}");
        }
        for refused in ["model.layers.0.mlp.up_proj.weight", "h.0.mlp.c_fc.scale", "h.00.ln_1.weight"] {
            assert_eq!(gguf(refused), None, "{refused}");
        }
        for refused in ["rope_freqs.weight", "blk.0.attn_q.weight", "blk.0.ffn_gate.weight"] {
            assert_eq!(to_hugging_face(&Gpt2, refused, 1), None, "{refused}");
        }
    }

    #[test]
    fn one_name_may_mean_several_things() {
        let name = |architecture: &dyn Family, name| to_hugging_face(architecture, name, 12).map(|(name, _)| name);
        let norm = "blk.0.ffn_norm.weight";
        let theirs = |module: &str| Some(format!("model.layers.0.{module}.weight"));
        assert_eq!(name(&Decoder(Llama), norm), theirs("post_attention_layernorm"));
        assert_eq!(name(&Decoder(Gemma3), norm), theirs("pre_feedforward_layernorm"));
        assert_eq!(name(&Decoder(Phi3), "blk.0.ffn_up.weight"), theirs("mlp.gate_up_proj"));
        assert_eq!(name(&Decoder(Qwen3), "blk.0.attn_qkv.weight"), None);
    }

    #[test]
    fn names_are_translated_or_refused() {
        let name = |name| to_hugging_face(&Decoder(Qwen2), name, 12).map(|(name, _)| name);
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
        assert_eq!(to_hugging_face(&Decoder(Llama), "blk.1.attn_k.weight", 2).unwrap().1, Role::QueryOrKey);
        assert_eq!(to_hugging_face(&Decoder(Llama), "rope_freqs.weight", 2), None);
        assert_eq!(Decoder(Llama).conventions().rope_factors, ["rope_freqs.weight"]);
        assert!(Decoder(Phi3).conventions().rope_factors.contains(&"rope_factors_long.weight"));
    }
}
