use super::Model;
use crate::block::{BatchLayout, multiply, multiply_stored};
use crate::cache::{KvCache, LayerCache};
use crate::ops::{exp, layer_norm, rms_norm};
use crate::{Error, Precision, Result};
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens per block pass: enough for efficient products, few enough for activations to stay small.
const MICRO_BATCH: usize = 2048;

impl Model {
    /// What enters the first block: embeddings of `tokens`, which `layout` divides into sequences, `[tokens, hidden]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `tokens` does not fit the layout; [`Error::TokenOutOfVocabulary`];
    /// [`Error::PositionOutOfRange`] for models with learned positions; [`Error::Checkpoint`] if the embeddings cannot be
    /// read.
    pub fn embed(&self, tokens: &[u32], layout: &BatchLayout) -> Result<Array2<f32>> {
        if tokens.len() != layout.tokens() {
            return Err(Error::Shape {
                what: "tokens of a layout".to_owned(),
                expected: vec![layout.tokens()],
                found: vec![tokens.len()],
            });
        }
        let (vocabulary, width) = (self.shared.config.vocab_size, self.shared.config.hidden_size);
        if let Some(position) = tokens.iter().position(|token| *token as usize >= vocabulary) {
            return Err(Error::TokenOutOfVocabulary { token: tokens[position], position, vocabulary });
        }
        let mut embedded = Array2::zeros((tokens.len(), width));
        let rows = tokens.iter().map(|token| *token as usize).zip(embedded.rows_mut());
        if let [Some(stored), _] = self.stored_vocabulary() {
            for (token, row) in rows {
                stored.decode(token, row.into_slice().unwrap_or_default())?;
            }
        } else {
            let embedding = self.embedding()?;
            rows.for_each(|(token, mut row)| row.assign(&embedding.row(token)));
        }
        if self.shared.config.embedding_scale != 1.0 {
            embedded *= self.shared.config.embedding_scale;
        }
        if let Some(positions) = &self.shared.positions {
            let positions = positions.get(&self.shared.checkpoint)?;
            for (position, mut row) in layout.positions().iter().zip(embedded.rows_mut()) {
                if *position >= positions.nrows() {
                    return Err(Error::PositionOutOfRange { position: *position, positions: positions.nrows() });
                }
                row += &positions.row(*position);
            }
        }
        Ok(embedded)
    }

    /// Hidden states after the final norm, of all sequences one after the other, `[sum of lengths, hidden]`.
    ///
    /// The walk is block by block over the whole batch, so that a model whose blocks are not in memory is read once.
    /// Within a block, sequences run in groups of at most 2,048 tokens (or one longer sequence): memory beyond the
    /// result is one group's activations and, if blocks are not resident, one block. A sequence's result depends on the
    /// sequences it is grouped with by no more than rounding; the same batch always gives the same bits.
    ///
    /// # Errors
    /// Those of [`embed`](Self::embed) and [`block`](Self::block).
    ///
    /// # Examples
    /// ```no_run
    /// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
    /// let hidden = model.hidden(&[&[1, 2, 3], &[4, 5]])?;
    /// assert_eq!(hidden.nrows(), 5);
    /// let logits = model.logits(hidden.view())?; // [5, vocabulary]
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn hidden(&self, batch: &[&[u32]]) -> Result<Array2<f32>> {
        let mut groups = groups(batch)
            .into_iter()
            .map(|(layout, tokens)| self.embed(&tokens, &layout).map(|embedded| (layout, embedded)))
            .collect::<Result<Vec<_>>>()?;
        for index in 0..self.block_count() {
            let block = self.running(index)?;
            for (layout, residual) in &mut groups {
                let state = block.begin(std::mem::take(residual), layout.clone())?;
                *residual = block.finish(state.with_precision(self.precision))?;
            }
        }
        let mut finished: Vec<_> = groups.into_iter().map(|(_, residual)| self.finish(residual)).collect();
        if finished.len() == 1 {
            return Ok(finished.remove(0));
        }
        let tokens = finished.iter().map(Array2::nrows).sum();
        let mut hidden = Array2::zeros((tokens, self.shared.config.hidden_size));
        let mut row = 0;
        for group in finished {
            hidden.slice_mut(s![row..row + group.nrows(), ..]).assign(&group);
            row += group.nrows();
        }
        Ok(hidden)
    }

