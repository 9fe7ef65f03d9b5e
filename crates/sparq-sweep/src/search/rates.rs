//! Rates layer by layer for codes without a width.

use super::base::Base;
use super::{Inputs, Search};
use crate::Result;
use crate::store::{Store, fingerprint};
use crate::sweep::compression_error;
use ndarray::Array2;
use sparq_core::{LayerCompressor, LayerProblem, Observer};
use sparq_model::{Linear, Model};
use sparq_pipeline::{Allocation, Calibration, LayerBudget};
use sparq_quant::{RowStep, Step};
use std::path::Path;

/// The least share of the mean damage of a bit that a unit is taken to have: what was measured near 0 is not free.
const FLOOR: f64 = 0.02;
/// Bits by which a rate differs from the mean at most.
const MOST_OFF: f64 = 2.5;
/// Bits by which embedding and output matrix are measured above the mean: nothing makes up for their errors.
const VOCABULARY_OFF: f64 = 2.0;

/// Rates of every layer, and of embedding and output matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// The layers.
    pub allocation: Allocation,
    /// Embedding and output matrix, if they take part.
    pub embeddings: Option<f64>,
}

/// One thing that has a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Priced {
    weights: f64,
    /// Divergence of the whole model with this alone compressed.
    divergence: f64,
    /// At this many bits a weight.
    rate: f64,
}

impl Search {
    /// Rates for layers, and with `embeddings` for embedding and output matrix, whose mean, by their numbers of weights, is
    /// `rate`, such that a bit more would help the whole model as much in one place as in another.
    ///
    /// One walk solves layers once at the mean rate and measures the divergence of the whole model from the base with only
    /// this layer compressed, on the probe text. In deep models this is done in about ten blocks; layers between them that
    /// play the same part are taken to lie between them. Where codes are fine, an error falls to a quarter with one bit more. So
    /// a layer whose divergence for each of its weights is four times another's gets one bit more.
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
        (rate, embeddings): (f64, bool),
        directory: Option<&Path>,
        observer: &dyn Observer,
    ) -> Result<Rates> {
        let refused = |error| compression_error(&self.recipe)(sparq_pipeline::Error::from(error));
        Step::new(rate).map_err(refused)?;
        let budget = |rate| LayerBudget { sparsity: self.recipe.sparsity, bits: None, rate: Some(rate) };
        let search = Self { apart: true, sampled: true, ..self.clone().candidates(vec![budget(rate)]) };
        let store = Store::open_if_given(directory)?;
        let key = search.key(&search.trial(), &Inputs::new(model, calibration, probe, &store)?)?;
        let mut model = model.clone();
        model.make_resident()?;
        let base = Base::new(&model, probe)?;
        let curves = search.measure(&base, calibration, &store, &key, observer)?;
        let layers = curves.units.into_iter().filter_map(|mut unit| {
            let (name, weights) = unit.layers.pop()?; // measured apart
            Some((name, weights, unit.divergence))
        });
        let layers: Vec<(String, usize, f64)> = layers.collect();
        let price =
            |&(_, weights, divergence): &(String, usize, f64)| Priced { weights: weights as f64, divergence, rate };
        let mut priced: Vec<Priced> = layers.iter().map(price).collect();
        if embeddings {
            let rate = (rate + VOCABULARY_OFF).min(*Step::RATES.end());
            let key = fingerprint(&[&key, "vocabulary"]);
            let known = store.get(&key);
            let divergence = known.map_or_else(|| self.of_vocabulary(&base, rate), Ok)?;
            store.put(&key, &divergence)?;
            let weights: usize = model.vocabulary_tensors().map(|(_, [rows, width])| rows * width).sum();
            priced.push(Priced { weights: weights as f64, divergence, rate });
        }
        let rates = rates(&priced, rate);
        let of_layers = layers.into_iter().zip(&rates).map(|((name, weights, _), &rate)| (name, weights, budget(rate)));
        let allocation = Allocation::new(of_layers);
        Ok(Rates { allocation, embeddings: rates.last().copied().filter(|_| embeddings) })
    }

    /// KL(base ‖ model) with embedding and output matrix alone at a rate.
    fn of_vocabulary(&self, base: &Base<'_>, rate: f64) -> Result<f64> {
        let refused = |error| compression_error(&self.recipe)(sparq_pipeline::Error::from(error));
        let solver = RowStep::new(rate).map_err(refused)?;
        let solve = |matrix: Linear| -> Result<Array2<f32>> {
            let problem = LayerProblem::uncalibrated(&matrix.name, matrix.weight.view()).map_err(refused)?;
            Ok(solver.compress(&problem).map_err(refused)?.weight)
        };
        let matrices = base.model.vocabulary()?.into_iter().map(solve).collect::<Result<_>>()?;
        base.divergence(&base.model.with_vocabulary(matrices)?)
    }
}

