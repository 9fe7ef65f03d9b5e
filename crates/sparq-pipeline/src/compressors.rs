use crate::{LayerBudget, Recipe, Result};
use sparq_core::{LayerCompressor, Statistics};

/// A recipe and its methods: one for each budget that some layer has.
#[derive(Debug)]
pub(crate) struct Compressors {
    recipe: Recipe,
    /// None for layers that are left as they are.
    methods: Vec<(LayerBudget, Option<Box<dyn LayerCompressor>>)>,
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
        let method = |budget| Ok((budget, recipe.with_budget(budget).compressor()?));
        Ok(Self { methods: budgets.into_iter().map(method).collect::<Result<_>>()?, recipe })
    }

    /// The recipe.
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What the methods together need to know of inputs.
    pub(crate) fn needs(&self) -> Statistics {
        let methods = self.methods.iter().filter_map(|(_, method)| method.as_ref());
        methods.map(LayerCompressor::needs).max().unwrap_or(Statistics::Nothing)
    }

    /// Whether layers are asked to undo drift, which takes the dense model's activations beside the compressed one's.
    pub(crate) fn undo_drift(&self) -> bool {
        self.recipe.drift > 0.0 && self.needs() == Statistics::Hessian
    }

    /// The method for the layer of this name; none if it is left as it is.
    pub(crate) fn of(&self, layer: &str) -> Option<&dyn LayerCompressor> {
        let budget = self.recipe.budget(layer);
        let (_, method) = self.methods.iter().find(|(known, _)| *known == budget)?;
        method.as_deref()
    }
}
