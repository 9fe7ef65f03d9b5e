//! A search on the demo model of this repository.

mod common;

use common::{draw, model};
use ndarray::Axis;
use sparq_core::{Bits, Observer, Sparsity};
use sparq_eval::mean_divergence;
use sparq_export::{CompressedTensors, Dense, ExportFormat, ExportSettings, Gguf, GptqCheckpoint};
use sparq_model::Model;
use sparq_pipeline::{Calibration, Compress, LayerBudget, Recipe, planned_size};
use sparq_sweep::{Search, Searched, Target, Unit};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which models were compressed.
#[derive(Default)]
struct Steps(Mutex<Vec<String>>);

impl Observer for Steps {
    fn step(&self, _: usize, _: usize, what: &dyn std::fmt::Display) {
        self.0.lock().expect("not poisoned").push(what.to_string());
    }
}

#[test]
fn a_searched_allocation_meets_its_rate_and_is_what_layers_get() {
    let model = model();
    let (calibration, probe) = (draw(&model, 8, 128, 0), draw(&model, 6, 128, 1));
    let recipe: Recipe = "s=0.5,q=3,group=64".parse().expect("valid");
    let budget = |s, bits| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(bits), rate: None };
    let candidates = vec![
        budget(0.0, Bits::B4),
        budget(0.25, Bits::B4),
        budget(0.5, Bits::B4),
        budget(0.5, Bits::B3),
        budget(0.7, Bits::B3),
        budget(0.25, Bits::B3),
    ];
    let search = Search::new(recipe.clone()).candidates(candidates);
    let directory = tempfile::tempdir().expect("a directory");
    let steps = Steps::default();
    let run = |steps: &Steps| search.run(&model, &calibration, &probe, Some(directory.path()), steps).expect("runs");
    let curves = run(&steps);
    let taken = || steps.0.lock().expect("not poisoned").len();
    assert_eq!(
        taken(),
        1 + 1 + 2 * 4,
        "the walk, the reference, and for each part of a block other sparsity and other bits"
    );
    assert_eq!(run(&steps), curves, "the same when read back");
    assert_eq!(taken(), 1 + 1 + 2 * 4, "and not measured again");
    assert_eq!(curves.units.len(), 4 * model.block_count());
    let positive = |unit: &Unit| unit.divergence > 0.0 && unit.remaining.pruning > 0.0 && unit.remaining.rounding > 0.0;
    assert!(curves.units.iter().all(positive));
    let left: BTreeSet<String> = curves.units.iter().map(|unit| format!("{:?}", unit.remaining)).collect();
    assert_eq!(left.len(), 4, "one for each part: {left:?}");

    let target = recipe.tcr();
    let allocation = curves.allocate(target).expect("within reach");
    assert!(allocation.tcr >= target - 1e-9, "{}", allocation.tcr);
    for unit in &curves.units {
        let given =
            unit.layers.iter().map(|(name, _)| format!("{:?}", allocation.layers[name])).collect::<BTreeSet<_>>();
        assert_eq!(given.len(), 1, "layers that run as one have one grid: {given:?}");
    }

    let searched = recipe.with_allocation(allocation);
    assert!((searched.tcr() - target).abs() < 0.02, "{}", searched.tcr());
    let (_, report) =
        Compress::new(&model).recipe(searched.clone()).calibration(&calibration).in_memory().expect("runs");
    assert!((report.requested_tcr - searched.tcr()).abs() < 1e-12);
    for layer in &report.layers {
        let budget = searched.budget(&layer.name);
        let zeros = layer.zeros as f64 / layer.weights as f64;
        assert!(zeros >= budget.sparsity.fraction() - 1e-3, "{}: {zeros} of {budget:?}", layer.name);
        let bits = budget.bits.map_or(16.0, |bits| f64::from(bits.get()));
        assert!((bits..bits + 1.0).contains(&layer.bits_per_weight), "{}: {} bits", layer.name, layer.bits_per_weight);
    }
}

/// Lets so many layers be solved.
struct StopsAfter {
    layers: usize,
    asked: AtomicUsize,
}

impl StopsAfter {
    fn new(layers: usize) -> Self {
        Self { layers, asked: AtomicUsize::new(0) }
    }
}

impl Observer for StopsAfter {
    fn stop(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.layers
    }
}

