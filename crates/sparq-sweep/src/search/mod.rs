//! Searching for sparsity and bits layer by layer, under a theoretical compression rate.

mod base;
mod curves;
mod judge;
mod knapsack;
mod levels;
mod polish;
mod searched;
mod sensitivity;
mod trials;
mod whole;

pub use curves::{DamageCurves, Remaining, Unit};
pub use searched::{Contestant, Origin, Searched};

use crate::store::Store;
use crate::sweep::{blame, fingerprint};
use crate::{Error, Observer, Result};
use base::Base;
use levels::{Level, Place};
use sensitivity::Probe;
use sparq_core::{Bits, Sparsity};
use sparq_model::{BlockPlan, Linear, LinearId, Model};
use sparq_pipeline::{Calibration, LayerBudget, LayerReport, Recipe, Survey};
use std::collections::BTreeMap;
use std::path::Path;
use trials::Trials;
use whole::Whole;

/// Measures what compressing each part of a model would do to the whole of it.
///
/// One walk through the blocks solves every layer by itself under every candidate, once (the recipe's pruner and quantizer,
/// but no refit, no descent), which gives each layer's error under each candidate. On the way, for each set of layers
/// that read the same input, those layers alone are replaced by the reference candidate's, and the divergence of the
/// whole model from the base is measured on a probe text. At last trials tell how much of this damage is left once the
/// whole recipe compresses the whole model, for the layers that play the same part in every block: one with the reference
/// candidate everywhere, and for each part one with more sparsity and one with fewer bits (or more) there. Both texts must
/// be kept apart from what the result is judged by.
///
/// Cost: one pass through the model, solving each layer once for each candidate, about half a forward pass of the probe
/// for each set of layers, and two compressions by the whole recipe for each part (eight in a Llama) and one more. Holds
/// the blocks of the base and the codes of one block, or one compressed model, and half the probe's logits.
///
/// # Examples
/// ```no_run
/// use sparq_pipeline::{Calibration, Recipe};
/// use sparq_sweep::Search;
/// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
/// let text = std::fs::read_to_string("c4.txt")?;
/// let calibration = Calibration::from_text(model.tokenizer()?, &text, 8, 512, 0)?;
/// let probe = Calibration::from_text(model.tokenizer()?, &text, 4, 512, 1)?;
/// let recipe: Recipe = "s=0.25,q=4,group=64".parse()?;
/// let curves = Search::new(recipe.clone()).run(&model, &calibration, &probe, None, &())?;
/// let searched = Recipe { allocation: Some(curves.allocate(0.8125)?), ..recipe };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Search {
    recipe: Recipe,
    candidates: Vec<LayerBudget>,
    generations: usize,
    seed: u64,
    finals: Option<Calibration>,
}

impl Search {
    /// A search for recipes like this one, over [3, 4 and 8 bits](Self::widths), which GPTQ checkpoints hold.
    pub fn new(recipe: Recipe) -> Self {
        let search = Self { candidates: Vec::new(), recipe, generations: 0, seed: 0, finals: None };
        search.widths(&[Bits::B3, Bits::B4, Bits::B8])
    }

    /// Over these bit widths instead, each dense and with sparsities beyond which fewer bits do less harm: steps of an
    /// eighth up to a quarter at 2 bits, half at 3 and 62.5 % at 4 to 6; a quarter and half above. A format must hold
    /// all of them, see docs/formats.md: 4, 5 and 8 for GGUF, 4 and 8 for compressed-tensors.
    pub fn widths(self, widths: &[Bits]) -> Self {
        let of_width = |&bits: &Bits| {
            let (most, step) = match bits.get() {
                ..=2 => (2, 1),
                3 => (4, 1),
                4..=6 => (5, 1),
                _ => (4, 2),
            };
            let sparsities = (0..=most).step_by(step).map(|eighths| Sparsity::Unstructured(f64::from(eighths) / 8.0));
            sparsities.map(move |sparsity| LayerBudget { sparsity, bits: Some(bits) })
        };
        self.candidates(widths.iter().flat_map(of_width).collect())
    }

    /// Over these candidates instead.
    pub fn candidates(mut self, candidates: Vec<LayerBudget>) -> Self {
        self.candidates = candidates;
        self
    }

    /// Lets [`allocate`](Self::allocate) polish each choice for this many generations; none unless this is called.
    pub fn polish(mut self, generations: usize) -> Self {
        self.generations = generations;
        self
    }

    /// Seed of what polishing tries; 0 unless this is called. Same seed, same result, for any number of threads.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Compresses what [`allocate`](Self::allocate) chooses among on this calibration text, the one the result will be
    /// compressed on, and not on the smaller one of the search. Then the choice is between the very models that come out;
    /// on another text near neighbours change places.
    pub fn finals_on(mut self, calibration: Calibration) -> Self {
        self.finals = Some(calibration);
        self
    }

