//! The mixture of experts: which tokens go where, and how their results come back.

use super::plan::Feeds;
use super::{Block, BlockState, Role, walk};
use crate::ops::exp;
use ndarray::{Array2, ArrayView1, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which tokens calibration shows to an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExpertTokens {
    /// Those that the router sends to it, as in inference.
    #[default]
    Routed,
    /// Every token.
    All,
}

/// A batch on its way through the experts of a block.
#[derive(Debug, Clone)]
pub(crate) struct Routed {
    /// What experts read, `[tokens, hidden]`.
    pub(crate) input: Array2<f32>,
    /// For each expert the rows sent to it, in order, and the weight of its result there.
    pub(super) sent: Vec<Vec<(usize, f32)>>,
}

/// The rows that are sent to an expert, `[rows, hidden]`; the first to ask makes the router decide for all.
pub(super) fn input(block: &Block, expert: usize, state: &mut BlockState) -> Array2<f32> {
    let routed = routed(block, state);
    let rows = routed.sent.get(expert).map_or(&[][..], Vec::as_slice);
    let mut input = block.workspace.take(rows.len(), routed.input.ncols());
    for ((row, _), mut to) in rows.iter().zip(input.rows_mut()) {
        to.assign(&routed.input.row(*row));
    }
    input
}

/// Adds an expert's results, weighted, to the residual stream.
pub(super) fn add(block: &Block, expert: usize, outputs: Vec<Array2<f32>>, state: &mut BlockState) {
    if let Some(routed) = &state.routed {
        let rows = routed.sent.get(expert).map_or(&[][..], Vec::as_slice);
        for output in &outputs {
            for ((row, weight), result) in rows.iter().zip(output.rows()) {
                state.residual.row_mut(*row).scaled_add(*weight, &result);
            }
        }
    }
    for output in outputs {
        block.workspace.put(output);
    }
    let is_last = block.plan.stages.len() == state.stage + 1;
    if let Some(done) = state.routed.take_if(|_| is_last) {
        block.workspace.put(done.input);
    }
}

/// What an expert's stage would read if every token were sent to it.
pub(super) fn input_of_all(block: &Block, stage: usize, state: &mut BlockState) -> Option<Array2<f32>> {
    let is_of = |stage: usize, role: Role| block.plan.stages[stage].role == role;
    match block.plan.stages[stage].role {
        Role::FeedForward(Feeds::Expert(_)) => Some(routed(block, state).input.clone()),
        Role::FeedForwardOutput(Feeds::Expert(expert)) => {
            let before = (0..stage).find(|stage| is_of(*stage, Role::FeedForward(Feeds::Expert(expert))))?;
            let all = &routed(block, state).input;
            walk::activated(block, block.stage_linears(before).iter().map(|id| block.linears[*id].forward(all.view())))
        }
        _ => None,
    }
}

fn routed<'a>(block: &Block, state: &'a mut BlockState) -> &'a Routed {
    let routed = match state.routed.take() {
        Some(routed) => routed,
        None => route(block, walk::normed(block, block.plan.norms.before_feed_forward, &state.residual)),
    };
    state.routed.insert(routed)
}

fn route(block: &Block, input: Array2<f32>) -> Routed {
    let mut sent = Vec::new();
    if let (Some(router), Some(experts)) = (&block.router, &block.config.experts) {
        let scores = sparq_linalg::linear(input.view(), router.view());
        let chosen: Vec<Vec<(usize, f32)>> = (0..scores.nrows())
            .into_par_iter()
            .map(|row| choose(scores.index_axis(Axis(0), row), experts.per_token, experts.normalized))
            .collect();
        sent.resize(experts.count, Vec::new());
        for (row, experts) in chosen.into_iter().enumerate() {
            for (expert, weight) in experts {
                sent[expert].push((row, weight));
            }
        }
    }
    Routed { input, sent }
}

/// The most likely experts of one token, of equal ones the first, with their probabilities.
fn choose(scores: ArrayView1<'_, f32>, count: usize, normalized: bool) -> Vec<(usize, f32)> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|score| exp(score - largest)).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
    order.truncate(count);
    let total: f32 = if normalized { order.iter().map(|at| weights[*at]).sum() } else { weights.iter().sum() };
    order.into_iter().map(|expert| (expert, weights[expert] / total)).collect()
}

/// The gradient at the router's scores, `[tokens, experts]`, from that at the weights of those it has chosen (0 for others).
///
/// With `p` the weights: `ds = p ∘ (dp - Σ p dp)`, where the chosen share one among themselves, or all do.
pub(super) fn scores_backward(block: &Block, routed: &Routed, of_weights: Array2<f32>) -> Array2<f32> {
    let (Some(router), Some(experts)) = (&block.router, &block.config.experts) else { return of_weights };
    let scores = sparq_linalg::linear(routed.input.view(), router.view());
    let mut gradient = of_weights;
    for (scores, mut gradient) in scores.rows().into_iter().zip(gradient.rows_mut()) {
        let count = if experts.normalized { experts.per_token } else { experts.count };
        let weights = choose(scores, count, experts.normalized);
        let mean: f32 = weights.iter().map(|(expert, weight)| weight * gradient[*expert]).sum();
        for (expert, weight) in weights {
            gradient[expert] = weight * (gradient[expert] - mean);
        }
    }
    gradient
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_most_likely_experts_are_chosen_and_weighted() {
        let scores = array![1.0_f32.ln(), 3.0_f32.ln(), 4.0_f32.ln(), 2.0_f32.ln()];
        let near = |got: Vec<(usize, f32)>, wanted: &[(usize, f32)]| {
            assert_eq!(got.len(), wanted.len());
            assert!(got.iter().zip(wanted).all(|(g, w)| g.0 == w.0 && (g.1 - w.1).abs() < 1e-6), "{got:?}");
        };
        near(choose(scores.view(), 2, false), &[(2, 0.4), (1, 0.3)]);
        near(choose(scores.view(), 2, true), &[(2, 4.0 / 7.0), (1, 3.0 / 7.0)]);
        near(choose(array![0.0, 0.0, 0.0].view(), 2, true), &[(0, 0.5), (1, 0.5)]);
    }
}
