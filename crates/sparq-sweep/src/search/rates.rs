//! Rates layer by layer for codes without a width.

use super::base::Base;
use super::{Inputs, Search, Unit};
use crate::Result;
use crate::store::Store;
use sparq_core::{Observer, Sparsity};
use sparq_model::Model;
use sparq_pipeline::{Allocation, Calibration, LayerBudget};
use sparq_quant::Step;
use std::path::Path;

/// The least share of the mean damage of a bit that a unit is taken to have: what was measured near 0 is not free.
const FLOOR: f64 = 0.02;
/// Bits by which a rate differs from the mean at most.
const MOST_OFF: f64 = 2.0;

impl Search {
    /// Rates for layers whose mean, by their numbers of weights, is `rate`, such that a bit more would help the whole model
    /// as much in one layer as in another.
    ///
    /// One walk solves every layer once at the mean rate and measures the divergence of the whole model from the base with
    /// only this layer compressed, on the probe text. Where codes are fine, an error falls to a quarter with one bit more.
    /// So a layer whose divergence for each of its weights is four times another's gets one bit more.
    ///
    /// With a `directory`, what is measured is stored there and found again.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and of [`Step::new`] for the rate.
    pub fn rates(
        &self,
        model: &Model,
        calibration: &Calibration,
        probe: &Calibration,
        rate: f64,
        directory: Option<&Path>,
        observer: &dyn Observer,
    ) -> Result<Allocation> {
        Step::new(rate).map_err(sparq_pipeline::Error::from).map_err(crate::sweep::compression_error(&self.recipe))?;
        let budget = |rate| LayerBudget { sparsity: Sparsity::DENSE, bits: None, rate: Some(rate) };
        let search = Self { apart: true, ..self.clone().candidates(vec![budget(rate)]) };
        let store = Store::open_if_given(directory)?;
        let key = search.key(&search.trial(), &Inputs::new(model, calibration, probe, &store)?)?;
        let mut model = model.clone();
        model.make_resident()?;
        let base = Base::new(&model, probe)?;
        let curves = search.measure(&base, calibration, &store, &key, observer)?;
        let rates = rates(&curves.units, rate);
        let layers = curves.units.iter().zip(rates).flat_map(|(unit, rate)| {
            unit.layers.iter().map(move |(name, weights)| (name.clone(), *weights, budget(rate)))
        });
        Ok(Allocation::new(layers))
    }
}

/// A rate for each unit, with this mean.
fn rates(units: &[Unit], mean: f64) -> Vec<f64> {
    let weights: Vec<f64> =
        units.iter().map(|unit| unit.layers.iter().map(|(_, weights)| *weights as f64).sum()).collect();
    let all: f64 = weights.iter().sum();
    let damage: f64 = units.iter().map(|unit| unit.divergence.max(0.0)).sum();
    if !(damage > 0.0 && damage.is_finite()) {
        return vec![mean; units.len()];
    }
    let off = |(unit, weights): (&Unit, &f64)| {
        let relative = (unit.divergence.max(0.0) / weights) / (damage / all);
        0.5 * relative.max(FLOOR).log2()
    };
    let off: Vec<f64> = units.iter().zip(&weights).map(off).collect();
    let (least, most) = (*Step::RATES.start(), *Step::RATES.end());
    let at = |shift: f64| {
        let rate = |off: &f64| (mean + (off + shift).clamp(-MOST_OFF, MOST_OFF)).clamp(least, most);
        off.iter().map(rate).collect::<Vec<f64>>()
    };
    let mean_at = |shift: f64| at(shift).iter().zip(&weights).map(|(rate, weights)| rate * weights).sum::<f64>() / all;
    let (mut low, mut high) = (-2.0 * MOST_OFF - 16.0, 2.0 * MOST_OFF + 16.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if mean_at(middle) < mean { low = middle } else { high = middle }
    }
    at(0.5 * (low + high))
}

#[cfg(test)]
mod tests {
    use super::super::Remaining;
    use super::*;

    fn unit(weights: usize, divergence: f64) -> Unit {
        let layers = vec![(format!("l{weights}"), weights)];
        let (errors, pruning) = (vec![0.1], vec![0.0]);
        Unit { block: 0, layers, errors, pruning, divergence, remaining: Remaining::ALL }
    }

    #[test]
    fn four_times_the_damage_of_a_weight_is_worth_one_bit() {
        let found = rates(&[unit(100, 0.4), unit(100, 0.1), unit(200, 0.2)], 3.0);
        assert!((found[0] - found[1] - 1.0).abs() < 1e-9 && (found[1] - found[2]).abs() < 1e-9, "{found:?}");
        let mean = (found[0] + found[1] + 2.0 * found[2]) / 4.0;
        assert!((mean - 3.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_cannot_be_measured_is_neither_free_nor_boundless() {
        let found = rates(&[unit(100, 1.0), unit(100, -0.1), unit(100, 0.0)], 2.5);
        assert!(found.iter().all(|rate| (0.5..=4.5).contains(rate)), "{found:?}");
        assert!(found[0] > found[1] && (found.iter().sum::<f64>() / 3.0 - 2.5).abs() < 1e-9, "{found:?}");
        assert_eq!(rates(&[unit(1, 0.0), unit(2, 0.0)], 3.0), [3.0, 3.0]);
    }
}
