//! What one of several processes does and exchanges.

use crate::compressors::Compressors;
use crate::damping_choice::HeldOut;
use crate::stage_drift::StageDrift;
use crate::targets::Matcher;
use crate::{Recipe, Result, parts};
use serde::{Deserialize, Serialize};
use sparq_core::{PARTS, Statistics};
use sparq_model::Model;
use std::fmt;

/// Dampings that are tried for a stage, as a rule.
const TRIES: u64 = 3;

/// The share of the process that has most, of a compression that several share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sharing {
    /// Processes.
    pub processes: usize,
    /// Fraction of the calibration tokens whose activations it holds and runs.
    pub token_share: f64,
    /// Floating-point operations of products with tokens: the forward pass and statistics.
    pub token_operations: f64,
    /// The same of solving: its rows, and factors, which every process makes. Those of `f64` count twice.
    pub solve_operations: f64,
    /// Bytes that it sends or receives: sums over tokens on their way up a tree and back, solved rows, and what the first
    /// process writes after each block, so that another run can go on.
    pub exchanged_bytes: u64,
    /// Of these, the most for one stage of a block.
    pub stage_bytes: u64,
    /// Messages that it waits for, one after the other.
    pub messages: u64,
}

/// The largest share of tokens that one of so many processes has.
pub(crate) fn token_share(processes: usize) -> f64 {
    PARTS.div_ceil(processes.max(1)) as f64 / PARTS as f64
}

impl Sharing {
    /// Of this recipe by so many processes. `held_out`: damping is chosen on held-out tokens.
    pub(crate) fn new(
        model: &Model,
        recipe: &Recipe,
        compressors: &Compressors,
        targets: &Matcher,
        (tokens, processes): (usize, usize),
    ) -> Result<Self> {
        let (needs, drifts) = (compressors.needs(), compressors.correct_drift());
        let rises = u64::from(processes.next_power_of_two().ilog2());
        let own = tokens as f64 * token_share(processes);
        let mut sharing = Self {
            processes,
            token_share: token_share(processes),
            token_operations: 0.0,
            solve_operations: 0.0,
            exchanged_bytes: 0,
            stage_bytes: 0,
            messages: 0,
        };
        for block in 0..model.block_count() {
            let plan = model.block_plan(block)?;
            for stage in 0..plan.stages() {
                let linears: Vec<_> = plan.stage_linears(stage).iter().map(|id| &plan.linears()[*id]).collect();
                let weights: usize = linears.iter().map(|linear| linear.weights()).sum();
                let streams = if drifts { 2.0 } else { 1.0 };
                sharing.token_operations += 2.0 * own * weights as f64 * streams;
                let solved: Vec<_> = linears
                    .iter()
                    .filter(|linear| targets.contains(&linear.name) && compressors.of(&linear.name).is_some())
                    .collect();
                let Some(first) = solved.first() else { continue };
                let width = first.in_features as u64;
                let drift = if drifts && !plan.is_routed(stage) { StageDrift::values(plan, stage) } else { 0 };
                let (sum, squares) = match needs {
                    Statistics::Hessian => (2 * width * (width + 1) + 4 * drift, width * width),
                    Statistics::ChannelNorms => (4 * width, width),
                    _ => (0, 0),
                };
                sharing.token_operations += own * (squares + 2 * drift) as f64;
                let chooses = recipe.held_out > 0.0 && HeldOut::serves(plan, stage);
                let (sums, solves) = if chooses { (2, 1 + TRIES) } else { (1, 1) };
                if needs == Statistics::Hessian {
                    let squares = (width * width) as f64;
                    // A Cholesky factor and its inverse.
                    sharing.solve_operations += 8.0 / 3.0 * squares * width as f64 * solves as f64;
                    let largest: f64 = solved.iter().map(|linear| own_rows(linear.out_features, processes)).sum();
                    let pruned = solved.iter().any(|linear| !recipe.budget(&linear.name).sparsity.is_dense());
                    let once = passes(recipe, pruned, drifts);
                    let tried = passes(&recipe.sketch(), pruned, drifts);
                    sharing.solve_operations += largest * squares * (once + (solves - 1) as f64 * tried);
                }
                let rows: u64 = solved
                    .iter()
                    .map(|linear| {
                        let budget = recipe.budget(&linear.name);
                        let code = match (budget.bits, budget.rate) {
                            (Some(bits), _) => u64::from(bits.get()).next_power_of_two(),
                            (None, Some(_)) => 16,
                            (None, None) => 32,
                        };
                        let mask = u64::from(!budget.sparsity.is_dense());
                        linear.weights() as u64 * (code + mask) / 8
                    })
                    .sum();
                let stage_bytes = sums * sum * (rises + 1) + solves * rows;
                sharing.exchanged_bytes += stage_bytes;
                sharing.stage_bytes = sharing.stage_bytes.max(stage_bytes);
                // Up the tree and back; of each layer the decision to go on, a check of its target and its rows.
                let of_layers = solved.len() as u64 * solves * (1 + (1 + u64::from(drifts)) * processes as u64);
                sharing.messages += sums * (rises + 1) + of_layers;
            }
        }
        let others = (tokens as f64 * (1.0 - token_share(processes))) as u64;
        let commits = model.block_count().saturating_sub(1) as u64;
        sharing.exchanged_bytes += commits * others * model.memory_estimate().residual_per_token;
        Ok(sharing)
    }
}

/// Rows of a layer that the process with most of them solves.
fn own_rows(rows: usize, processes: usize) -> f64 {
    let units = parts::units(rows);
    units.div_ceil(processes) as f64 / units as f64 * rows as f64
}

/// Operations of solving a layer, for each of its rows and squares of its width.
fn passes(recipe: &Recipe, pruned: bool, drifts: bool) -> f64 {
    let refit = if pruned && recipe.refit > 0 { 2 * (recipe.refit + 1) * recipe.mask_rounds.max(1) } else { 0 };
    let sweep = if pruned && recipe.act_order { 2 } else { 1 };
    let descent = if recipe.descent > 0 { 2 + 4 * recipe.descent } else { 0 };
    let (drift, errors) = (if drifts { 6 } else { 0 }, 2);
    (sweep + refit + descent + drift + errors) as f64
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "each of {} processes at most: {:.1} % of the tokens, {:.2} TFLOP with them, {:.2} TFLOP of solving, {:.1} MB to \
             exchange ({:.1} MB for a stage) in {} messages",
            self.processes,
            100.0 * self.token_share,
            self.token_operations / 1e12,
            self.solve_operations / 1e12,
            self.exchanged_bytes as f64 / 1e6,
            self.stage_bytes as f64 / 1e6,
            self.messages,
        )
    }
}
