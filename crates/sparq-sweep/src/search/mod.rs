//! Searching for sparsity and bits layer by layer, under a theoretical compression rate or a size on disk.

mod allocate;
mod base;
mod between;
mod curves;
mod knapsack;
mod rates;
mod sensitivity;
mod solved_layers;
mod target;
mod trials;
mod walk;
mod whole_model;

pub use allocate::{Contestant, Origin, Searched};
pub use curves::{DamageCurves, Remaining, Unit};
pub use rates::Rates;
pub use target::Target;

use crate::Result;
use crate::store::{Store, fingerprint};
use base::Base;
use sparq_core::{Bits, Observer, Sparsity};
use sparq_eval::identity;
use sparq_model::Model;
use sparq_pipeline::{Calibration, LayerBudget, Recipe};
use std::path::Path;
use target::Prices;
use trials::measure_trials;
use whole_model::WholeModel;

/// Measures how much damage compressing each part of a model does to the whole model.
///
/// 1. One walk through the blocks solves every layer once under every candidate, with the recipe's pruner and quantizer
///    but without refit and descent. This gives the error of each layer under each candidate.
/// 2. During the walk, each set of layers that read the same input is replaced alone by its layers under the reference
///    candidate, and the divergence of the whole model from the base is measured on a probe text.
/// 3. Trials compress the whole model by the whole recipe, except that damping is not chosen on held-out text. One trial
///    uses the reference candidate everywhere. For each part that layers play in a block, one more uses another sparsity
///    there and one other bits. They show how much of the damage is left when the whole model is compressed.
///
/// Calibration text and probe text must not overlap with what the result is judged by.
///
/// Cost: one pass through the model that solves each layer once for each candidate, about half a forward pass of the probe
/// for each set of layers, and two compressions by the whole recipe for each part (eight in a Llama) and one more. Holds
/// the blocks of the base and the codes of one block, or one compressed model, and half the probe's logits.
///
/// # Examples
/// ```no_run
/// use sparq_pipeline::{Calibration, Recipe, Sampling};
/// use sparq_sweep::Search;
/// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
/// let text = std::fs::read_to_string("c4.txt")?;
/// let calibration = Calibration::from_text(model.tokenizer()?, &text, Sampling { samples: 8, ..Sampling::default() })?;
/// let probe = Calibration::from_text(model.tokenizer()?, &text, Sampling { samples: 4, length: 512, seed: 1 })?;
/// let recipe: Recipe = "s=0.25,q=4,group=64".parse()?;
/// let curves = Search::new(recipe.clone()).run(&model, &calibration, &probe, None, &())?;
/// let searched = recipe.with_allocation(curves.allocate(0.8125)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Search {
    recipe: Recipe,
    candidates: Vec<LayerBudget>,
    jobs: usize,
    /// Whether layers are measured one by one.
    apart: bool,
    /// Whether only some blocks are measured ([`is_sampled`](between::is_sampled)).
    sampled: bool,
    finals: Option<Calibration>,
}

impl Search {
    /// A search for recipes like this one, over [3, 4 and 8 bits](Self::widths), which GPTQ checkpoints hold.
    pub fn new(recipe: Recipe) -> Self {
        let search = Self { candidates: Vec::new(), recipe, jobs: 1, apart: false, sampled: false, finals: None };
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
            sparsities.map(move |sparsity| LayerBudget { sparsity, bits: Some(bits), rate: None })
        };
        self.candidates(widths.iter().flat_map(of_width).collect())
    }

    /// Over these candidates instead.
    pub fn candidates(mut self, candidates: Vec<LayerBudget>) -> Self {
        self.candidates = candidates;
        self
    }

    /// Compresses up to `jobs` whole models side by side; 0 counts as 1. The default is 1. Each model needs its own memory.
    /// Numbers do not depend on it. It is faster where single layers are too small for all cores.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }

    /// Compresses the allocations that [`allocate`](Self::allocate) compares on this calibration text instead of the
    /// smaller one of the search. It should be the text of the final result: on another text, allocations of nearly the
    /// same divergence change places.
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
        let mut curves = self.measure(&base, calibration, &store, &key, observer)?;
        let reference = curves.reference;
        let whole = WholeModel { base: &base, recipe: &trial, calibration, store: &store, key: &key, observer };
        measure_trials(&whole, &mut curves, &Prices::Rate(0.0), reference, self.jobs)?;
        store.put(&with_trials, &curves)?;
        Ok(curves)
    }

    /// The recipe of the walk and the trials. They skip the choice of damping, because ranking does not need it.
    fn trial(&self) -> Recipe {
        let mut recipe = self.recipe.clone();
        recipe.held_out = 0.0;
        recipe
    }

    /// Fingerprint of what is measured on `inputs` by `recipe`.
    fn key(&self, recipe: &Recipe, inputs: &Inputs) -> Result<String> {
        let Inputs { model, calibration, probe } = inputs;
        let settings = serde_json::to_string(&(recipe, &self.candidates, self.apart, self.sampled))?;
        Ok(fingerprint(&["search", env!("CARGO_PKG_VERSION"), model, calibration, probe, &settings]))
    }
}

/// Fingerprints of the inputs of a search.
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

/// Bits of a code, or 16 for a weight that is not quantized.
fn bits(budget: &LayerBudget) -> u8 {
    budget.bits.map_or(16, Bits::get)
}
