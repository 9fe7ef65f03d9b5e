use super::{Block, BlockState};
use crate::ops::{Attended, Span, attention};
use ndarray::{Array2, s};

/// Heads and range of a block's attention.
pub(super) fn span(block: &Block) -> Span {
    let config = &block.config;
    let depth = if config.attention_scale_by_depth { block.index as f32 + 1.0 } else { 1.0 };
    Span {
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        window: config.windows.get(block.index).copied().flatten(),
        scale: config.attention_scale / depth,
    }
}

/// What the queries of all sequences gather, `[tokens, heads * head_dim]`; keys and values go into the caches, if there
/// are any.
pub(super) fn attend(
    block: &Block,
    queries: &Array2<f32>,
    keys: &Array2<f32>,
    values: &Array2<f32>,
    state: &mut BlockState,
) -> Array2<f32> {
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
    attention(queries.view(), &sequences, span(block), attended.view_mut());
    attended
}
