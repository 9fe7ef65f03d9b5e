//! Tuning on the demo model of this repository.

use ndarray::Array2;
use sparq_core::Observer;
use sparq_export::{
    Coded, CompressedTensors, Dense, ExportFormat, ExportSettings, Gguf, GptqCheckpoint, Solution, SolvedLayers,
};
use sparq_model::{Divergence, Model};
use sparq_pipeline::{Calibration, Compress, CompressionReport, Error, Recipe, Sampling};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model")
}

fn model() -> Model {
    Model::open(demo()).expect("the demo model opens")
}

fn text(model: &Model, file: &str, samples: usize) -> Calibration {
    let text = std::fs::read_to_string(demo().join(file)).expect("the demo text");
    let sampling = Sampling { samples, length: 128, seed: 7 };
    Calibration::from_text(model.tokenizer().expect("a tokenizer"), &text, sampling).expect("text")
}

/// Mean divergence of `other` from `dense` on held-out text, in nats.
fn divergence(dense: &Model, other: &Model) -> f64 {
    let held_out = text(dense, "heldout.txt", 16);
    let batch: Vec<&[u32]> = held_out.sequences().iter().map(Vec::as_slice).collect();
    let loss = Divergence::new(dense, dense.hidden(&batch).expect("hidden states"));
    other.loss(&batch, &loss).expect("a loss")
}

fn compressed(model: &Model, recipe: &str) -> (Model, CompressionReport) {
    let recipe: Recipe = recipe.parse().expect("valid");
    let calibration = text(model, "calibration.txt", 8);
    Compress::new(model).recipe(recipe).calibration(&calibration).in_memory().expect("compressed")
}

fn weights(model: &Model) -> Vec<Array2<f32>> {
    let blocks = (0..model.block_count()).map(|index| model.block(index).expect("a block"));
    blocks.flat_map(|block| block.linears().iter().map(|linear| linear.weight.clone()).collect::<Vec<_>>()).collect()
}

#[test]
fn tuning_brings_the_model_nearer_to_the_dense_one() {
    let model = model();
    for (recipe, steps, share) in
        [("s=0,q=2,group=32", 16, 0.95), ("s=0.25,q=3,group=32", 16, 0.97), ("rate=1.5", 24, 0.95)]
    {
        let (solved, before) = compressed(&model, recipe);
        let (tuned, after) = compressed(&model, &format!("{recipe},tune={steps}"));
        let [solved_nats, tuned_nats] = [&solved, &tuned].map(|other| divergence(&model, other));
        assert!(tuned_nats < share * solved_nats, "{recipe}: {solved_nats} {tuned_nats}");
        let report = after.tuning.expect("it was tuned");
        assert!(report.after < report.before && before.tuning.is_none(), "{report:?}");
        assert_eq!(before.bits_per_weight.to_bits(), after.bits_per_weight.to_bits(), "{recipe}");
        // What was removed stays away.
        for (solved, tuned) in weights(&solved).iter().zip(&weights(&tuned)).filter(|_| recipe.starts_with("s=0.25")) {
            assert!(tuned.iter().filter(|value| **value == 0.0).count() * 4 >= solved.len());
        }
        assert_eq!(after.layers.iter().map(|layer| layer.zeros).sum::<usize>(), zeros(&tuned));
    }
}

fn zeros(model: &Model) -> usize {
    weights(model).iter().flatten().filter(|value| **value == 0.0).count()
}

#[test]
fn bits_do_not_depend_on_threads() {
    let model = model();
    let runs = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| weights(&compressed(&model, "preset=fast,s=0.5,q=3,group=32,tune=3").0))
    });
    assert!(runs[0] == runs[1]);
}

