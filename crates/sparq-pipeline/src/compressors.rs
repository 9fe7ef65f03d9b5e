use crate::{LayerBudget, Recipe, Result};
use sparq_core::{LayerCompressor, Solver, Statistics};

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

    /// The solver for the layer of this name; none if it is left as it is.
    pub(crate) fn of(&self, layer: &str) -> Option<&Solver> {
        let budget = self.recipe.budget(layer);
        let (_, solver) = self.solvers.iter().find(|(known, _)| *known == budget)?;
        solver.as_ref()
    }
}
