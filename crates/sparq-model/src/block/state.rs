use super::BatchLayout;
use super::experts::Routed;
use crate::cache::LayerCache;
use crate::{Error, Precision, Result};
use ndarray::{Array2, ArrayView2};

/// A batch of tokens on its way through one block; made by [`Block::begin`](crate::Block::begin).
#[derive(Debug, Clone)]
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

    /// Takes out the matrices of a batch that waits, for a caller to keep elsewhere; shape and order are for
    /// [`unpark`](Self::unpark). Until they are back the pass cannot go on.
    pub fn park(&mut self) -> Vec<Array2<f32>> {
        self.matrices().into_iter().map(std::mem::take).collect()
    }

    /// Puts back what [`park`](Self::park) took out.
    ///
    /// # Errors
    /// [`Error::Shape`] if these are not as many matrices as there were, or the residual stream has another shape.
    pub fn unpark(&mut self, parked: Vec<Array2<f32>>) -> Result<()> {
        let tokens = self.layout.tokens();
        let matrices = self.matrices();
        let rows = parked.first().map_or(0, Array2::nrows);
        if matrices.len() != parked.len() || rows != tokens {
            return Err(Error::Shape {
                what: "matrices of a batch that waited, and its tokens".into(),
                expected: vec![matrices.len(), tokens],
                found: vec![parked.len(), rows],
            });
        }
        matrices.into_iter().zip(parked).for_each(|(place, matrix)| *place = matrix);
        Ok(())
    }

    /// All that a waiting batch holds, the residual stream first.
    fn matrices(&mut self) -> Vec<&mut Array2<f32>> {
        let routed = self.routed.as_mut().map(|routed| &mut routed.input);
        std::iter::once(&mut self.residual).chain(self.input.as_mut()).chain(routed).collect()
    }
}
