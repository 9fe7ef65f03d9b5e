//! The pre-norm decoder block with grouped-query attention and a gated feed-forward layer:
//!
//! ```text
//! x = x + o(attention(q(n), k(n), v(n)))   n = norm(x)
//! x = x + down(act(gate(n)) * up(n))       n = norm(x)
//! ```

use crate::ModelConfig;
use crate::block::{Block, BlockPlan, BlockState, LinearShape, Stage};
use crate::ops::{Attended, Span, attention, rms_norm};
use ndarray::{Array2, s};

const ATTENTION_NORM: usize = 0;
const FEED_FORWARD_NORM: usize = 1;

pub(super) fn plan(config: &ModelConfig, index: usize) -> BlockPlan {
    let prefix = format!("model.layers.{index}");
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let (query, kv) = (config.query_width(), config.kv_width());
    let linear = |name: &str, out_features, in_features, bias| LinearShape {
        name: format!("{prefix}.{name}"),
        out_features,
        in_features,
        bias,
    };
    let stage = |linears: &[usize], adds_to_residual| Stage { linears: linears.to_vec(), adds_to_residual };
    BlockPlan {
        linears: vec![
            linear("self_attn.q_proj", query, hidden, config.qkv_bias),
            linear("self_attn.k_proj", kv, hidden, config.qkv_bias),
            linear("self_attn.v_proj", kv, hidden, config.qkv_bias),
            linear("self_attn.o_proj", hidden, query, config.output_bias),
            linear("mlp.gate_proj", wide, hidden, config.mlp_bias),
            linear("mlp.up_proj", wide, hidden, config.mlp_bias),
            linear("mlp.down_proj", hidden, wide, config.mlp_bias),
        ],
        stages: vec![stage(&[0, 1, 2], false), stage(&[3], true), stage(&[4, 5], false), stage(&[6], true)],
        vectors: vec![
            (format!("{prefix}.input_layernorm.weight"), hidden),
            (format!("{prefix}.post_attention_layernorm.weight"), hidden),
        ],
    }
}

pub(super) fn input(block: &Block, stage: usize, state: &mut BlockState) -> Array2<f32> {
    let mut left = std::mem::take(&mut state.outputs).into_iter();
    match (stage, left.next(), left.next(), left.next()) {
        (0, ..) => norm(block, ATTENTION_NORM, state),
        (1, Some(queries), Some(keys), Some(values)) => {
            let attended = attend(block, &queries, &keys, &values, state);
            for done in [queries, keys, values] {
                block.workspace.put(done);
            }
            attended
        }
        (2, ..) => norm(block, FEED_FORWARD_NORM, state),
        (_, Some(mut gate), Some(up), _) => {
            if let (Some(gate), Some(up)) = (gate.as_slice_mut(), up.as_slice()) {
                block.config.activation.gate(gate, up);
            }
            block.workspace.put(up);
            gate
        }
        // The order of stages, which `Block` checks, leaves outputs before every stage that takes them.
        _ => Array2::zeros((state.layout.tokens(), 0)),
    }
}

pub(super) fn advance(block: &Block, stage: usize, mut outputs: Vec<Array2<f32>>, state: &mut BlockState) {
    if stage == 0 {
        for rotated in outputs.iter_mut().take(2) {
            block.rope.rotate(rotated, state.layout.positions());
        }
    }
    state.outputs = outputs;
}

fn norm(block: &Block, weight: usize, state: &BlockState) -> Array2<f32> {
    let mut normed = block.workspace.take(state.residual.nrows(), state.residual.ncols());
    normed.assign(&state.residual);
    rms_norm(&mut normed, &block.vectors[weight], block.config.norm_epsilon);
    normed
}

fn attend(
    block: &Block,
    queries: &Array2<f32>,
    keys: &Array2<f32>,
    values: &Array2<f32>,
    state: &mut BlockState,
) -> Array2<f32> {
    let config = &block.config;
    let span = Span {
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        window: config.windows.get(block.index).copied().flatten(),
        scale: 1.0 / (config.head_dim as f32).sqrt(),
    };
    let rows = |sequence| s![state.layout.rows(sequence), ..];
    for (sequence, cache) in state.caches.iter_mut().enumerate() {
        cache.append(keys.slice(rows(sequence)), values.slice(rows(sequence)));
    }
    let sequences: Vec<_> = (0..state.layout.sequences())
        .map(|sequence| {
            let length = state.layout.rows(sequence).len();
            let (keys, values) = match state.caches.get(sequence) {
                Some(cache) => cache.views(),
                None => (keys.slice(rows(sequence)), values.slice(rows(sequence))),
            };
            Attended { length, keys, values }
        })
        .collect();
    let mut attended = block.workspace.take(queries.nrows(), queries.ncols());
    attention(queries.view(), &sequences, span, attended.view_mut());
    attended
}