#[test]
fn a_search_that_was_interrupted_solves_no_block_again() {
    let model = model();
    let (calibration, probe) = (draw(&model, 4, 64, 0), draw(&model, 2, 64, 1));
    let budget = |s| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(Bits::B4), rate: None };
    let search = Search::new("s=0.5,q=4,group=64".parse().expect("valid")).candidates(vec![budget(0.0), budget(0.5)]);
    let run =
        |directory: &Path, observer: &StopsAfter| search.run(&model, &calibration, &probe, Some(directory), observer);
    let (whole, halved) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let uninterrupted = StopsAfter::new(usize::MAX);
    let curves = run(whole.path(), &uninterrupted).expect("runs");

    // Both candidates, and the sparsity of one of them without rounding.
    let of_a_block = 3 * model.linear_names().count() / model.block_count();
    assert!(run(halved.path(), &StopsAfter::new(of_a_block + 1)).is_err(), "in the second block");
    let resumed = StopsAfter::new(usize::MAX);
    assert_eq!(run(halved.path(), &resumed).expect("runs"), curves);
    let asked = |observer: &StopsAfter| observer.asked.load(Ordering::Relaxed);
    assert_eq!(asked(&uninterrupted) - asked(&resumed), of_a_block);
}

#[test]
fn a_searched_file_is_as_large_as_it_may_be() {
    let model = model();
    let (calibration, probe) = (draw(&model, 4, 64, 0), draw(&model, 4, 64, 1));
    let recipe: Recipe = "s=0,q=4,group=64,preset=reference".parse().expect("valid");
    let candidate = |bits| LayerBudget { sparsity: Sparsity::DENSE, bits: Some(bits), rate: None };
    let candidates = vec![candidate(Bits::B4), candidate(Bits::B8)];
    let search = Search::new(recipe.clone()).candidates(candidates.clone());
    let settings = ExportSettings::default();
    let store = tempfile::tempdir().expect("a directory");
    let formats: [&dyn ExportFormat; 3] = [&Gguf::default(), &GptqCheckpoint, &CompressedTensors::default()];
    for format in formats {
        let of = |recipe: &Recipe| planned_size(&model, recipe, format, &settings).expect("fits").file_bytes;
        let [four, eight] = [0, 1].map(|index| of(&recipe.with_budget(candidates[index])));
        let (name, bytes) = (format.name(), u64::midpoint(four, eight));
        let formats: &[&dyn ExportFormat] = &[format];
        let target = Target::File { bytes, formats, settings: &settings };
        let found = search.allocate(&model, &calibration, &probe, &[target], Some(store.path()), &()).expect("found");
        let allocation = &found[0].contestants[0].allocation;
        let widths: BTreeSet<Option<u8>> =
            allocation.layers.values().map(|budget| budget.bits.map(Bits::get)).collect();
        assert_eq!(widths, [Some(4), Some(8)].into(), "{name}");
        let searched = recipe.clone().with_allocation(allocation.clone());
        assert!(
            (four + eight) * 9 / 20 < of(&searched) && of(&searched) <= bytes,
            "{name}: {bytes}, {}",
            of(&searched)
        );

        let out = store.path().join(name.as_ref());
        let job = Compress::new(&model).recipe(searched.clone()).calibration(&calibration).keep_solution(false);
        job.to(&out, format).expect("runs");
        let file = if out.is_dir() { out.join("model.safetensors") } else { out };
        assert_eq!(file.metadata().expect("written").len(), of(&searched), "{name}: as predicted");

        let too_small = Target::File { bytes: four - 1, formats, settings: &settings };
        let refused = search.allocate(&model, &calibration, &probe, &[too_small], None, &()).expect_err("too small");
        // What the message names can be had.
        let least: u64 = refused
            .to_string()
            .split("smallest take ")
            .nth(1)
            .and_then(|rest| rest.split(':').next())
            .and_then(|number| number.parse().ok())
            .expect("a number");
        assert!((four..four + 2000).contains(&least), "{name}: {refused}");
        for (bytes, fits) in [(least, true), (least - 1, false)] {
            let target = Target::File { bytes, formats, settings: &settings };
            let found = search.allocate(&model, &calibration, &probe, &[target], Some(store.path()), &());
            assert_eq!(found.is_ok(), fits, "{name}: {bytes}");
        }
    }
    // A format that stores every weight at full width cannot be made smaller.
    let dense = planned_size(&model, &recipe, &Dense, &settings).expect("fits").file_bytes;
    let target = Target::File { bytes: dense - 1, formats: &[&Dense], settings: &settings };
    assert!(search.allocate(&model, &calibration, &probe, &[target], None, &()).is_err());
}

