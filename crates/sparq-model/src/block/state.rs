use super::BatchLayout;
use super::experts::Routed;
use crate::Precision;
use crate::cache::LayerCache;
use ndarray::{Array2, ArrayView2};

/// A batch of tokens on its way through one block; made by [`Block::begin`](crate::Block::begin).
#[derive(Debug)]
pub struct BlockState {
    /// `[tokens, hidden]`, standard layout.
    pub(crate) residual: Array2<f32>,
    pub(crate) layout: BatchLayout,
    /// One per sequence, or none at all when nothing is kept for later tokens.
    pub(crate) caches: Vec<LayerCache>,
    pub(crate) precision: Precision,
    /// The stage whose turn it is.
    pub(crate) stage: usize,
    /// Its input, once computed or left by the stage before.
    pub(crate) input: Option<Array2<f32>>,
    /// Set while the experts of a block take their turns.
    pub(crate) routed: Option<Routed>,
}

impl BlockState {
    /// The same pass, its linear layers multiplied in `precision`; `f32` unless this is called.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The stage whose turn it is; the number of stages when all have been applied.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// The residual stream as it is now, `[tokens, hidden]`.
    pub fn residual(&self) -> ArrayView2<'_, f32> {
        self.residual.view()
    }

    /// The input of the stage whose turn it is, `[tokens, in]`; none before the stage in front of
    /// it has left it or [`Block::stage_input`](crate::Block::stage_input) has computed it.
    pub fn input(&self) -> Option<ArrayView2<'_, f32>> {
        self.input.as_ref().map(|input| input.view())
    }

    /// How the tokens divide into sequences.
    pub fn layout(&self) -> &BatchLayout {
        &self.layout
    }
}
