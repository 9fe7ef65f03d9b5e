//! What Llama and its relatives have in common in GGUF files. What one of them has for itself is in its own file.

mod read;
mod rope_scaling;
mod write;

pub(super) use read::{add_experts, add_window, config, window};
use sparq_tensor::gguf::{Conventions, Role, Row};
pub(super) use write::{Defaults, describe, experts, refuse_window};

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
    use sparq_tensor::gguf::{Family, to_gguf, to_hugging_face};

    #[test]
    fn names_go_both_ways() {
        let names: [(&dyn Family, &str); 20] = [
            (&Llama, "model.embed_tokens.weight"),
            (&Llama, "lm_head.weight"),
            (&Gemma3, "model.norm.weight"),
            (&Llama, "model.layers.12.self_attn.k_proj.bias"),
            (&Llama, "model.layers.0.mlp.down_proj.weight"),
            (&Qwen3, "model.layers.3.post_attention_layernorm.weight"),
            (&Gemma3, "model.layers.3.post_attention_layernorm.weight"),
            (&Gemma3, "model.layers.3.pre_feedforward_layernorm.weight"),
            (&Olmo2, "model.layers.3.post_feedforward_layernorm.weight"),
            (&Phi3, "model.layers.3.mlp.gate_up_proj.weight"),
            (&Phi3, "model.layers.3.self_attn.qkv_proj.weight"),
            (&Mixtral, "model.layers.1.block_sparse_moe.experts.7.w3.weight"),
            (&Qwen3Moe, "model.layers.1.mlp.experts.127.down_proj.weight"),
            (&Qwen3Moe, "model.layers.1.mlp.gate.weight"),
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
            assert_eq!(to_gguf(&Mixtral, refused), None, "{refused}");
        }
    }

    #[test]
    fn the_first_names_of_gpt2_are_known_and_its_masks_left_out() {
        let gguf = |name| to_gguf(&Gpt2, name).map(|(name, ..)| name);
        assert_eq!(gguf("wte.weight").as_deref(), Some("token_embd.weight"));
        assert_eq!(gguf("h.3.attn.c_attn.bias").as_deref(), Some("blk.3.attn_qkv.bias"));
        for mask in ["h.0.attn.bias", "transformer.h.0.attn.masked_bias"] {
            assert!(Gpt2.leaves_out(mask) && gguf(mask).is_none(), "{mask}");
        }
        assert!(!Gpt2.leaves_out("h.0.attn.c_attn.bias"));
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
        assert_eq!(name(&Llama, norm), theirs("post_attention_layernorm"));
        assert_eq!(name(&Gemma3, norm), theirs("pre_feedforward_layernorm"));
        assert_eq!(name(&Phi3, "blk.0.ffn_up.weight"), theirs("mlp.gate_up_proj"));
        assert_eq!(name(&Qwen3, "blk.0.attn_qkv.weight"), None);
    }

    #[test]
    fn names_are_translated_or_refused() {
        let name = |name| to_hugging_face(&Qwen2, name, 12).map(|(name, _)| name);
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
        assert_eq!(to_hugging_face(&Llama, "blk.1.attn_k.weight", 2).unwrap().1, Role::QueryOrKey);
        assert_eq!(to_hugging_face(&Llama, "rope_freqs.weight", 2), None);
        assert_eq!(Llama.conventions().rope_factors, ["rope_freqs.weight"]);
        assert!(Phi3.conventions().rope_factors.contains(&"rope_factors_long.weight"));
    }
}
