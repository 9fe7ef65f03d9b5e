use super::Model;
use super::forward::groups;
use crate::Precision;
use crate::block::Gradients;
use crate::ops::{layer_norm_backward, rms_norm_backward};
use crate::{Loss, Result};
use ndarray::{Array2, Axis};
use sparq_linalg::gemm;

/// Tokens whose logits exist at one time.
pub(super) const HEAD_TOKENS: usize = 256;

impl Model {
    /// The loss of `batch`, whose gradients go to `gradients`, part by part from the last block to the first.
    ///
    /// The forward pass keeps what enters each block, `[tokens, hidden]` each; the way back computes the inside of a block
    /// again, for at most 2,048 tokens (or one longer sequence) at a time. Blocks are read twice if they are not in memory.
    /// Products are `f32` whatever the model's precision. Same bits for any number of threads.
    ///
    /// # Errors
    /// Those of [`hidden`](Self::hidden), and what `loss` reports.
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_model::{CrossEntropy, Gradients, Model};
    /// struct Nothing;
    /// impl Gradients for Nothing {}
    /// let model = Model::open("models/SmolLM2-135M")?;
    /// let text: &[u32] = &[1, 2, 3, 4];
    /// let nats = model.backward(&[text], &CrossEntropy::of_next_tokens(&[text]), &mut Nothing)?;
    /// println!("{nats} nats a token");
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn backward(&self, batch: &[&[u32]], loss: &dyn Loss, gradients: &mut dyn Gradients) -> Result<f64> {
        let groups = groups(batch);
        let mut streams = Vec::new();
        for (layout, tokens) in &groups {
            streams.push(vec![self.embed(tokens, layout)?]);
        }
        for index in 0..self.block_count() {
            let block = self.block(index)?;
            for ((layout, _), stream) in groups.iter().zip(&mut streams) {
                let entering = stream[index].clone();
                stream.push(block.forward(entering, layout.clone())?);
            }
        }
        let (mut nats, mut first) = (0.0, 0);
        let mut at_stream = Vec::new();
        for ((layout, _), stream) in groups.iter().zip(&mut streams) {
            let Some(leaving) = stream.pop() else { continue };
            let (loss, gradient) = self.head_backward(leaving, first, loss, gradients)?;
            nats += loss;
            first += layout.tokens();
            at_stream.push(gradient);
        }
        for index in (0..self.block_count()).rev() {
            let block = self.block(index)?;
            for ((layout, _), (stream, gradient)) in groups.iter().zip(streams.iter_mut().zip(&mut at_stream)) {
                let Some(entering) = stream.pop() else { continue };
                *gradient = block.backward(entering, layout.clone(), std::mem::take(gradient), gradients)?;
            }
        }
        for ((layout, tokens), gradient) in groups.iter().zip(&at_stream) {
            gradients.embedded(tokens, layout, gradient.view());
        }
        Ok(nats)
    }

    /// The `loss` of `batch` alone.
    ///
    /// # Errors
    /// Those of [`hidden`](Self::hidden), and what `loss` reports.
    pub fn loss(&self, batch: &[&[u32]], loss: &dyn Loss) -> Result<f64> {
        let hidden = self.hidden(batch)?;
        let mut nats = 0.0;
        for (index, hidden) in hidden.axis_chunks_iter(Axis(0), HEAD_TOKENS).enumerate() {
            nats += loss.gradient(index * HEAD_TOKENS, &mut self.logits(hidden)?)?;
        }
        Ok(nats)
    }

    /// The loss of tokens `first` and those after it, and its gradient at the residual stream that leaves the last block.
    fn head_backward(
        &self,
        residual: Array2<f32>,
        first: usize,
        loss: &dyn Loss,
        gradients: &mut dyn Gradients,
    ) -> Result<(f64, Array2<f32>)> {
        let shared = &self.shared;
        let output = self.output()?;
        let hidden = self.finish(residual.clone());
        let mut at_hidden = Array2::zeros(hidden.dim());
        let mut nats = 0.0;
        let chunks = hidden.axis_chunks_iter(Axis(0), HEAD_TOKENS);
        for (index, (hidden, at_hidden)) in chunks.zip(at_hidden.axis_chunks_iter_mut(Axis(0), HEAD_TOKENS)).enumerate()
        {
            let mut logits = self.logits_in(Precision::F32, hidden)?;
            let capped = shared.config.logit_softcap.map(|cap| (cap, logits.clone()));
            nats += loss.gradient(first + index * HEAD_TOKENS, &mut logits)?;
            if let Some((cap, capped)) = capped {
                ndarray::Zip::from(&mut logits).and(&capped).par_for_each(|gradient, logit| {
                    *gradient *= 1.0 - (logit / cap).powi(2);
                });
            }
            gradients.output(hidden, logits.view());
            gemm(1.0, logits.view(), output.view(), 0.0, at_hidden);
        }
        let (weight, epsilon) = (&shared.final_norm, shared.config.norm_epsilon);
        if shared.final_bias.is_some() {
            let [of_weight, of_bias] = layer_norm_backward(&residual, weight, epsilon, &mut at_hidden);
            gradients.final_norm(of_weight, Some(of_bias));
        } else {
            gradients.final_norm(rms_norm_backward(&residual, weight, epsilon, &mut at_hidden), None);
        }
        Ok((nats, at_hidden))
    }
}
