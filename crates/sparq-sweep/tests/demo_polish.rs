//! Polishing a searched allocation on the demo model of this repository.

use ndarray::Axis;
use sparq_eval::mean_divergence;
use sparq_model::Model;
use sparq_pipeline::{Calibration, MemorySink, Recipe, Targets, compress};
use sparq_sweep::{Observer, Origin, Search, Searched, Target};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model").join(file)
}

/// What a search is calibrated on, what it is probed on, and what its result is compressed on.
fn texts(model: &Model) -> (Calibration, Calibration, Calibration) {
    let text = std::fs::read_to_string(demo("calibration.txt")).expect("a text");
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let draw = |samples, seed| Calibration::from_text(tokenizer, &text, samples, 64, seed).expect("text");
    (draw(8, 0), draw(5, 1), draw(12, 2))
}

/// Counts compressions.
#[derive(Default)]
struct Steps(AtomicUsize);

impl Observer for Steps {
    fn step(&self, _: usize, _: usize, _: &str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
impl sparq_pipeline::Observer for Steps {}
impl sparq_eval::Observer for Steps {
    fn progress(&self, _: usize, _: usize, _: &str) {}
}

/// KL on the probe the slow, obvious way: the whole model, every sequence by itself, every second token.
fn divergence(base: &Model, other: &Model, probe: &Calibration) -> f64 {
    let (mut sum, mut rows) = (0.0, 0);
    for tokens in probe.sequences() {
        let compared: Vec<usize> = (1..tokens.len()).step_by(2).collect();
        let scores = |model: &Model| {
            let hidden = model.hidden(&[tokens]).expect("runs").select(Axis(0), &compared);
            model.logits(hidden.view()).expect("runs")
        };
        let mean = mean_divergence(scores(base).view(), scores(other).view()).expect("finite");
        sum += mean * compared.len() as f64;
        rows += compared.len();
    }
    sum / rows as f64
}

const RATES: [f64; 2] = [0.8125, 0.86];

fn run(threads: usize, seed: u64, directory: Option<&Path>, observer: &dyn Observer) -> Vec<Searched> {
    let model = Model::open(demo("")).expect("the demo model");
    let (calibration, probe, finals) = texts(&model);
    let search = Search::new(recipe()).polish(6).seed(seed).jobs(threads).finals_on(finals);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let targets = RATES.map(Target::Tcr);
    let found = pool.install(|| search.allocate(&model, &calibration, &probe, &targets, directory, observer));
    found.expect("runs")
}

fn recipe() -> Recipe {
    "s=0.25,q=4,group=64".parse().expect("valid")
}

#[test]
fn a_polished_allocation_meets_its_rate_and_is_no_worse_than_what_it_started_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let steps = Steps::default();
    let found = run(2, 0, Some(directory.path()), &steps);
    let taken = steps.0.load(Ordering::Relaxed);
    assert_eq!(run(2, 0, Some(directory.path()), &steps), found, "the same when read back");
    assert_eq!(steps.0.load(Ordering::Relaxed), taken, "and nothing is compressed again");

    let model = Model::open(demo("")).expect("the demo model");
    let (_, probe, finals) = texts(&model);
    for (searched, rate) in found.iter().zip(RATES) {
        assert!(searched.allocation.tcr >= rate - 1e-9, "{}", searched.allocation.tcr);
        let of = |origin| searched.contestants.iter().find(|contestant| contestant.origin == origin);
        let polished = of(Origin::Polished).expect("polished");
        let estimated = of(Origin::Estimated).expect("estimated");
        let uniform = of(Origin::Uniform).expect("62.5 % and 4 bits are more than either rate");
        let [polish, estimate, uniform] = [polished, estimated, uniform].map(|one| one.assembled.expect("judged"));
        assert!(polish < estimate.min(uniform), "six generations find something");
        let chosen = of(searched.origin).expect("one of them");
        assert_eq!(chosen.allocation, searched.allocation);
        for contestant in &searched.contestants {
            assert!(contestant.allocation.tcr >= rate - 1e-9);
            assert!(chosen.compressed <= contestant.compressed);
            let recipe = Recipe { allocation: Some(contestant.allocation.clone()), ..recipe() };
            let mut sink = MemorySink::new();
            compress(&model, &recipe, Some(&finals), &mut sink, &()).expect("runs");
            let expected = divergence(&model, &sink.into_model(&model).expect("whole"), &probe);
            assert!((contestant.compressed - expected).abs() < 1e-4 * expected, "{} {expected}", contestant.compressed);
        }
    }
}

#[test]
fn blocks_that_are_not_searched_are_run_all_the_same() {
    let model = Model::open(demo("")).expect("the demo model");
    let (calibration, probe, _) = texts(&model);
    let ignore = vec!["*.layers.0.*".to_owned()];
    let recipe = Recipe { targets: Targets { ignore, ..Targets::default() }, ..recipe() };
    let search = Search::new(recipe).polish(1);
    let found = search.allocate(&model, &calibration, &probe, &[Target::Tcr(0.8125)], None, &()).expect("runs");
    let polished = found[0].contestants.iter().find(|contestant| contestant.origin == Origin::Polished);
    let polished = polished.expect("polished");
    assert!(polished.allocation.layers.keys().all(|layer| !layer.contains(".layers.0.")));
    // Put together and compressed are not the same, but close.
    let assembled = polished.assembled.expect("judged");
    assert!(assembled > 0.0 && assembled < 10.0 * polished.compressed, "{assembled} {}", polished.compressed);
}

#[test]
fn rates_out_of_reach_are_refused_before_anything_is_measured() {
    let model = Model::open(demo("")).expect("the demo model");
    let (calibration, probe, _) = texts(&model);
    let steps = Steps::default();
    for wanted in [0.99, 81.25, -0.5, f64::NAN] {
        let targets = [0.8125, wanted].map(Target::Tcr);
        let found = Search::new(recipe()).allocate(&model, &calibration, &probe, &targets, None, &steps);
        let error = found.expect_err("no such rate").to_string();
        assert!(error.contains("the highest is"), "{error}");
    }
    assert_eq!(steps.0.load(Ordering::Relaxed), 0);
}

#[test]
fn the_same_seed_gives_the_same_bits_on_any_number_of_threads_and_jobs() {
    let one = run(1, 3, None, &());
    assert_eq!(run(3, 3, None, &()), one);
}
