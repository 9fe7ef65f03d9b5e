use super::gguf::{self, Relative, Window};
use super::{Architecture, Has, decoder};
use crate::block::BlockPlan;
use crate::config::{Fields, RopeConfig, activation, windows_by_name};
use crate::{Activation, Error, ModelConfig, Result};
use serde_json::Value;
use sparq_tensor::gguf::{ConfigFields, Conventions, Entries, GgufModel, Layout, Role};

const DEFAULT_HEAD_DIM: usize = 256;
const DEFAULT_WINDOW: usize = 4096;
/// Every so many blocks one sees everything.
const DEFAULT_PATTERN: usize = 6;
const DEFAULT_THETA: f64 = 1e6;
const DEFAULT_WINDOW_THETA: f64 = 1e4;

/// Gemma 3, text only: norms before and after attention and feed-forward layer and of each query and key head, their
/// stored weights one less than what they multiply with; scaled embeddings; blocks with a window, whose rotary embedding
/// has a base of its own, between blocks without.
#[derive(Debug)]
pub(super) struct Gemma3;

impl Architecture for Gemma3 {
    fn model_type(&self) -> &'static str {
        Self::GGUF.model_type
    }

    fn configure(&self, fields: Fields<'_>) -> Result<ModelConfig> {
        let mut config = ModelConfig::base_without_rope(fields, self.model_type(), Some(DEFAULT_HEAD_DIM))?;
        if fields.flag("use_bidirectional_attention", false)? {
            return Err(Error::config("use_bidirectional_attention", "only causal attention is supported"));
        }
        if fields.get("attn_logit_softcapping").is_some() {
            let reason = "no engine computes it for Gemma 3, transformers included, and no published model has it";
            return Err(Error::config("attn_logit_softcapping", reason));
        }
        config.tie_word_embeddings = fields.flag("tie_word_embeddings", true)?;
        config.activation = activation(fields, "hidden_activation")?.unwrap_or(Activation::GeluTanh);
        config.norm_offset = 1.0;
        config.embedding_scale = (config.hidden_size as f64).sqrt() as f32;
        let scalar = fields.optional_positive("query_pre_attn_scalar")?.unwrap_or(256.0);
        config.attention_scale = (1.0 / scalar.sqrt()) as f32;
        config.logit_softcap = fields.optional_positive("final_logit_softcapping")?.map(|cap| cap as f32);
        for (field, value) in
            [("query_pre_attn_scalar", Some(config.attention_scale)), ("final_logit_softcapping", config.logit_softcap)]
        {
            if value.is_some_and(|value| !value.is_normal()) {
                return Err(Error::config(field, "too large or too small"));
            }
        }
        config.qkv_bias = fields.flag("attention_bias", false)?;
        config.output_bias = config.qkv_bias;
        let window = fields.optional_dimension("sliding_window")?.unwrap_or(DEFAULT_WINDOW);
        let pattern = fields.optional_dimension("sliding_window_pattern")?.unwrap_or(DEFAULT_PATTERN);
        let by_pattern = (0..config.layers).map(|block| Some(window).filter(|_| (block + 1) % pattern != 0));
        config.windows = windows_by_name(fields, config.layers, Some(window))?.unwrap_or_else(|| by_pattern.collect());
        read_ropes(&mut config, fields)?;
        Ok(config)
    }

    fn plan(&self, config: &ModelConfig, index: usize, _: Has<'_>) -> BlockPlan {
        let mut plan = decoder::builder(config, index);
        plan.norms.before_attention = Some(plan.norm("input_layernorm", config.hidden_size));
        decoder::attention(&mut plan);
        decoder::query_and_key_norms(&mut plan, config.head_dim, config.head_dim);
        plan.norms.after_attention = Some(plan.norm("post_attention_layernorm", config.hidden_size));
        plan.norms.before_feed_forward = Some(plan.norm("pre_feedforward_layernorm", config.hidden_size));
        decoder::feed_forward(&mut plan);
        plan.norms.after_feed_forward = Some(plan.norm("post_feedforward_layernorm", config.hidden_size));
        plan.build()
    }
}

impl Relative for Gemma3 {
    const GGUF: Conventions = Conventions {
        architecture: "gemma3",
        model_type: "gemma3_text",
        modules: &[
            &[
                ("post_attention_norm", "post_attention_layernorm", Role::Norm),
                ("ffn_norm", "pre_feedforward_layernorm", Role::Norm),
                ("post_ffw_norm", "post_feedforward_layernorm", Role::Norm),
            ],
            gguf::MODULES,
        ],
        norm_offset: 1.0,
        ..gguf::DECODER
    };
    const CLASS: &'static str = "Gemma3ForCausalLM";
    const WINDOW: Window = Window::Kept;
    const DEFAULT_HEAD: Option<u32> = Some(DEFAULT_HEAD_DIM as u32);
    const DEFAULT_THETA: f64 = DEFAULT_THETA;

