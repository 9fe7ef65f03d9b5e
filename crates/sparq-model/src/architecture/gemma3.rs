use super::{Architecture, Has, decoder};
use crate::block::BlockPlan;
use crate::config::{Fields, RopeConfig, activation, windows_by_name};
use crate::{Activation, Error, ModelConfig, Result};

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
        "gemma3_text"
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
