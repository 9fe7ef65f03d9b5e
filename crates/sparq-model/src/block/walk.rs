//! How the stages of a block are joined.
//!
//! ```text
//! x = x + norm(o(attention(q(n), k(n), v(n))))   n = norm(x)
//! x = x + norm(down(act(gate(n)) * up(n)))       n = norm(x)
//! ```
//!
//! Which of the norms exist, whether queries and keys have norms of their own, whether there is a gate, and whether the
//! second line runs for every token or for those sent to one expert after the other, is a matter of the block's plan.

use super::plan::{Feeds, Norm, Role};
use super::{BatchLayout, Block, BlockState, attention, experts};
use crate::NormKind;
use crate::ops::{add, layer_norm, rms_norm};
use ndarray::Array2;

/// Computes the input of a stage, `[tokens, in]`, from the residual stream, where it is not what the stage before has left.
pub(super) fn input(block: &Block, stage: usize, state: &mut BlockState) -> Array2<f32> {
    let norms = block.plan.norms;
    match block.plan.stages[stage].role {
        Role::Attention => normed(block, norms.before_attention, &state.residual),
        Role::FeedForward(Feeds::AllTokens) => normed(block, norms.before_feed_forward, &state.residual),
        Role::FeedForward(Feeds::Expert(expert)) => experts::input(block, expert, state),
        // The order of stages, which `Block` checks, leaves these an input.
        Role::AttentionOutput | Role::FeedForwardOutput(_) => Array2::zeros((state.layout.tokens(), 0)),
    }
}

/// Takes the outputs of a stage's linears; not called for stages whose output is added to the residual stream.
///
/// What the next stage reads is made of them at once: a batch that waits for others keeps one matrix, not two or three.
pub(super) fn advance(block: &Block, stage: usize, outputs: Vec<Array2<f32>>, state: &mut BlockState) {
    let norms = block.plan.norms;
    match block.plan.stages[stage].role {
        Role::Attention => state.input = attended(block, outputs, state),
        Role::FeedForward(_) => state.input = activated(block, outputs),
        Role::AttentionOutput => add_normed(block, norms.after_attention, outputs, state),
        Role::FeedForwardOutput(Feeds::AllTokens) => add_normed(block, norms.after_feed_forward, outputs, state),
        Role::FeedForwardOutput(Feeds::Expert(expert)) => experts::add(block, expert, outputs, state),
    }
}

fn attended(block: &Block, outputs: Vec<Array2<f32>>, state: &mut BlockState) -> Option<Array2<f32>> {
    let norms = block.plan.norms;
    let [mut queries, mut keys, values] = <[Array2<f32>; 3]>::try_from(outputs).ok()?;
    for (rotated, norm) in [(&mut queries, norms.queries), (&mut keys, norms.keys)] {
        turn(block, norm, rotated, &state.layout);
    }
    let attended = attention::attend(block, &queries, &keys, &values, state);
    for done in [queries, keys, values] {
        block.workspace.put(done);
    }
    Some(attended)
}

/// What becomes of queries or keys before they are compared.
pub(super) fn turn(block: &Block, norm: Option<Norm>, x: &mut Array2<f32>, layout: &BatchLayout) {
    apply_norm(block, norm, x);
    if let Some(rope) = &block.rope {
        rope.rotate(x, layout);
    }
}

/// A normalised copy.
pub(super) fn normed(block: &Block, norm: Option<Norm>, residual: &Array2<f32>) -> Array2<f32> {
    let mut normed = block.workspace.take(residual.nrows(), residual.ncols());
    normed.assign(residual);
    apply_norm(block, norm, &mut normed);
    normed
}

fn apply_norm(block: &Block, norm: Option<Norm>, x: &mut Array2<f32>) {
    let Some(norm) = norm else { return };
    let epsilon = block.config.norm_epsilon;
    let weight = &block.vectors[norm.weight];
    match (block.config.norm, norm.bias) {
        (NormKind::Layer, Some(bias)) => layer_norm(x, weight, &block.vectors[bias], epsilon),
        _ => rms_norm(x, weight, epsilon),
    }
}

fn add_normed(block: &Block, norm: Option<Norm>, outputs: Vec<Array2<f32>>, state: &mut BlockState) {
    for mut output in outputs {
        apply_norm(block, norm, &mut output);
        add(&mut state.residual, &output);
        block.workspace.put(output);
    }
}

/// `act(gate) * up`, or `act(up)` where there is no gate.
pub(super) fn activated(block: &Block, outputs: impl IntoIterator<Item = Array2<f32>>) -> Option<Array2<f32>> {
    let mut outputs = outputs.into_iter();
    let mut first = outputs.next()?;
    let activation = block.config.activation;
    match (first.as_slice_mut(), outputs.next()) {
        (Some(gate), Some(up)) => {
            activation.gate(gate, up.as_slice().unwrap_or_default());
            block.workspace.put(up);
        }
        (Some(up), None) => activation.apply(up),
        _ => {}
    }
    Some(first)
}