/// A rate for each, with this mean.
fn rates(priced: &[Priced], mean: f64) -> Vec<f64> {
    let all: f64 = priced.iter().map(|it| it.weights).sum();
    // The damage that each would do at the mean rate.
    let at_mean = |it: &Priced| it.divergence.max(0.0) * (2.0 * (it.rate - mean)).exp2();
    let damage: f64 = priced.iter().map(at_mean).sum();
    if !(damage > 0.0 && damage.is_finite()) {
        return vec![mean; priced.len()];
    }
    let off = |it: &Priced| 0.5 * ((at_mean(it) / it.weights) / (damage / all)).max(FLOOR).log2();
    let off: Vec<f64> = priced.iter().map(off).collect();
    let (least, most) = (*Step::RATES.start(), *Step::RATES.end());
    let at = |shift: f64| {
        let rate = |off: &f64| (mean + (off + shift).clamp(-MOST_OFF, MOST_OFF)).clamp(least, most);
        off.iter().map(rate).collect::<Vec<f64>>()
    };
    let mean_at = |shift: f64| at(shift).iter().zip(priced).map(|(rate, it)| rate * it.weights).sum::<f64>() / all;
    let (mut low, mut high) = (-4.0 * MOST_OFF - 16.0, 4.0 * MOST_OFF + 16.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if mean_at(middle) < mean { low = middle } else { high = middle }
    }
    at(0.5 * (low + high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priced(weights: f64, divergence: f64) -> Priced {
        Priced { weights, divergence, rate: 3.0 }
    }

    #[test]
    fn four_times_the_damage_of_a_weight_is_worth_one_bit() {
        let found = rates(&[priced(100.0, 0.4), priced(100.0, 0.1), priced(200.0, 0.2)], 3.0);
        assert!((found[0] - found[1] - 1.0).abs() < 1e-9 && (found[1] - found[2]).abs() < 1e-9, "{found:?}");
        let mean = (found[0] + found[1] + 2.0 * found[2]) / 4.0;
        assert!((mean - 3.0).abs() < 1e-9, "{found:?}");
        // What was measured with one bit more would do four times the damage at the mean.
        let finer = Priced { rate: 4.0, ..priced(100.0, 0.1) };
        let found = rates(&[priced(100.0, 0.4), finer], 3.0);
        assert!((found[0] - found[1]).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_cannot_be_measured_is_neither_free_nor_boundless() {
        let found = rates(&[priced(100.0, 1.0), priced(100.0, -0.1), priced(100.0, 0.0)], 2.5);
        assert!(found.iter().all(|rate| (0.1..=5.0).contains(rate)), "{found:?}");
        assert!(found[0] > found[1] && (found.iter().sum::<f64>() / 3.0 - 2.5).abs() < 1e-9, "{found:?}");
        assert_eq!(rates(&[priced(1.0, 0.0), priced(2.0, 0.0)], 3.0), [3.0, 3.0]);
    }
}
