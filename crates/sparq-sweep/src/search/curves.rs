use super::knapsack::{Item, choose};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sparq_pipeline::{Allocation, LayerBudget};

/// Layers that read the same input, and get the same sparsity and bits so that engines can run them as one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Index of the block.
    pub block: usize,
    /// Full module names and numbers of weights.
    pub layers: Vec<(String, usize)>,
    /// Relative output error of each candidate, summed over the layers.
    pub errors: Vec<f64>,
    /// KL(base ‖ model) on the probe text with only these layers compressed, by the reference candidate; nats a token.
    pub divergence: f64,
    /// What part of this damage is left in a model that is compressed as a whole, where others make up for some of it.
    pub remaining: f64,
}

/// What each candidate would do to each unit of a model: measured once, good for any compression rate.
///
/// The damage of candidate `c` to a unit is estimated as `remaining · divergence · error(c) / error(reference)`: the
/// unit's own share in the model's divergence, carried over to other candidates by the error of its layers. Damages are
/// taken to add up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DamageCurves {
    /// What was tried.
    pub candidates: Vec<LayerBudget>,
    /// The candidate that divergences were measured with.
    pub reference: usize,
    /// Every unit, in model order.
    pub units: Vec<Unit>,
}

impl DamageCurves {
    /// Sparsity and bits for each layer that do least estimated damage at a theoretical compression rate of at least
    /// `target_tcr`.
    ///
    /// # Errors
    /// [`Error::Rate`] if no choice of candidates reaches the rate.
    pub fn allocate(&self, target_tcr: f64) -> Result<Allocation> {
        Ok(self.allocation(&self.choose(target_tcr)?))
    }

    /// The candidate of each unit that does least estimated damage, as [`allocate`](Self::allocate).
    pub(super) fn choose(&self, target_tcr: f64) -> Result<Vec<usize>> {
        let (items, costs) = (self.items(), self.costs());
        let cheapest = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let refused = || Error::Rate { wanted: target_tcr, highest: 1.0 - cheapest };
        choose(&items, &costs, self.budget(target_tcr)).ok_or_else(refused)
    }

    /// What the layers get under a choice of candidates.
    pub(super) fn allocation(&self, choice: &[usize]) -> Allocation {
        let layers = self.units.iter().zip(choice).flat_map(|(unit, &candidate)| {
            let budget = self.candidates[candidate];
            unit.layers.iter().map(move |(name, weights)| (name.clone(), *weights, budget))
        });
        Allocation::new(layers)
    }

    /// Sizes of the units, and estimated damages.
    pub(super) fn items(&self) -> Vec<Item> {
        self.units.iter().map(|unit| self.item(unit)).collect()
    }

    /// Cost of a weight under each candidate.
    pub(super) fn costs(&self) -> Vec<f64> {
        self.candidates.iter().map(LayerBudget::cost).collect()
    }

    /// What all weights may cost together at a rate.
    pub(super) fn budget(&self, target_tcr: f64) -> f64 {
        (1.0 - target_tcr) * self.items().iter().map(|item| item.weights).sum::<f64>()
    }

    fn item(&self, unit: &Unit) -> Item {
        let weights = unit.layers.iter().map(|(_, weights)| *weights as f64).sum();
        let reference = unit.errors.get(self.reference).copied().unwrap_or(0.0);
        let scale = if reference > 0.0 { unit.remaining * unit.divergence / reference } else { 0.0 };
        Item { weights, damages: unit.errors.iter().map(|error| scale * error).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparq_core::{Bits, Sparsity};

    fn curves() -> DamageCurves {
        let budget = |s| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(Bits::B4) };
        let unit = |block, divergence| Unit {
            block,
            layers: vec![(format!("layers.{block}.q"), 60), (format!("layers.{block}.k"), 40)],
            errors: vec![0.01, 0.02, 0.08],
            divergence,
            remaining: 1.0,
        };
        DamageCurves {
            candidates: vec![budget(0.0), budget(0.25), budget(0.5)],
            reference: 1,
            units: vec![unit(0, 0.5), unit(1, 0.01), unit(2, 0.01)],
        }
    }

    #[test]
    fn the_rate_is_met_and_the_sensitive_are_spared() {
        let allocation = curves().allocate(0.8125).expect("possible");
        assert!(allocation.tcr >= 0.8125 - 1e-9, "{}", allocation.tcr);
        let sparsity = |name: &str| allocation.layers[name].sparsity.fraction();
        assert_eq!((sparsity("layers.0.q"), sparsity("layers.0.k")), (0.0, 0.0));
        assert!(sparsity("layers.1.q") + sparsity("layers.2.q") >= 0.75);
    }

    #[test]
    fn a_rate_out_of_reach_is_refused() {
        let error = curves().allocate(0.9).expect_err("50 % and 4 bits are 87.5 %").to_string();
        assert!(error.contains("87.5"), "{error}");
    }
}