    /// Measures `model`, calibrated on one text and probed on another.
    ///
    /// With a `directory`, what is measured is stored there under a fingerprint of everything that decides it, block by
    /// block, and what is found there is not measured again.
    ///
    /// # Errors
    /// [`Error::NoConfigurations`] without candidates; those of compressing and running the model, and of writing to the
    /// directory.
    pub fn run(
        &self,
        model: &Model,
        calibration: &Calibration,
        probe: &Calibration,
        directory: Option<&Path>,
        observer: &dyn Observer,
    ) -> Result<DamageCurves> {
        let store = directory.map(Store::open).transpose()?;
        let key = self.key(model, calibration, probe, store.is_some())?;
        let with_trials = fingerprint(&[&key, "with trials"]);
        if let Some(curves) = store.as_ref().and_then(|store| store.get(&with_trials)) {
            return Ok(curves);
        }
        let mut model = model.clone();
        model.make_resident()?;
        let base = Base::new(&model, probe)?;
        let (mut curves, _) = self.measure(&base, calibration, store.as_ref(), &key, false, observer)?;
        let reference = curves.reference;
        measure_trials(&self.whole(&base, calibration, store.as_ref(), &key, observer), &mut curves, reference)?;
        if let Some(store) = &store {
            store.put(&with_trials, &curves)?;
        }
        Ok(curves)
    }

    /// What a search calls its measurements in a store.
    fn key(&self, model: &Model, calibration: &Calibration, probe: &Calibration, stored: bool) -> Result<String> {
        // Reads the whole checkpoint, for keys that only a store needs.
        let content_hash = if stored { model.checkpoint().content_hash()? } else { String::new() };
        let settings = serde_json::to_string(&(&self.recipe, &self.candidates))?;
        let (text, probe) = (calibration.fingerprint(), probe.fingerprint());
        Ok(fingerprint(&["search 4", env!("CARGO_PKG_VERSION"), &content_hash, &text, &probe, &settings]))
    }

    /// The curves, and every candidate's layers if they are to be kept. Blocks that are stored are not solved again, unless
    /// their layers are needed.
    fn measure(
        &self,
        base: &Base<'_>,
        calibration: &Calibration,
        store: Option<&Store>,
        key: &str,
        keep: bool,
        observer: &dyn Observer,
    ) -> Result<(DamageCurves, Vec<Level>)> {
        let Some(reference) = median(&self.candidates) else { return Err(Error::NoConfigurations) };
        let mut levels: Vec<Level> = self.candidates.iter().map(|_| Level::default()).collect();
        let known = store.filter(|_| !keep).and_then(|store| store.get(key));
        if let Some(curves) = known {
            return Ok((curves, levels));
        }
        observer.step(1, 1, "every candidate, block by block");
        let (plain, budgets) = (self.plain(), self.budgets());
        let mut survey = Survey::new(base.model, &plain, &budgets, calibration).map_err(blame(&plain))?;
        let mut probe = Probe::new(base)?;
        let mut units = Vec::new();
        for index in 0..base.model.block_count() {
            let key = fingerprint(&[key, "block", &index.to_string()]);
            let stored: Option<Vec<Unit>> = store.filter(|_| !keep).and_then(|store| store.get(&key));
            let of_block = if let Some(stored) = stored {
                survey.skip().map_err(blame(&plain))?;
                stored
            } else {
                let mut errors: BTreeMap<String, Vec<f64>> = BTreeMap::new();
                let take = |budget: usize, linear: &Linear, layer, report: LayerReport| {
                    // A budget that leaves layers as they are makes no error.
                    let errors = errors.entry(report.name).or_insert_with(|| vec![0.0; budgets.len()]);
                    errors[budget] = report.relative_output_error;
                    if let Some(level) = levels.get_mut(budget).filter(|_| keep || budget == reference) {
                        level.insert(linear, layer);
                    }
                };
                survey.solve(observer, take).map_err(blame(&plain))?;
                let of_block = self.units(&probe, index, &levels[reference], &budgets, &errors)?;
                if let Some(store) = store {
                    store.put(&key, &of_block)?;
                }
                if !keep {
                    levels[reference] = Level::default();
                }
                of_block
            };
            units.extend(of_block);
            probe.pass()?;
            sparq_eval::Observer::progress(observer, index + 1, base.model.block_count(), "search");
        }
        let curves = DamageCurves { candidates: self.candidates.clone(), reference, units };
        if let Some(store) = store {
            store.put(key, &curves)?;
        }
        Ok((curves, levels))
    }

    /// The recipe with each layer solved once: what candidates do beside one another shows in it as well, in less than
    /// half the time.
    fn plain(&self) -> Recipe {
        Recipe { drift: 0.0, refit: 0, mask_rounds: 1, descent: 0, allocation: None, ..self.recipe.clone() }
    }

