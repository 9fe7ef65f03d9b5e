//! Searching for sparsity and bits layer by layer, under a theoretical compression rate or a size on disk.

mod base;
mod curves;
mod judge;
mod knapsack;
mod levels;
mod polish;
mod searched;
mod sensitivity;
mod target;
mod trials;
mod walk;
mod whole;

pub use curves::{DamageCurves, Remaining, Unit};
pub use searched::{Contestant, Origin, Searched};
pub use target::Target;

use crate::store::{Store, fingerprint, settings};
use crate::{Observer, Result};
use base::Base;
use levels::Place;
use sparq_core::{Bits, Sparsity};
use sparq_eval::identity;
use sparq_model::Model;
use sparq_pipeline::{Calibration, LayerBudget, Recipe};
use std::path::Path;
use trials::measure_trials;
use whole::Whole;

/// Measures what compressing each part of a model would do to the whole of it.
///
/// One walk through the blocks solves every layer by itself under every candidate, once (the recipe's pruner and quantizer,
/// but no refit, no descent), which gives each layer's error under each candidate. On the way, for each set of layers
/// that read the same input, those layers alone are replaced by the reference candidate's, and the divergence of the
/// whole model from the base is measured on a probe text. At last trials tell how much of this damage is left once the
/// whole recipe (but for damping chosen on held-out text) compresses the whole model, for the layers that play the same part
/// in every block: one with the reference candidate everywhere, and for each part one with more sparsity and one with fewer
/// bits (or more) there. Both texts must be kept apart from what the result is judged by.
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
    jobs: usize,
    finals: Option<Calibration>,
}

impl Search {
    /// A search for recipes like this one, over [3, 4 and 8 bits](Self::widths), which GPTQ checkpoints hold.
    pub fn new(recipe: Recipe) -> Self {
        let search = Self { candidates: Vec::new(), recipe, generations: 0, seed: 0, jobs: 1, finals: None };
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

    /// Compresses up to so many whole models side by side (0 counts as 1), each with its own memory; 1 unless this is called.
    /// Numbers do not depend on it. It pays where single layers are too small for all cores.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
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
    /// [`Error::NoConfigurations`](crate::Error::NoConfigurations) without candidates; those of compressing and running the
    /// model, and of writing to the directory.
    pub fn run(
        &self,
        model: &Model,
        calibration: &Calibration,
        probe: &Calibration,
        directory: Option<&Path>,
        observer: &dyn Observer,
    ) -> Result<DamageCurves> {
        let store = Store::open_if_given(directory)?;
        let trial = self.trial();
        let key = self.key(&trial, &Inputs::new(model, calibration, probe, &store)?)?;
        let with_trials = fingerprint(&[&key, "with trials"]);
        if let Some(curves) = store.get(&with_trials) {
            return Ok(curves);
        }
        let mut model = model.clone();
        model.make_resident()?;
        let base = Base::new(&model, probe)?;
        let (mut curves, _) = self.measure(&base, calibration, &store, &key, false, observer)?;
        let reference = curves.reference;
        let whole = Whole { base: &base, recipe: &trial, calibration, store: &store, key: &key, observer };
        measure_trials(&whole, &mut curves, reference, self.jobs)?;
        store.put(&with_trials, &curves)?;
        Ok(curves)
    }

    /// What the walk and the trials go by: damping is not chosen again for each of them, which they tell the parts of a model
    /// apart without.
    fn trial(&self) -> Recipe {
        Recipe { held_out: 0.0, ..self.recipe.clone() }
    }

    /// What a store calls what is measured on `inputs` by `recipe`.
    fn key(&self, recipe: &Recipe, inputs: &Inputs) -> Result<String> {
        let Inputs { model, calibration, probe } = inputs;
        let settings = settings(recipe, &(recipe, &self.candidates))?;
        Ok(fingerprint(&["search 4", env!("CARGO_PKG_VERSION"), model, calibration, probe, &settings]))
    }
}

/// Fingerprints of what a search looks at.
struct Inputs {
    model: String,
    calibration: String,
    probe: String,
}

impl Inputs {
    fn new(model: &Model, calibration: &Calibration, probe: &Calibration, store: &Store) -> Result<Self> {
        // Reads the whole checkpoint, for keys that only a store needs.
        let model = if store.keeps() { identity(model, &model.checkpoint().content_hash()?) } else { String::new() };
        Ok(Self { model, calibration: calibration.fingerprint(), probe: probe.fingerprint() })
    }
}

/// Bits of a code; those of a weight that is not quantized.
fn bits(budget: &LayerBudget) -> u8 {
    budget.bits.map_or(16, Bits::get)
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
