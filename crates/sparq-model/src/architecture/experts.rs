//! Mixtures of experts, in the layouts that checkpoints have them in.

use super::{Has, decoder};
use crate::block::{Feeds, PlanBuilder};

/// A router and experts, each with tensors of its own below `{module}.experts`, its projections called `names` (gate, up,
/// down); or, where the checkpoint has it so, with all experts in two tensors of three dimensions below `mlp.experts`.
pub(super) fn feed_forward(plan: &mut PlanBuilder<'_>, index: usize, has: Has<'_>, module: &str, names: [&str; 3]) {
    let config = plan.config();
    let Some(experts) = config.experts else { return decoder::feed_forward(plan) };
    let hidden = config.hidden_size;
    let stacked = has(&format!("model.layers.{index}.mlp.experts.gate_up_proj"));
    plan.router(&format!("{}.gate.weight", if stacked { "mlp" } else { module }), experts.count);
    for expert in 0..experts.count {
        let (first, down) = if stacked {
            let (of, width) = ((expert, experts.count), experts.width);
            let first = plan.stacked("mlp.experts.gate_up_proj", of, &[("gate", width), ("up", width)], hidden);
            (first, plan.stacked("mlp.experts.down_proj", of, &[("", hidden)], width))
        } else {
            let [gate, up, down] = names.map(|name| format!("{module}.experts.{expert}.{name}"));
            let gate = plan.linear(&gate, experts.width, hidden, false);
            let up = plan.linear(&up, experts.width, hidden, false);
            (vec![gate, up], vec![plan.linear(&down, hidden, experts.width, false)])
        };
        decoder::feeds(plan, Feeds::Expert(expert), first, down);
    }
}
