use crate::{LayerBudget, LayerReport, Recipe, Result};
use sparq_core::{LayerCompressor, Solver, Statistics};
use sparq_model::Linear;

/// A layer's rate, to make up for others, is at least this share of what it should be, and at most that.
const LEAST_CARRIED: f64 = 0.95;
const MOST_CARRIED: f64 = 1.05;

/// A recipe and its solvers: one for each budget that some layer has.
#[derive(Debug)]
pub(crate) struct Compressors {
    recipe: Recipe,
    /// None for layers that are left as they are.
    solvers: Vec<(LayerBudget, Option<Solver>)>,
}

impl Compressors {
    pub(crate) fn new(recipe: Recipe) -> Result<Self> {
        // A layer that no allocation names has the recipe's own budget.
        let mut budgets = vec![recipe.budget("")];
        for budget in recipe.allocation.iter().flat_map(|allocation| allocation.layers.values()) {
            if !budgets.contains(budget) {
                budgets.push(*budget);
            }
        }
        let solver = |budget| Ok((budget, recipe.with_budget(budget).solver()?));
        Ok(Self { solvers: budgets.into_iter().map(solver).collect::<Result<_>>()?, recipe })
    }

    /// The recipe.
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What the solvers together need to know of inputs.
    pub(crate) fn needs(&self) -> Statistics {
        let solvers = self.solvers.iter().filter_map(|(_, solver)| solver.as_ref());
        solvers.map(LayerCompressor::needs).max().unwrap_or(Statistics::Nothing)
    }

    /// Whether layers correct drift, which takes the dense model's activations beside the compressed one's.
    pub(crate) fn correct_drift(&self) -> bool {
        self.recipe.drift > 0.0 && self.needs() == Statistics::Hessian
    }

    /// The solver for a layer at a rate, which makes up for what the layers before it took more or less than theirs: so the
    /// model as a whole has its rate. None for layers without a rate.
    pub(crate) fn carried(&self, linear: &Linear, done: &[LayerReport], blocks: usize) -> Result<Option<Solver>> {
        let budget = self.recipe.budget(&linear.name);
        let Some(rate) = budget.rate else { return Ok(None) };
        let left = |report: &LayerReport| {
            // Embedding and output matrix have a rate of their own.
            let inside = report.block < blocks;
            let rate = if inside { self.recipe.budget(&report.name).rate } else { self.recipe.embeddings }?;
            Some(report.weights as f64 * (rate - report.coded_bits_per_weight))
        };
        let left: f64 = done.iter().filter_map(left).sum();
        let aim = (rate + left / linear.weight.len().max(1) as f64).clamp(rate * LEAST_CARRIED, rate * MOST_CARRIED);
        self.recipe.with_budget(LayerBudget { rate: Some(aim), ..budget }).solver()
    }

    /// The solver for the layer of this name; none if it is left as it is.
    pub(crate) fn of(&self, layer: &str) -> Option<&Solver> {
        let budget = self.recipe.budget(layer);
        let (_, solver) = self.solvers.iter().find(|(known, _)| *known == budget)?;
        solver.as_ref()
    }
}
