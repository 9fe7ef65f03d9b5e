//! Several processes, here threads that speak only by messages, make the bytes that one makes.

use sparq_core::{Communicator, Ranks};
use sparq_export::Dense;
use sparq_model::Model;
use sparq_pipeline::{Calibration, Compress, Done, Error, Plan, Recipe, Result, Sampling};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A model and the text it is calibrated on.
struct Subject {
    model: Model,
    calibration: Calibration,
}

impl Subject {
    fn demo() -> Self {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model");
        let model = Model::open(&demo).expect("the demo model opens");
        let text = std::fs::read_to_string(demo.join("calibration.txt")).expect("the demo calibration text");
        let sampling = Sampling { samples: 96, length: 128, seed: 7 };
        let calibration =
            Calibration::from_text(model.tokenizer().expect("a tokenizer"), &text, sampling).expect("text");
        Self { model, calibration }
    }

    fn mixtral() -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-model/tests/fixtures/mixtral");
        let model = Model::open(fixture).expect("the fixture opens");
        let tokens = model.config().vocab_size as u32;
        let sequence = |first: u32| (0..60).map(|at| (first * 31 + at * at * 7 + at) % tokens).collect();
        let calibration = Calibration::from_sequences((0..90).map(sequence).collect()).expect("sequences");
        Self { model, calibration }
    }

    /// The job at `out`, as each of so many processes does it.
    fn compress(&self, recipe: &str, out: &Path, size: usize, stop_after: Option<usize>) -> Vec<Result<Done>> {
        let recipe: Recipe = recipe.parse().expect(recipe);
        let ranks = Ranks::in_threads(size);
        std::thread::scope(|scope| {
            let run = |ranks: Ranks| {
                let job = Compress::new(&self.model).recipe(recipe.clone()).calibration(&self.calibration).ranks(ranks);
                job.stop_after(stop_after).to(out, &Dense)
            };
            let threads: Vec<_> = ranks.into_iter().map(|ranks| scope.spawn(move || run(ranks))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }
}

/// Every file below a directory, apart from the report, which has times in it.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("readable"));
        }
    }
    found
        .into_iter()
        .map(|(path, bytes)| (path.strip_prefix(directory).unwrap_or(&path).to_path_buf(), bytes))
        .collect()
}

const RECIPES: [&str; 5] = [
    "s=0.25,q=4,group=32",
    "s=0.5,q=4,group=32,preset=reference",
    "s=0.25,q=3,group=32,pruner=wanda,quantizer=rtn",
    "s=2:4,preset=reference",
    "rate=2.5",
];

fn gives_the_same_bytes(subject: &Subject, recipes: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    for recipe in recipes {
        let mut alone = None;
        for size in [1, 2, 3] {
            let out = directory.path().join("out");
            let done: Vec<Done> =
                subject.compress(recipe, &out, size, None).into_iter().map(|done| done.expect(recipe)).collect();
            let errors: Vec<f64> = done[0].compression.layers.iter().map(|layer| layer.relative_output_error).collect();
            let files = contents(&out);
            assert!(done.iter().all(|other| other.export == done[0].export), "{recipe}: all know what was written");
            let (bytes, known) = alone.get_or_insert_with(|| (files.clone(), errors.clone()));
            assert!(*bytes == files && *known == errors, "{recipe} on {size}");
            std::fs::remove_dir_all(&out).expect("removed");
        }
    }
}

#[test]
fn any_number_of_processes_makes_the_same_bytes() {
    gives_the_same_bytes(&Subject::demo(), &RECIPES);
}

#[test]
fn experts_are_solved_alike() {
    gives_the_same_bytes(&Subject::mixtral(), &RECIPES[..2]);
}

#[test]
fn another_number_of_processes_goes_on() {
    let subject = Subject::demo();
    let directory = tempfile::tempdir().expect("a directory");
    let (once, twice) = (directory.path().join("once"), directory.path().join("twice"));
    let recipe = RECIPES[0];
    subject.compress(recipe, &once, 1, None).into_iter().for_each(|done| assert!(done.is_ok()));
    for (size, stop_after) in [(3, 1), (1, 1), (4, 1)] {
        for stopped in subject.compress(recipe, &twice, size, Some(stop_after)) {
            assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
        }
    }
    subject.compress(recipe, &twice, 2, None).into_iter().for_each(|done| assert!(done.is_ok()));
    assert!(contents(&once) == contents(&twice));
}

#[test]
fn what_the_first_refuses_ends_all() {
    let subject = Subject::demo();
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("something"), "of another").expect("written");
    for refused in subject.compress(RECIPES[0], directory.path(), 3, None) {
        assert!(refused.is_err());
    }
}

/// Counts what a process sends and receives.
#[derive(Debug)]
struct Counted {
    ranks: Ranks,
    bytes: Arc<AtomicU64>,
}

impl Communicator for Counted {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn send(&self, to: usize, bytes: &[u8]) -> sparq_core::Result<()> {
        self.bytes.fetch_add(bytes.len() as u64, Relaxed);
        self.ranks.send(to, bytes)
    }

    fn receive(&self, from: usize) -> sparq_core::Result<Vec<u8>> {
        let message = self.ranks.receive(from)?;
        self.bytes.fetch_add(message.len() as u64, Relaxed);
        Ok(message)
    }
}

#[test]
fn the_plan_says_what_travels() {
    let subject = Subject::demo();
    let directory = tempfile::tempdir().expect("a directory");
    let recipe: Recipe = "s=0,q=4,group=32,preset=reference,drift=0.5".parse().expect("valid");
    let bytes = Arc::new(AtomicU64::new(0));
    let run = |ranks: Ranks| {
        let bytes = Arc::clone(&bytes);
        let ranks = if ranks.is_first() { Ranks::new(Counted { ranks, bytes }) } else { ranks };
        let job = Compress::new(&subject.model).recipe(recipe.clone()).calibration(&subject.calibration);
        job.ranks(ranks).to(directory.path().join("out"), &Dense).expect("compressed")
    };
    let done: Vec<Done> = std::thread::scope(|scope| {
        let threads: Vec<_> = Ranks::in_threads(2).into_iter().map(|ranks| scope.spawn(|| run(ranks))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let planned = done[0].compression.plan.sharing.expect("two share");
    let found = bytes.load(Relaxed) as f64;
    assert!((planned.exchanged_bytes as f64 / found - 1.0).abs() < 0.2, "{} planned, {found}", planned.exchanged_bytes);
    let by = |processes| {
        let plan = Plan::shared(&subject.model, &recipe, Some(&subject.calibration), processes).expect("plans");
        (plan.sharing.map(|sharing| (sharing.token_share, sharing.token_operations)), plan.activation_bytes)
    };
    let (Some((half, of_two)), Some((quarter, of_four))) = (by(2).0, by(4).0) else { panic!("several share") };
    assert_eq!((by(1).0, half, quarter, of_two), (None, 0.5, 0.25, 2.0 * of_four));
    assert!(by(4).1 < by(2).1 && by(2).1 < by(1).1);
}