#[test]
fn every_format_holds_what_was_tuned() {
    let model = model();
    let calibration = text(&model, "calibration.txt", 8);
    let recipe: Recipe = "preset=fast,s=0,q=4,group=32,clip=minmax,tune=8".parse().expect("valid");
    let (tuned, _) = compressed(&model, "preset=fast,s=0,q=4,group=32,clip=minmax,tune=8");
    let wanted = divergence(&model, &tuned);
    let directory = tempfile::tempdir().expect("a directory");
    let job = Compress::new(&model).recipe(recipe).calibration(&calibration);
    let formats: [(&dyn ExportFormat, &str); 5] = [
        (&Dense, "dense"),
        (&Coded, "coded"),
        (&GptqCheckpoint, "gptq"),
        (&CompressedTensors::default(), "ct"),
        (&Gguf::default(), "model.gguf"),
    ];
    for (format, name) in formats {
        let out = directory.path().join(name);
        let done = job.to(&out, format).expect(name);
        assert!(done.compression.tuning.is_some());
        let reopened = Model::open(&out).expect("our own output opens");
        // Embeddings and norms are stored in half precision by some.
        let got = divergence(&model, &reopened);
        assert!((got - wanted).abs() < 0.02 * wanted, "{name}: {got} {wanted}");
    }
    // Another format from what was kept, norms included.
    let solution = Solution::open(directory.path().join("dense/sparq")).expect("kept");
    assert!(solution.tensors().is_some());
    let again = directory.path().join("again");
    sparq_export::export(model.checkpoint(), &solution, &Dense, &again, &ExportSettings::default()).expect("exported");
    let read = |directory: &Path| std::fs::read(directory.join("model.safetensors")).expect("readable");
    assert_eq!(read(&again), read(&directory.path().join("dense")));
    let norm = "model.layers.0.input_layernorm.weight";
    let norms = |path: &Path| Model::open(path).expect("opens").checkpoint().read_vector(norm).expect("a norm");
    assert_ne!(norms(&again), norms(&demo()));
}

/// Stops after so many steps.
struct After(usize, AtomicUsize);

impl Observer for After {
    fn progress(&self, done: usize, total: usize, _: &dyn Display) {
        self.1.store(if total == 10 { done } else { 0 }, Relaxed);
    }

    fn stop(&self) -> bool {
        self.1.load(Relaxed) == self.0
    }
}

#[test]
fn an_interrupted_tuning_continues_to_the_same_bytes() {
    let model = model();
    let calibration = text(&model, "calibration.txt", 8);
    let recipe: Recipe = "preset=fast,s=0.25,q=3,group=32,tune=10".parse().expect("valid");
    let directory = tempfile::tempdir().expect("a directory");
    let (whole, pieces) = (directory.path().join("whole"), directory.path().join("pieces"));
    let job = Compress::new(&model).recipe(recipe).calibration(&calibration);
    job.to(&whole, &Dense).expect("compressed");
    for steps in [3, 7] {
        let observer = After(steps, AtomicUsize::new(0));
        let stopped = job.clone().observer(&observer).to(&pieces, &Dense).expect_err("stopped");
        assert!(matches!(stopped, Error::Stopped { .. }), "{stopped}");
        assert!(!pieces.exists(), "nothing is there before the end");
    }
    job.to(&pieces, &Dense).expect("continued");
    for file in ["model.safetensors", "sparq/block-00003.safetensors", "sparq/tensors.safetensors"] {
        let read = |directory: &Path| std::fs::read(directory.join(file)).expect(file);
        assert!(read(&whole) == read(&pieces), "{file}");
    }
    assert!(!Compress::partial(&pieces).exists());
}

/// Keeps what a run says.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn note(&self, what: &dyn Display) {
        self.0.lock().expect("not poisoned").push(what.to_string());
    }
}

#[test]
fn a_text_that_is_too_short_to_judge_by_does_not_hold_tuning_back() {
    let model = model();
    let few = text(&model, "calibration.txt", 8).sequences()[..3].to_vec();
    let few = Calibration::from_sequences(few).expect("tokens");
    let recipe: Recipe = "preset=fast,s=0,q=2,group=32,tune=8".parse().expect("valid");
    let notes = Notes::default();
    let job = Compress::new(&model).recipe(recipe).calibration(&few).observer(&notes);
    let (_, report) = job.in_memory().expect("compressed");
    let tuning = report.tuning.expect("it was tuned");
    assert_eq!((tuning.before, tuning.after, tuning.judging_tokens), (None, None, 0));
    let notes = notes.0.into_inner().expect("not poisoned");
    assert!(!notes.iter().any(|note| note.contains("shorter steps")), "{notes:?}");
}

#[test]
fn what_cannot_be_tuned_is_refused() {
    let model = model();
    let calibration = text(&model, "calibration.txt", 8);
    let refused = |recipe: &str| {
        let recipe: Recipe = recipe.parse().expect("text");
        Compress::new(&model).recipe(recipe).calibration(&calibration).plan().expect_err("refused").to_string()
    };
    assert!(refused("s=0.5,tune=5").contains("codes"));
    let recipe: Recipe = "preset=fast,s=0,q=4,group=32,tune=5".parse().expect("valid");
    assert!(Compress::new(&model).recipe(recipe.clone()).plan().is_err(), "it needs text");
    let job = Compress::new(&model).recipe(recipe).calibration(&calibration);
    let plan = job.plan().expect("possible");
    assert!(plan.to_string().contains("tuning in 5 steps"), "{plan}");
    assert!(matches!(job.memory_budget(plan.peak_bytes - 1).plan(), Err(Error::MemoryBudget { .. })));
}