    fn complete_config(model: &GgufModel<'_>, config: &mut Value) -> sparq_tensor::Result<()> {
        let sizes = &model.sizes;
        // What files do not say is fixed in llama.cpp.
        config["hidden_activation"] = "gelu_pytorch_tanh".into();
        config["query_pre_attn_scalar"] =
            llama_cpps_scalar(sizes.blocks, sizes.hidden / sizes.heads.max(1), sizes.head_dimension as u64).into();
        config["sliding_window_pattern"] = DEFAULT_PATTERN.into();
        config["rope_local_base_freq"] = DEFAULT_WINDOW_THETA.into();
        if config.get("sliding_window").is_none() {
            return Err(model.keys.missing("attention.sliding_window"));
        }
        Ok(())
    }

    fn complete_metadata(
        fields: &ConfigFields<'_>,
        _: &mut Entries<'_>,
        layout: &mut Layout,
    ) -> sparq_tensor::Result<()> {
        check_llama_cpp(fields, layout.head_dimension as u64)
    }
}

/// What llama.cpp scales the queries by, as `query_pre_attn_scalar`: the model with 62 blocks is an exception.
fn llama_cpps_scalar(blocks: u64, head_share: u64, head_dimension: u64) -> u64 {
    if blocks == 62 { head_share } else { head_dimension }
}

/// Refuses settings other than those which llama.cpp takes for granted.
fn check_llama_cpp(fields: &ConfigFields<'_>, head_dimension: u64) -> sparq_tensor::Result<()> {
    let (hidden, heads) = (fields.needed("hidden_size")?, fields.needed("num_attention_heads")?);
    let blocks = fields.needed("num_hidden_layers")?;
    let scalar = fields.number("query_pre_attn_scalar").unwrap_or(256.0);
    let expected = llama_cpps_scalar(blocks.into(), (hidden / heads.max(1)).into(), head_dimension) as f64;
    if scalar != expected {
        let value = format!("{scalar}, where llama.cpp takes {expected} for granted");
        return Err(fields.unsupported("query_pre_attn_scalar", value));
    }
    let local = fields.get("rope_parameters").and_then(|object| object.get("sliding_attention")?.get("rope_theta"));
    let local = local.and_then(Value::as_f64).or_else(|| fields.number("rope_local_base_freq"));
    if local.is_some_and(|theta| theta != DEFAULT_WINDOW_THETA) {
        let value = format!("{local:?}, where llama.cpp takes {DEFAULT_WINDOW_THETA} for granted");
        return Err(fields.unsupported("the rotary base of blocks with a window", value));
    }
    if fields.number("final_logit_softcapping").is_some() {
        return Err(fields.unsupported("final_logit_softcapping", "llama.cpp leaves it out for Gemma 3"));
    }
    let has_window = |block: usize| !(block + 1).is_multiple_of(DEFAULT_PATTERN);
    let follows_pattern = match fields.get("layer_types").and_then(Value::as_array) {
        Some(types) => (0..).zip(types).all(|(block, kind)| (*kind == "sliding_attention") == has_window(block)),
        None => fields.number("sliding_window_pattern").is_none_or(|pattern| pattern == DEFAULT_PATTERN as f64),
    };
    if !follows_pattern {
        let value = format!("other than every {DEFAULT_PATTERN}th, which llama.cpp takes for granted");
        return Err(fields.unsupported("blocks without a window", value));
    }
    fields.needed("sliding_window").map(drop)
}

/// One rotary embedding for blocks that see everything, one for blocks with a window: objects by kind of block in
/// `rope_parameters` (transformers 5), or fields of their own (transformers 4), of which scaling is that of the former.
fn read_ropes(config: &mut ModelConfig, fields: Fields<'_>) -> Result<()> {
    let parameters = fields.object("rope_parameters")?;
    let of = |kind: &'static str| match parameters {
        Some(parameters) => parameters.object(kind),
        None => Ok(None),
    };
    let (full, sliding) = (of("full_attention")?, of("sliding_attention")?);
    let scaling = match full {
        Some(full) => Some(full),
        None => fields.object("rope_scaling")?,
    };
    let context = config.rope_context(DEFAULT_THETA);
    config.rope = Some(RopeConfig::from_parts(fields, full, scaling, "rope_theta", context)?);
    let context = config.rope_context(DEFAULT_WINDOW_THETA);
    config.window_rope = Some(RopeConfig::from_parts(fields, sliding, sliding, "rope_local_base_freq", context)?);
    Ok(())
}
