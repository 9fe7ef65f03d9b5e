use super::Model;
use crate::ops::{Softmax, exp};
use crate::{Error, Result};
use ndarray::{Array2, ArrayView1, Axis, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use std::fmt;

/// What a backward pass goes down: a function of the logits of a batch.
pub trait Loss: fmt::Debug {
    /// Replaces the logits of tokens `first` and those after it, `[tokens, vocabulary]`, by the gradient of the loss at them,
    /// and returns their share of the loss.
    ///
    /// # Errors
    /// What the loss needs to know and cannot find out; [`Error::Shape`](crate::Error::Shape) for tokens it has no target for.
    fn gradient(&self, first: usize, logits: &mut Array2<f32>) -> Result<f64>;
}

/// The mean cross-entropy of targets, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropy {
    /// One a token; none for tokens that do not count.
    targets: Vec<Option<u32>>,
    counted: usize,
}

impl CrossEntropy {
    /// Of one target a token of the batch; none for tokens that do not count.
    pub fn new(targets: Vec<Option<u32>>) -> Self {
        let counted = targets.iter().flatten().count();
        Self { targets, counted }
    }

    /// Of each sequence's next tokens, which its last token has none of.
    pub fn of_next_tokens(batch: &[&[u32]]) -> Self {
        let next = |tokens: &&[u32]| (1..=tokens.len()).map(|at| tokens.get(at).copied()).collect::<Vec<_>>();
        Self::new(batch.iter().flat_map(next).collect())
    }
}

impl Loss for CrossEntropy {
    fn gradient(&self, first: usize, logits: &mut Array2<f32>) -> Result<f64> {
        let targets = rows_of(&self.targets, first, logits.nrows())?;
        descend(logits, targets, 1.0 / (self.counted.max(1)) as f32)
    }
}

/// The mean cross-entropy of tokens that are drawn from what the model itself says: its value is an entropy, and the expected
/// square of its gradients is the Fisher information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampledLabels {
    tokens: usize,
    seed: u64,
}

impl SampledLabels {
    /// For batches of so many tokens; the same seed draws the same.
    pub fn new(tokens: usize, seed: u64) -> Self {
        Self { tokens, seed }
    }
}

impl Loss for SampledLabels {
    fn gradient(&self, first: usize, logits: &mut Array2<f32>) -> Result<f64> {
        let rows: Vec<_> = logits.rows().into_iter().collect();
        let targets: Vec<Option<u32>> =
            rows.into_par_iter().enumerate().map(|(row, logits)| Some(self.draw(first + row, logits))).collect();
        descend(logits, &targets, 1.0 / self.tokens.max(1) as f32)
    }
}

impl SampledLabels {
    fn draw(&self, row: usize, logits: ArrayView1<'_, f32>) -> u32 {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(row as u64);
        let share = random.next_u32() as f32 / u32::MAX as f32;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = logits.iter().map(|logit| exp(logit - largest)).sum();
        let mut left = share * total;
        let drawn = logits.iter().position(|logit| {
            left -= exp(logit - largest);
            left <= 0.0
        });
        drawn.unwrap_or_else(|| logits.len().saturating_sub(1)) as u32
    }
}

/// The mean divergence KL(reference ‖ model) of next tokens, in nats.
#[derive(Debug, Clone)]
pub struct Divergence<'a> {
    reference: &'a Model,
    hidden: Array2<f32>,
}

impl<'a> Divergence<'a> {
    /// From `reference`, whose hidden states of the batch, as [`hidden`](Model::hidden) returns them, are `[tokens, hidden]`.
    pub fn new(reference: &'a Model, hidden: Array2<f32>) -> Self {
        Self { reference, hidden }
    }
}

impl Loss for Divergence<'_> {
    fn gradient(&self, first: usize, logits: &mut Array2<f32>) -> Result<f64> {
        let rows = first..first + logits.nrows();
        if rows.end > self.hidden.nrows() {
            return Err(too_many(rows.end, self.hidden.nrows()));
        }
        let reference = self.reference.logits(self.hidden.slice(s![rows, ..]))?;
        if reference.dim() != logits.dim() {
            let (expected, found) = (reference.shape().to_vec(), logits.shape().to_vec());
            return Err(Error::Shape { what: "logits, against those of the reference".to_owned(), expected, found });
        }
        let share = 1.0 / self.hidden.nrows().max(1) as f32;
        let losses: Vec<f64> = logits
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(reference.axis_iter(Axis(0)))
            .map(|(mut logits, reference)| {
                let of_reference = log_sum_exp(reference);
                let of_model = log_sum_exp(logits.view());
                let mut loss = 0.0;
                for (logit, wanted) in logits.iter_mut().zip(reference) {
                    let (log_model, log_wanted) = (*logit - of_model, wanted - of_reference);
                    let wanted = exp(log_wanted);
                    loss += f64::from(wanted) * f64::from(log_wanted - log_model);
                    *logit = share * (exp(log_model) - wanted);
                }
                loss
            })
            .collect();
        Ok(losses.into_iter().sum::<f64>() * f64::from(share))
    }
}

/// Replaces logits by the gradient of the cross-entropy, times `share`.
fn descend(logits: &mut Array2<f32>, targets: &[Option<u32>], share: f32) -> Result<f64> {
    let vocabulary = logits.ncols();
    for (position, target) in targets.iter().enumerate() {
        if let Some(token) = target.filter(|token| *token as usize >= vocabulary) {
            return Err(Error::TokenOutOfVocabulary { token, position, vocabulary });
        }
    }
    let losses: Vec<f64> = logits
        .axis_iter_mut(Axis(0))
        .into_par_iter()
        .zip(targets.par_iter())
        .map(|(mut logits, target)| {
            let Some(target) = target else {
                logits.fill(0.0);
                return 0.0;
            };
            let total = log_sum_exp(logits.view());
            let loss = total - logits[*target as usize];
            logits.mapv_inplace(|logit| share * exp(logit - total));
            logits[*target as usize] -= share;
            f64::from(loss)
        })
        .collect();
    Ok(losses.into_iter().sum::<f64>() * f64::from(share))
}

fn log_sum_exp(logits: ArrayView1<'_, f32>) -> f32 {
    let logits = logits.as_standard_layout();
    let softmax = Softmax::of(logits.as_slice().unwrap_or_default()); // a standard layout is a slice
    softmax.max + softmax.log_sum as f32
}

fn rows_of(targets: &[Option<u32>], first: usize, rows: usize) -> Result<&[Option<u32>]> {
    targets.get(first..first + rows).ok_or_else(|| too_many(first + rows, targets.len()))
}

fn too_many(tokens: usize, known: usize) -> Error {
    Error::Shape { what: "tokens of a loss".to_owned(), expected: vec![known], found: vec![tokens] }
}