    /// The final norm of a residual stream, `[tokens, hidden]`.
    pub fn finish(&self, residual: Array2<f32>) -> Array2<f32> {
        let mut residual =
            if residual.is_standard_layout() { residual } else { residual.as_standard_layout().into_owned() };
        let (weight, epsilon) = (&self.shared.final_norm, self.shared.config.norm_epsilon);
        match &self.shared.final_bias {
            Some(bias) => layer_norm(&mut residual, weight, bias, epsilon),
            None => rms_norm(&mut residual, weight, epsilon),
        }
        residual
    }

    /// Scores of every token of the vocabulary, `[tokens, vocabulary]`, for `hidden`, `[tokens, hidden]`, as
    /// [`hidden`](Self::hidden) and [`extend`](Self::extend) return it.
    ///
    /// This can be much larger than anything else in a forward pass: pass only the rows that are needed.
    ///
    /// # Errors
    /// [`Error::Shape`] if the width is not the model's; [`Error::Checkpoint`] if the output matrix cannot be read.
    pub fn logits(&self, hidden: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        self.logits_in(self.precision, hidden)
    }

    pub(super) fn logits_in(&self, precision: Precision, hidden: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let shared = &self.shared;
        let (vocabulary, width) = (shared.config.vocab_size, shared.config.hidden_size);
        if hidden.ncols() != width {
            return Err(Error::Shape {
                what: "hidden states for the output layer".to_owned(),
                expected: vec![hidden.nrows(), width],
                found: hidden.shape().to_vec(),
            });
        }
        let mut logits = Array2::zeros((hidden.nrows(), vocabulary));
        match self.stored_vocabulary() {
            [_, Some(head)] => {
                multiply_stored(hidden, head, precision, 0.0, logits.view_mut(), &shared.workspace)?;
            }
            _ => multiply(hidden, self.output()?.view(), precision, 0.0, logits.view_mut()),
        }
        if let (Some(cap), Some(logits)) = (shared.config.logit_softcap, logits.as_slice_mut()) {
            logits.par_iter_mut().for_each(|logit| *logit = cap * softcap(*logit / cap));
        }
        Ok(logits)
    }