    /// Compresses by the whole recipe on this text.
    fn whole<'a>(
        &'a self,
        base: &'a Base<'a>,
        calibration: &'a Calibration,
        store: Option<&'a Store>,
        key: &'a str,
        observer: &'a dyn Observer,
    ) -> Whole<'a> {
        Whole { base, recipe: &self.recipe, calibration, store, key, observer }
    }

    /// What layers are solved under: the candidates, then the sparsities among them without any rounding.
    fn budgets(&self) -> Vec<LayerBudget> {
        let mut budgets = self.candidates.clone();
        for candidate in &self.candidates {
            let pruned = LayerBudget { bits: None, ..*candidate };
            if !pruned.sparsity.is_dense() && !budgets.contains(&pruned) {
                budgets.push(pruned);
            }
        }
        budgets
    }

    /// The units of a block, given its layers under the reference candidate and each layer's error under each budget.
    fn units(
        &self,
        probe: &Probe<'_>,
        block: usize,
        reference: &Level,
        budgets: &[LayerBudget],
        errors: &BTreeMap<String, Vec<f64>>,
    ) -> Result<Vec<Unit>> {
        let plan = probe.model().block_plan(block)?;
        let mut units = Vec::new();
        for ids in together(plan) {
            let name = |id: &LinearId| &plan.linears()[*id].name;
            let ids: Vec<LinearId> = ids.into_iter().filter(|id| errors.contains_key(name(id))).collect();
            if ids.is_empty() {
                continue;
            }
            let mut sums = vec![0.0; budgets.len()];
            for id in &ids {
                let curve = errors.get(name(id)).into_iter().flatten();
                sums.iter_mut().zip(curve).for_each(|(sum, error)| *sum += error);
            }
            let of = |budget: LayerBudget| budgets.iter().position(|known| *known == budget).map_or(0.0, |at| sums[at]);
            let layers = ids.iter().map(|id| (name(id).clone(), plan.linears()[*id].weights()));
            units.push(Unit {
                block,
                layers: layers.collect(),
                errors: self.candidates.iter().map(|&candidate| of(candidate)).collect(),
                pruning: self
                    .candidates
                    .iter()
                    .map(|&LayerBudget { sparsity, .. }| of(LayerBudget { sparsity, bits: None }))
                    .collect(),
                divergence: probe.divergence(&ids, reference)?,
                remaining: Remaining::ALL,
            });
        }
        Ok(units)
    }
}

/// Compresses whole models to see how much of each part's damage is left in them.
fn measure_trials(whole: &Whole<'_>, curves: &mut DamageCurves, anchor: usize) -> Result<()> {
    let Some(trials) = Trials::new(curves, anchor) else { return Ok(()) };
    let all = trials.choices.len();
    let measure = |(index, choice): (usize, &Vec<usize>)| {
        whole.divergence(&curves.allocation(choice), (index + 1, all), "trial of the whole recipe")
    };
    let divergences: Vec<f64> = trials.choices.iter().enumerate().map(measure).collect::<Result<_>>()?;
    trials.apply(curves, &divergences);
    Ok(())
}

/// Where each unit's linears are.
fn places(model: &Model, units: &[Unit]) -> Result<Vec<Place>> {
    let place = |unit: &Unit| -> Result<Place> {
        let linears = model.block_plan(unit.block)?.linears();
        let of_unit = |name: &str| unit.layers.iter().any(|(layer, _)| layer == name);
        let ids = (0..linears.len()).filter(|&id| of_unit(&linears[id].name)).collect();
        Ok(Place { block: unit.block, ids })
    };
    units.iter().map(place).collect()
}

/// The linears of a block that get the same sparsity and bits: those of a stage, and, of a mixture of experts, those that
/// play the same part in every expert. Engines run each of these as one.
fn together(plan: &BlockPlan) -> Vec<Vec<LinearId>> {
    let mut units: Vec<(Option<Vec<&str>>, Vec<LinearId>)> = Vec::new();
    for stage in 0..plan.stages() {
        let ids = plan.stage_linears(stage);
        let part = |id: &LinearId| plan.linears()[*id].name.rsplit('.').next().unwrap_or_default();
        let parts = plan.is_routed(stage).then(|| ids.iter().map(part).collect::<Vec<_>>());
        match units.iter_mut().find(|(known, _)| parts.is_some() && *known == parts) {
            Some((_, unit)) => unit.extend(ids),
            None => units.push((parts, ids.to_vec())),
        }
    }
    units.into_iter().map(|(_, ids)| ids).collect()
}

/// The candidate of middle cost, of two that cost the same the one with more bits: its damage is large enough to be
/// measured and small enough to be typical, and it can be pruned more and less.
fn median(candidates: &[LayerBudget]) -> Option<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let bits = |index: usize| candidates[index].bits.map_or(16, Bits::get);
    order.sort_by(|&x, &y| candidates[x].cost().total_cmp(&candidates[y].cost()).then(bits(y).cmp(&bits(x))));
    order.get(order.len() / 2).copied()
}
