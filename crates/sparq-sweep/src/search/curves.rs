use super::knapsack::{Item, choose, total};
use super::target::Prices;
use crate::Result;
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
    /// The same of each candidate's pruning without its rounding.
    pub pruning: Vec<f64>,
    /// KL(base ‖ model) on the probe text with only these layers compressed, by the reference candidate; nats a token.
    pub divergence: f64,
    /// The part of this damage that is left when the whole model is compressed, where other layers correct some of it.
    pub remaining: Remaining,
}

/// Shares of the damage of pruning and of the damage that rounding adds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Remaining {
    /// Share of the damage of pruning alone.
    pub pruning: f64,
    /// Share of the damage that rounding adds.
    pub rounding: f64,
}

impl Remaining {
    /// All damage is left.
    pub const ALL: Remaining = Remaining { pruning: 1.0, rounding: 1.0 };
}

/// Estimated damage of each candidate to each unit of a model. It is measured once and serves any compression rate.
///
/// The damage of candidate `c` to a unit is estimated as `divergence / error(reference)`, the cost of an error in this
/// unit, times the error of `c` that is left in a compressed model: `remaining.pruning · pruning(c) +
/// remaining.rounding · (error(c) - pruning(c))`. The damages of units are added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DamageCurves {
    /// The candidates.
    pub candidates: Vec<LayerBudget>,
    /// The candidate that divergences were measured with.
    pub reference: usize,
    /// Every unit, in model order.
    pub units: Vec<Unit>,
}

impl DamageCurves {
    /// The sparsity and bits of each layer with the least estimated damage, at a theoretical compression rate of at
    /// least `target_tcr`.
    ///
    /// # Errors
    /// [`Error::Rate`](crate::Error::Rate) if no choice of candidates reaches the rate.
    pub fn allocate(&self, target_tcr: f64) -> Result<Allocation> {
        Ok(self.allocation(&self.choose(&Prices::Rate(target_tcr))?.0))
    }

    /// The candidate of each unit that does least estimated damage, as [`allocate`](Self::allocate), and that damage.
    pub(super) fn choose(&self, prices: &Prices) -> Result<(Vec<usize>, f64)> {
        let (items, budget) = self.problem(prices);
        let choice = choose(&items, budget).ok_or_else(|| prices.refused(&self.candidates))?;
        let damage = total(&items, &choice);
        Ok((self.as_held(prices, choice), damage))
    }

    /// The same where units have the errors of what stands in for their candidates.
    pub(super) fn held(mut self, prices: &Prices) -> Self {
        for unit in &mut self.units {
            let stand_ins =
                (0..self.candidates.len()).map(|candidate| prices.stand_in(&self.candidates, unit, candidate));
            let stand_ins: Vec<usize> = stand_ins.collect();
            for errors in [&mut unit.errors, &mut unit.pruning] {
                *errors = stand_ins.iter().map(|&at| errors.get(at).copied().unwrap_or(0.0)).collect();
            }
        }
        self
    }

    /// A choice of which every unit is held, where others stand in for candidates.
    pub(super) fn as_held(&self, prices: &Prices, choice: Vec<usize>) -> Vec<usize> {
        let held = |(unit, candidate)| prices.stand_in(&self.candidates, unit, candidate);
        self.units.iter().zip(choice).map(held).collect()
    }

    /// The allocation of a choice of candidates.
    pub(super) fn allocation(&self, choice: &[usize]) -> Allocation {
        let layers = self.units.iter().zip(choice).flat_map(|(unit, &candidate)| {
            let budget = self.candidates[candidate];
            unit.layers.iter().map(move |(name, weights)| (name.clone(), *weights, budget))
        });
        Allocation::new(layers)
    }

    /// Each unit's costs and estimated damages, and the bound of the sum of costs.
    pub(super) fn problem(&self, prices: &Prices) -> (Vec<Item>, f64) {
        let costs: Vec<Vec<f64>> = self.units.iter().map(|unit| prices.costs(&self.candidates, unit)).collect();
        let budget = prices.budget(&self.units, &costs);
        let item = |(unit, costs)| Item { costs, damages: self.damages(unit) };
        (self.units.iter().zip(costs).map(item).collect(), budget)
    }

    fn damages(&self, unit: &Unit) -> Vec<f64> {
        let left = |candidate| {
            let Damage { pruning, rounding } = self.damage(unit, candidate);
            unit.remaining.pruning * pruning + unit.remaining.rounding * rounding
        };
        (0..self.candidates.len()).map(left).collect()
    }

    /// The damage of a candidate to a unit if all of it is left.
    pub(super) fn damage(&self, unit: &Unit, candidate: usize) -> Damage {
        let of = |errors: &[f64], candidate: usize| errors.get(candidate).copied().unwrap_or(0.0);
        let reference = of(&unit.errors, self.reference);
        let scale = if reference > 0.0 { unit.divergence / reference } else { 0.0 };
        let (error, pruning) = (of(&unit.errors, candidate), of(&unit.pruning, candidate));
        Damage { pruning: scale * pruning, rounding: scale * (error - pruning).max(0.0) }
    }
}

/// Damage in nats a token, of pruning and of rounding on top of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Damage {
    pub(super) pruning: f64,
    pub(super) rounding: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparq_core::{Bits, Sparsity};

    fn curves() -> DamageCurves {
        let budget = |s| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(Bits::B4), rate: None };
        let unit = |block, divergence| Unit {
            block,
            layers: vec![(format!("layers.{block}.q"), 60), (format!("layers.{block}.k"), 40)],
            errors: vec![0.01, 0.02, 0.08],
            pruning: vec![0.0, 0.01, 0.07],
            divergence,
            remaining: Remaining::ALL,
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