/// KL on the probe the slow, obvious way: the whole model, every sequence by itself, every second token.
fn divergence(base: &Model, other: &Model, probe: &Calibration) -> f64 {
    let (mut sum, mut rows) = (0.0, 0);
    for tokens in probe.sequences() {
        let compared: Vec<usize> = (1..tokens.len()).step_by(2).collect();
        let logits = |model: &Model| {
            let hidden = model.hidden(&[tokens]).expect("runs").select(Axis(0), &compared);
            model.logits(hidden.view()).expect("runs")
        };
        sum += mean_divergence(logits(base).view(), logits(other).view()).expect("finite") * compared.len() as f64;
        rows += compared.len();
    }
    sum / rows as f64
}

const RATES: [f64; 2] = [0.8125, 0.86];

/// Allocates at [`RATES`] on texts of 64 tokens; the finals are compressed on a text of their own.
fn allocate(threads: usize, directory: Option<&Path>, observer: &dyn Observer) -> Vec<Searched> {
    let model = model();
    let [calibration, probe, finals] = [(8, 0), (5, 1), (12, 2)].map(|(samples, seed)| draw(&model, samples, 64, seed));
    let search = Search::new("s=0.25,q=4,group=64".parse().expect("valid")).jobs(threads).finals_on(finals);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let targets = RATES.map(Target::Tcr);
    pool.install(|| search.allocate(&model, &calibration, &probe, &targets, directory, observer)).expect("runs")
}

#[test]
fn the_allocation_of_least_divergence_in_full_is_chosen_and_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let steps = Steps::default();
    let found = allocate(2, Some(directory.path()), &steps);
    let taken = || steps.0.lock().expect("not poisoned").len();
    let before = taken();
    assert_eq!(allocate(2, Some(directory.path()), &steps), found, "the same when read back");
    assert_eq!(taken(), before, "and nothing is compressed again");

    let model = model();
    let (probe, finals) = (draw(&model, 5, 64, 1), draw(&model, 12, 64, 2));
    let recipe: Recipe = "s=0.25,q=4,group=64".parse().expect("valid");
    for (searched, rate) in found.iter().zip(RATES) {
        assert_eq!(searched.contestants.len(), 2, "62.5 % and 4 bits are more than either rate");
        let chosen = searched.contestants.iter().find(|contestant| contestant.origin == searched.origin);
        let chosen = chosen.expect("one of them");
        assert_eq!(chosen.allocation, searched.allocation);
        for contestant in &searched.contestants {
            assert!(contestant.allocation.tcr >= rate - 1e-9);
            assert!(chosen.divergence <= contestant.divergence);
            let recipe = recipe.clone().with_allocation(contestant.allocation.clone());
            let job = Compress::new(&model).recipe(recipe).calibration(&finals);
            let expected = divergence(&model, &job.in_memory().expect("runs").0, &probe);
            assert!((contestant.divergence - expected).abs() < 1e-4 * expected, "{} {expected}", contestant.divergence);
        }
    }
}

#[test]
fn any_number_of_threads_and_jobs_gives_the_same_bits() {
    assert_eq!(allocate(3, None, &()), allocate(1, None, &()));
}

#[test]
fn rates_out_of_reach_are_refused_before_anything_is_measured() {
    let model = model();
    let (calibration, probe) = (draw(&model, 8, 64, 0), draw(&model, 5, 64, 1));
    let steps = Steps::default();
    for wanted in [0.99, 81.25, -0.5, f64::NAN] {
        let targets = [0.8125, wanted].map(Target::Tcr);
        let search = Search::new("s=0.25,q=4,group=64".parse().expect("valid"));
        let found = search.allocate(&model, &calibration, &probe, &targets, None, &steps);
        let error = found.expect_err("no such rate").to_string();
        assert!(error.contains("the highest is"), "{error}");
    }
    assert!(steps.0.lock().expect("not poisoned").is_empty());
}