    /// An empty cache for one sequence.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(&self.shared.config)
    }

    /// Appends `batch[i]` to the sequence of `caches[i]` and returns the hidden states after the final norm of the new
    /// tokens, one sequence after the other, `[sum of lengths, hidden]`.
    ///
    /// If it fails, the caches are as before. With rotary frequencies that depend on the length of the sequence (dynamic,
    /// longrope), a sequence that grows into other frequencies is run again from its start: a cache never changes a
    /// result.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one cache per sequence or a cache belongs to another model; those of
    /// [`hidden`](Self::hidden).
    ///
    /// # Examples
    /// ```no_run
    /// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
    /// let mut prompt = model.new_cache();
    /// model.extend(std::slice::from_mut(&mut prompt), &[&[1, 2, 3]])?;
    /// let mut choices = vec![prompt.clone(), prompt]; // score two continuations without running the prompt again
    /// let hidden = model.extend(&mut choices, &[&[4], &[5, 6]])?;
    /// assert_eq!(hidden.nrows(), 3);
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn extend(&self, caches: &mut [KvCache], batch: &[&[u32]]) -> Result<Array2<f32>> {
        self.check_caches(caches, batch)?;
        if self.shared.config.rope_varies() {
            return self.extend_anew(caches, batch);
        }
        self.append(caches, batch)
    }

    /// As [`extend`](Self::extend), where keys of earlier tokens may have become useless.
    fn extend_anew(&self, caches: &mut [KvCache], batch: &[&[u32]]) -> Result<Array2<f32>> {
        let config = &self.shared.config;
        let mut states: Vec<KvCache> = Vec::with_capacity(caches.len());
        let mut inputs: Vec<Vec<u32>> = Vec::with_capacity(caches.len());
        for (cache, tokens) in caches.iter().zip(batch) {
            let regime = config.rope_regime(cache.len() + tokens.len());
            if tokens.is_empty() || cache.is_empty() || cache.regime == regime {
                states.push(cache.clone());
                inputs.push(tokens.to_vec());
            } else {
                states.push(self.new_cache());
                inputs.push([cache.tokens.as_slice(), tokens].concat());
            }
        }
        let hidden = self.append(&mut states, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let mut rows = Vec::new();
        let mut end = 0;
        for ((cache, input), tokens) in states.iter_mut().zip(&inputs).zip(batch) {
            end += input.len();
            rows.extend(end - tokens.len()..end);
            cache.tokens.extend_from_slice(input);
            if !tokens.is_empty() {
                cache.regime = config.rope_regime(cache.tokens.len());
            }
        }
        caches.clone_from_slice(&states);
        Ok(hidden.select(Axis(0), &rows))
    }

    fn append(&self, caches: &mut [KvCache], batch: &[&[u32]]) -> Result<Array2<f32>> {
        let before: Vec<usize> = caches.iter().map(KvCache::len).collect();
        let layout = BatchLayout::continuing(before.iter().copied().zip(batch.iter().map(|tokens| tokens.len())));
        let result = self.extend_blocks(caches, batch, &layout);
        if result.is_err() {
            for (cache, len) in caches.iter_mut().zip(before) {
                cache.truncate(len);
            }
        }
        result
    }

    fn extend_blocks(&self, caches: &mut [KvCache], batch: &[&[u32]], layout: &BatchLayout) -> Result<Array2<f32>> {
        let mut residual = self.embed(&batch.concat(), layout)?;
        for index in 0..self.block_count() {
            let block = self.running(index)?;
            let layers: Vec<LayerCache> =
                caches.iter_mut().map(|cache| std::mem::take(&mut cache.layers[index])).collect();
            let state = block.begin_with_caches(residual, layout.clone(), layers)?;
            let mut state = state.with_precision(self.precision);
            let result = block.run(&mut state);
            for (cache, layer) in caches.iter_mut().zip(state.caches.drain(..)) {
                cache.layers[index] = layer;
            }
            result?;
            residual = block.end(state);
        }
        Ok(self.finish(residual))
    }

    fn check_caches(&self, caches: &[KvCache], batch: &[&[u32]]) -> Result<()> {
        let config = &self.shared.config;
        if caches.len() != batch.len() {
            return Err(Error::Shape {
                what: "caches of a batch".to_owned(),
                expected: vec![batch.len()],
                found: vec![caches.len()],
            });
        }
        for cache in caches {
            let width = cache.layers.first().map_or(0, LayerCache::width);
            if cache.layers.len() != config.layers || width != config.kv_width() {
                return Err(Error::Shape {
                    what: "layers and width of a cache".to_owned(),
                    expected: vec![config.layers, config.kv_width()],
                    found: vec![cache.layers.len(), width],
                });
            }
        }
        Ok(())
    }
}

/// `tanh` by our own exponential, the same on every platform.
fn softcap(x: f32) -> f32 {
    2.0 / (1.0 + exp(-2.0 * x)) - 1.0
}

/// Sequences in groups that run together, with their tokens one after the other.
pub(super) fn groups(batch: &[&[u32]]) -> Vec<(BatchLayout, Vec<u32>)> {
    let lengths: Vec<usize> = batch.iter().map(|tokens| tokens.len()).collect();
    let group = |group: Range<usize>| (BatchLayout::new(&lengths[group.clone()]), batch[group].concat());
    BatchLayout::cut(&lengths, MICRO_BATCH).into_iter().map(group).collect()
}
