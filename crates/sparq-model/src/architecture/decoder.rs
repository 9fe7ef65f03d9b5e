//! The parts that the relatives of Llama are composed of.

use crate::ModelConfig;
use crate::block::{BlockPlan, Feeds, LinearId, PlanBuilder, Role};

/// A block of Llama: a norm before attention, a norm before the feed-forward layer.
pub(super) fn plan(config: &ModelConfig, index: usize) -> BlockPlan {
    let mut plan = builder(config, index);
    plan.norms.before_attention = Some(plan.norm("input_layernorm", config.hidden_size));
    attention(&mut plan);
    plan.norms.before_feed_forward = Some(plan.norm("post_attention_layernorm", config.hidden_size));
    feed_forward(&mut plan);
    plan.build()
}

pub(super) fn builder(config: &ModelConfig, index: usize) -> PlanBuilder<'_> {
    PlanBuilder::new(config, format!("model.layers.{index}"))
}

/// Query, key, value and output projections.
pub(super) fn attention(plan: &mut PlanBuilder<'_>) {
    let config = plan.config();
    let hidden = config.hidden_size;
    let queries = plan.linear("self_attn.q_proj", config.query_width(), hidden, config.qkv_bias);
    let keys = plan.linear("self_attn.k_proj", config.kv_width(), hidden, config.qkv_bias);
    let values = plan.linear("self_attn.v_proj", config.kv_width(), hidden, config.qkv_bias);
    plan.stage(Role::Attention, vec![queries, keys, values]);
    attention_output(plan);
}

pub(super) fn attention_output(plan: &mut PlanBuilder<'_>) {
    let config = plan.config();
    let output = plan.linear("self_attn.o_proj", config.hidden_size, config.query_width(), config.output_bias);
    plan.stage(Role::AttentionOutput, vec![output]);
}

/// Norms of queries and keys over this many elements each.
pub(super) fn query_and_key_norms(plan: &mut PlanBuilder<'_>, queries: usize, keys: usize) {
    plan.norms.queries = Some(plan.norm("self_attn.q_norm", queries));
    plan.norms.keys = Some(plan.norm("self_attn.k_norm", keys));
}

/// Gate, up and down.
pub(super) fn feed_forward(plan: &mut PlanBuilder<'_>) {
    let config = plan.config();
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let gate = plan.linear("mlp.gate_proj", wide, hidden, config.mlp_bias);
    let up = plan.linear("mlp.up_proj", wide, hidden, config.mlp_bias);
    let down = plan.linear("mlp.down_proj", hidden, wide, config.mlp_bias);
    feeds(plan, Feeds::AllTokens, vec![gate, up], vec![down]);
}

pub(super) fn feeds(plan: &mut PlanBuilder<'_>, whom: Feeds, first: Vec<LinearId>, down: Vec<LinearId>) {
    plan.stage(Role::FeedForward(whom), first);
    plan.stage(Role::FeedForwardOutput(whom), down);
}
