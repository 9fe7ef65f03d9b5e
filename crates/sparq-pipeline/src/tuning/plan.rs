use super::{JUDGING_TOKENS, STEP_TOKENS};
use crate::{Calibration, Result};
use serde::{Deserialize, Serialize};
use sparq_model::Model;
use std::fmt;

/// Bytes of a weight with a code while it is tuned: what the dense and the compressed model multiply by, the step before
/// it is rounded with its gradient, two means and the best so far, and the code it began with.
const BYTES_OF_A_CODE: u64 = 4 + 4 + 5 * 4 + 2;

/// What tuning will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TuningPlan {
    pub(crate) steps: usize,
    /// Predicted peak of memory.
    pub(crate) bytes: u64,
    /// Floating-point operations of all products.
    pub(crate) operations: u64,
    /// What is kept on disk to go on from.
    pub(crate) disk_bytes: u64,
}

impl TuningPlan {
    /// Of so many steps, where `weights` have codes.
    pub(crate) fn new(model: &Model, steps: usize, weights: u64, calibration: &Calibration) -> Result<Self> {
        let (estimate, config) = (model.memory_estimate(), model.config());
        let (mut inside, mut in_blocks) = (0, 0_u64);
        for index in 0..model.block_count() {
            let plan = model.block_plan(index)?;
            inside = inside.max(plan.backward_per_token(config.hidden_size));
            in_blocks += plan.linears().iter().map(|linear| linear.weights() as u64).sum::<u64>();
        }
        let tokens = STEP_TOKENS.max(calibration.longest()) as u64;
        let streams = (model.block_count() as u64 + 4) * tokens * estimate.residual_per_token;
        let logits = 3 * estimate.logits;
        let judging = (JUDGING_TOKENS as u64).max(tokens) * 2 * estimate.residual_per_token;
        let bytes = BYTES_OF_A_CODE * weights
            + 2 * estimate.all_blocks.saturating_sub(4 * weights)
            + 4 * tokens * inside as u64
            + 3 * estimate.block
            + streams
            + logits
            + judging
            + 2 * estimate.embeddings;
        // Forward, once more, and the gradients at inputs and weights; the dense model's forward pass. Of the output matrix two
        // passes forward and one back.
        let output = (config.vocab_size * config.hidden_size) as u64;
        let operations = steps as u64 * tokens * 2 * (5 * in_blocks + 3 * output);
        Ok(Self { steps, bytes, operations, disk_bytes: 4 * 4 * weights })
    }
}

impl fmt::Display for TuningPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tera = self.operations as f64 / 1e12;
        write!(f, "tuning in {} steps takes {tera:.1} T floating-point operations", self.steps)
    }
}

/// How a tuning went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TuningReport {
    /// Steps taken.
    pub steps: usize,
    /// Sequences that steps were taken on.
    pub sequences: usize,
    /// Tokens of other sequences of the same text, on which the best state was chosen.
    pub judging_tokens: usize,
    /// Mean divergence from the dense model on those, in nats a token, before any step.
    /// None if the text was too short to judge by.
    pub before: Option<f64>,
    /// The same of the state that was chosen.
    pub after: Option<f64>,
    /// Wall time, of the part that ended here.
    pub seconds: f64,
}
