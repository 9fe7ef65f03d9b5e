//! The target of a search, and the cost of each candidate.

use super::Unit;
use super::knapsack::BUDGET_SLACK;
use crate::{Error, Result};
use serde::Serialize;
use sparq_export::{ExportFormat, ExportSettings};
use sparq_model::Model;
use sparq_pipeline::{LayerBudget, Recipe, planned_size};
use std::collections::BTreeMap;
use std::fmt;

/// Rates are sums of many products. An excess below this is rounding.
const RATE_SLACK: f64 = 1e-9;

/// The target of a searched allocation.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A theoretical compression rate of at least this, a fraction. It counts sparsity and bits, and nothing else.
    Tcr(f64),
    /// Weight files that take no more than this. Sparsity is worth nothing here in any format that stores zeros as it stores
    /// other codes: give the search [candidates](super::Search::candidates) that differ by their bits.
    File {
        /// Bytes of all weight files, headers among them, and what is not compressed; of a GGUF file all of it.
        bytes: u64,
        /// How the result will be written.
        format: &'a dyn ExportFormat,
        /// With these settings.
        settings: &'a ExportSettings,
    },
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcr(rate) => write!(f, "TCr {:.2} %", 100.0 * rate),
            Self::File { bytes, .. } => write!(f, "at most {bytes} bytes"),
        }
    }
}

impl Target<'_> {
    /// The costs of candidates, or the reason why no choice of them can reach the target.
    pub(super) fn prices(&self, model: &Model, recipe: &Recipe, candidates: &[LayerBudget]) -> Result<Prices> {
        match *self {
            Self::Tcr(wanted) => {
                let highest = highest_rate(candidates);
                if !(0.0..=highest + RATE_SLACK).contains(&wanted) {
                    return Err(Error::Rate { wanted, highest });
                }
                Ok(Prices::Rate(wanted))
            }
            Self::File { bytes, format, settings } => {
                let mut prices = FilePrices { most: bytes, files: Vec::new(), layers: BTreeMap::new() };
                for &candidate in candidates {
                    let size = planned_size(model, &recipe.with_budget(candidate), format, settings)?;
                    prices.files.push(size.file_bytes);
                    for block in 0..model.block_count() {
                        for linear in model.block_plan(block)?.linears() {
                            let all: f64 = linear.stored.shape.iter().map(|&length| length as f64).product();
                            let of_tensor = size.tensors.get(linear.weight_name()).map_or(0.0, |&bytes| bytes as f64);
                            let bytes = of_tensor * linear.weights() as f64 / all;
                            prices.layers.entry(linear.name.clone()).or_default().push(bytes);
                        }
                    }
                }
                if prices.files.len() > 1 && prices.files.windows(2).all(|two| two[0] == two[1]) {
                    return Err(Error::SameSize { bytes: prices.files[0] });
                }
                if bytes < prices.least() {
                    return Err(Error::FileSize { wanted: bytes, least: prices.least() });
                }
                Ok(Prices::File(prices))
            }
        }
    }
}

/// The costs of candidates and their bound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) enum Prices {
    /// Fractions of sixteen bits a weight, at this theoretical compression rate.
    Rate(f64),
    /// Bytes.
    File(FilePrices),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct FilePrices {
    /// Largest size of the files.
    most: u64,
    /// Their size with each candidate everywhere.
    files: Vec<u64>,
    /// The size of each layer with each candidate.
    layers: BTreeMap<String, Vec<f64>>,
}

impl FilePrices {
    /// The size of all layers with a candidate.
    fn of_layers(&self, candidate: usize) -> f64 {
        self.layers.values().filter_map(|bytes| bytes.get(candidate)).sum()
    }

    /// The size of everything but the layers, given the size of the layers with each candidate: headers, and tensors
    /// that are not compressed. It differs by a few bytes between candidates; this is the largest.
    fn others(&self, of_layers: impl Fn(usize) -> f64) -> f64 {
        let others = self.files.iter().enumerate().map(|(candidate, &file)| file as f64 - of_layers(candidate));
        others.fold(0.0, f64::max)
    }

    /// The smallest size that is certain to be reached.
    fn least(&self) -> u64 {
        let smallest = (0..self.files.len()).map(|candidate| self.of_layers(candidate)).fold(f64::INFINITY, f64::min);
        (self.others(|candidate| self.of_layers(candidate)) + smallest).ceil() as u64
    }
}

impl Prices {
    /// The cost of each candidate in a unit.
    pub(super) fn costs(&self, candidates: &[LayerBudget], unit: &Unit) -> Vec<f64> {
        match self {
            Self::Rate(_) => {
                let weights: f64 = unit.layers.iter().map(|(_, weights)| *weights as f64).sum();
                candidates.iter().map(|candidate| weights * candidate.cost()).collect()
            }
            Self::File(prices) => {
                let of_layer = |name: &str, candidate: usize| {
                    let bytes = prices.layers.get(name).and_then(|bytes| bytes.get(candidate));
                    bytes.copied().unwrap_or(0.0)
                };
                let of_unit = |candidate| unit.layers.iter().map(|(name, _)| of_layer(name, candidate)).sum();
                (0..candidates.len()).map(of_unit).collect()
            }
        }
    }

    /// The bound of the sum of all units' costs.
    pub(super) fn budget(&self, units: &[Unit], costs: &[Vec<f64>]) -> f64 {
        match self {
            Self::Rate(rate) => {
                let weights = units.iter().flat_map(|unit| &unit.layers).map(|(_, weights)| *weights as f64);
                (1.0 - rate) * weights.sum::<f64>()
            }
            Self::File(prices) => {
                let left =
                    prices.most as f64 - prices.others(|candidate| costs.iter().map(|costs| costs[candidate]).sum());
                // The search allows for rounding in sums, but must not exceed the target by a single byte.
                (left + 0.5) / (1.0 + BUDGET_SLACK)
            }
        }
    }

    /// The error for a target that no choice of candidates reaches.
    pub(super) fn refused(&self, candidates: &[LayerBudget]) -> Error {
        match self {
            Self::Rate(wanted) => Error::Rate { wanted: *wanted, highest: highest_rate(candidates) },
            Self::File(prices) => Error::FileSize { wanted: prices.most, least: prices.least() },
        }
    }
}

/// The rate with the cheapest candidate everywhere.
fn highest_rate(candidates: &[LayerBudget]) -> f64 {
    1.0 - candidates.iter().map(LayerBudget::cost).fold(f64::INFINITY, f64::min)
}
