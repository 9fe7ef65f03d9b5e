//! The target of a search, and the cost of each candidate.

use super::knapsack::BUDGET_SLACK;
use super::whole_model::Written;
use super::{Unit, bits};
use crate::{Error, Result};
use serde::Serialize;
use sparq_export::{ExportFormat, ExportSettings};
use sparq_model::Model;
use sparq_pipeline::{Allocation, LayerBudget, Recipe, planned_size, unfit_layers};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Rates are sums of many products. An excess below this is rounding.
const RATE_SLACK: f64 = 1e-9;

/// The target of a searched allocation.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A theoretical compression rate of at least this, a fraction. It counts sparsity and bits, and nothing else.
    Tcr(f64),
    /// Weight files that take no more than this. Sparsity is worth nothing here in any format that stores zeros as it stores
    /// other codes: give the search [candidates](super::Search::candidates) that differ by their bits. A layer that the
    /// format cannot hold with a candidate gets the next one of more bits instead.
    File {
        /// Bytes of all weight files, headers among them, and what is not compressed; of a GGUF file all of it.
        bytes: u64,
        /// How the result may be written: one format, or several that differ in embedding and output matrix, among which
        /// the search chooses.
        formats: &'a [&'a dyn ExportFormat],
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
    /// How the result is written in the format of this index, if it is.
    pub(super) fn written(&self, format: usize) -> Option<Written<'_>> {
        let Self::File { formats, settings, .. } = self else { return None };
        Some(Written { format: *formats.get(format)?, settings })
    }

    /// The costs of candidates for each format that can reach the target (one for a rate), with its index, or the reason why
    /// no choice of candidates can.
    pub(super) fn prices(
        &self,
        model: &Model,
        recipe: &Recipe,
        candidates: &[LayerBudget],
    ) -> Result<Vec<(usize, Prices)>> {
        match *self {
            Self::Tcr(wanted) => {
                let highest = highest_rate(candidates);
                if !(0.0..=highest + RATE_SLACK).contains(&wanted) {
                    return Err(Error::Rate { wanted, highest });
                }
                Ok(vec![(0, Prices::Rate(wanted))])
            }
            Self::File { bytes, formats, settings } => {
                let mut refused: Option<Error> = None;
                let mut prices = Vec::new();
                for (index, &format) in formats.iter().enumerate() {
                    match FilePrices::new(model, recipe, candidates, (bytes, format, settings)) {
                        Ok(of_format) => prices.push((index, Prices::File(of_format))),
                        // The message names what can be had.
                        Err(error @ Error::FileSize { .. }) => {
                            refused = refused.into_iter().chain([error]).min_by_key(least_size);
                        }
                        Err(error) => return Err(error),
                    }
                }
                match refused {
                    Some(error) if prices.is_empty() => Err(error),
                    _ => Ok(prices),
                }
            }
        }
    }
}

/// The smallest size that an error says can be had.
fn least_size(error: &Error) -> u64 {
    if let Error::FileSize { least, .. } = error { *least } else { u64::MAX }
}

impl FilePrices {
    fn new(
        model: &Model,
        recipe: &Recipe,
        candidates: &[LayerBudget],
        (bytes, format, settings): (u64, &dyn ExportFormat, &ExportSettings),
    ) -> Result<Self> {
        let stand_ins = stand_ins(model, recipe, candidates, format)?;
        let mut prices = Self { most: bytes, files: Vec::new(), layers: BTreeMap::new(), stand_ins };
        for index in 0..candidates.len() {
            let size = planned_size(model, &prices.everywhere(recipe, candidates, index), format, settings)?;
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
        Ok(prices)
    }

    /// The recipe with one candidate for every layer, or what stands in for it.
    fn everywhere(&self, recipe: &Recipe, candidates: &[LayerBudget], candidate: usize) -> Recipe {
        let own = recipe.with_budget(candidates[candidate]);
        let replaced = self.stand_ins.iter().filter(|(_, stand_ins)| stand_ins[candidate] != candidate);
        let layers: Vec<_> =
            replaced.map(|(name, stand_ins)| (name.clone(), 1, candidates[stand_ins[candidate]])).collect();
        if layers.is_empty() { own } else { own.with_allocation(Allocation::new(layers)) }
    }
}

/// For each layer that the format cannot hold with every candidate: which candidate stands for which, the next of more bits.
fn stand_ins(
    model: &Model,
    recipe: &Recipe,
    candidates: &[LayerBudget],
    format: &dyn ExportFormat,
) -> Result<BTreeMap<String, Vec<usize>>> {
    let unfit = |&candidate| Ok(unfit_layers(model, &recipe.with_budget(candidate), format)?);
    let mut unfit = candidates.iter().map(unfit).collect::<Result<Vec<_>>>()?;
    let names: BTreeSet<String> = unfit.iter().flat_map(BTreeMap::keys).cloned().collect();
    let mut of_layers = BTreeMap::new();
    for name in names {
        let fits = |candidate: &usize| !unfit[*candidate].contains_key(&name);
        let bits = |candidate: &usize| bits(&candidates[*candidate]);
        let fitting: Vec<usize> = (0..candidates.len()).filter(fits).collect();
        let stand_in = |candidate: usize| {
            let more = fitting.iter().copied().filter(|other| bits(other) >= bits(&candidate)).min_by_key(bits);
            let most = fitting.iter().copied().max_by_key(bits);
            if fits(&candidate) { Some(candidate) } else { more.or(most) }
        };
        let Some(stand_ins) = (0..candidates.len()).map(stand_in).collect() else {
            let reason = unfit.iter_mut().find_map(|unfit| unfit.remove(&name));
            return Err(reason.map_or(Error::NoConfigurations, |reason| sparq_pipeline::Error::from(reason).into()));
        };
        of_layers.insert(name, stand_ins);
    }
    Ok(of_layers)
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
    /// Of layers that the format cannot hold with every candidate: which stands for which.
    stand_ins: BTreeMap<String, Vec<usize>>,
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
                let of_unit = |candidate| {
                    let held = self.stand_in(candidates, unit, candidate);
                    unit.layers.iter().map(|(name, _)| of_layer(name, held)).sum()
                };
                (0..candidates.len()).map(of_unit).collect()
            }
        }
    }

    /// What a unit gets for a choice of a candidate: of layers that cannot have it, what the one with the most bits gets.
    pub(super) fn stand_in(&self, candidates: &[LayerBudget], unit: &Unit, candidate: usize) -> usize {
        let Self::File(prices) = self else { return candidate };
        let of_layers = unit.layers.iter().filter_map(|(name, _)| Some(prices.stand_ins.get(name)?[candidate]));
        of_layers.chain([candidate]).max_by_key(|&stand_in| bits(&candidates[stand_in])).unwrap_or(candidate)
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
