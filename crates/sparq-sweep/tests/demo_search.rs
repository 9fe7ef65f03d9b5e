//! A search on the demo model of this repository.

use sparq_core::{Bits, Sparsity};
use sparq_export::{CompressedTensors, Dense, ExportFormat, ExportSettings, Gguf, Gptq};
use sparq_model::Model;
use sparq_pipeline::{Calibration, Job, LayerBudget, MemorySink, Recipe, compress, planned_size};
use sparq_sweep::{Observer, Search, Target, Unit};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model").join(file)
}

fn text(file: &str) -> String {
    std::fs::read_to_string(demo(file)).expect(file)
}

/// Which models were compressed.
#[derive(Default)]
struct Steps(Mutex<Vec<String>>);

impl Observer for Steps {
    fn step(&self, _: usize, _: usize, what: &str) {
        self.0.lock().expect("not poisoned").push(what.to_owned());
    }
}
impl sparq_pipeline::Observer for Steps {}
impl sparq_eval::Observer for Steps {
    fn progress(&self, _: usize, _: usize, _: &str) {}
}

#[test]
fn a_searched_allocation_meets_its_rate_and_is_what_layers_get() {
    let model = Model::open(demo("")).expect("the demo model");
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let draw = |samples, seed| Calibration::from_text(tokenizer, &text("calibration.txt"), samples, 128, seed);
    let (calibration, probe) = (draw(8, 0).expect("text"), draw(6, 1).expect("text"));
    let recipe: Recipe = "s=0.5,q=3,group=64".parse().expect("valid");
    let budget = |s, bits| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(bits) };
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

    let searched = Recipe { allocation: Some(allocation), ..recipe };
    assert!((searched.tcr() - target).abs() < 0.02, "{}", searched.tcr());
    let mut sink = MemorySink::new();
    let report = compress(&model, &searched, Some(&calibration), &mut sink, &()).expect("runs");
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

impl Observer for StopsAfter {}
impl sparq_eval::Observer for StopsAfter {
    fn progress(&self, _: usize, _: usize, _: &str) {}
}
impl sparq_pipeline::Observer for StopsAfter {
    fn stop(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.layers
    }
}

#[test]
fn a_search_that_was_interrupted_solves_no_block_again() {
    let model = Model::open(demo("")).expect("the demo model");
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let draw = |samples, seed| Calibration::from_text(tokenizer, &text("calibration.txt"), samples, 64, seed);
    let (calibration, probe) = (draw(4, 0).expect("text"), draw(2, 1).expect("text"));
    let budget = |s| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(Bits::B4) };
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
    let model = Model::open(demo("")).expect("the demo model");
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let draw = |samples, seed| Calibration::from_text(tokenizer, &text("calibration.txt"), samples, 64, seed);
    let (calibration, probe) = (draw(4, 0).expect("text"), draw(4, 1).expect("text"));
    let recipe: Recipe = "s=0,q=4,group=64,preset=reference".parse().expect("valid");
    let candidate = |bits| LayerBudget { sparsity: Sparsity::DENSE, bits: Some(bits) };
    let candidates = vec![candidate(Bits::B4), candidate(Bits::B8)];
    let search = Search::new(recipe.clone()).candidates(candidates.clone());
    let settings = ExportSettings::default();
    let store = tempfile::tempdir().expect("a directory");
    let formats: [&dyn ExportFormat; 3] = [&Gguf::default(), &Gptq, &CompressedTensors::default()];
    for format in formats {
        let of = |recipe: &Recipe| planned_size(&model, recipe, format, &settings).expect("fits").file_bytes;
        let [four, eight] = [0, 1].map(|index| of(&recipe.with_budget(candidates[index])));
        let (name, bytes) = (format.name(), u64::midpoint(four, eight));
        let target = Target::File { bytes, format, settings: &settings };
        let found = search.allocate(&model, &calibration, &probe, &[target], Some(store.path()), &()).expect("found");
        let allocation = &found[0].contestants[0].allocation;
        let widths: BTreeSet<Option<u8>> =
            allocation.layers.values().map(|budget| budget.bits.map(Bits::get)).collect();
        assert_eq!(widths, [Some(4), Some(8)].into(), "{name}");
        let searched = Recipe { allocation: Some(allocation.clone()), ..recipe.clone() };
        assert!(
            (four + eight) * 9 / 20 < of(&searched) && of(&searched) <= bytes,
            "{name}: {bytes}, {}",
            of(&searched)
        );

        let out = store.path().join(name.as_ref());
        let job = Job::new(&model, &searched, &out).calibration(Some(&calibration)).keep_solution(false);
        job.run(format, &()).expect("runs");
        let file = if out.is_dir() { out.join("model.safetensors") } else { out };
        assert_eq!(file.metadata().expect("written").len(), of(&searched), "{name}: as predicted");

        let too_small = Target::File { bytes: four - 1, format, settings: &settings };
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
            let target = Target::File { bytes, format, settings: &settings };
            let found = search.allocate(&model, &calibration, &probe, &[target], Some(store.path()), &());
            assert_eq!(found.is_ok(), fits, "{name}: {bytes}");
        }
    }
    // A format that stores every weight at full width cannot be made smaller.
    let dense = planned_size(&model, &recipe, &Dense, &settings).expect("fits").file_bytes;
    let target = Target::File { bytes: dense - 1, format: &Dense, settings: &settings };
    assert!(search.allocate(&model, &calibration, &probe, &[target], None, &()).is_err());
}
