//! A short sweep on the demo model of this repository.

mod common;

use common::{demo, draw, model};
use sparq_core::Observer;
use sparq_core::Ranks;
use sparq_eval::{Evaluation, Task, TextEvaluation, TextSettings};
use sparq_metric::Bootstrap;
use sparq_model::Model;
use sparq_sweep::{ConfigurationResult, Equal, Error, Family, Labels, Sweep, SweepResults};
use std::sync::Mutex;

fn sweep(model: &Model, recipes: &[&str]) -> Sweep {
    let text = std::fs::read_to_string(demo("heldout.txt")).expect("a text");
    let settings = TextSettings { length: 128, token_limit: Some(2048), ..TextSettings::default() };
    let task = |name: &str| {
        Task::load(demo(name).to_str().expect("a path of plain characters"), None).expect(name).limit(60, 1)
    };
    Sweep {
        recipes: recipes.iter().map(|recipe| recipe.parse().expect(recipe)).collect(),
        calibration: draw(model, 16, 128, 3),
        evaluation: Evaluation::new()
            .with_text(TextEvaluation::from_text(model, &text, settings).expect("text"))
            .with_task(task("knowledge.jsonl"))
            .with_task(task("reasoning.jsonl")),
        prompts: vec!["Q: What is the capital of France? A:".to_owned()],
        sample_tokens: 4,
        bootstrap: Bootstrap { resamples: 200, seed: 5, ..Bootstrap::default() },
        jobs: 1,
        cache: None,
        commit: Some("abc".to_owned()),
        any_commit: false,
        labels: Labels { model: "demo <model>".to_owned(), ..Labels::default() },
        ranks: Ranks::default(),
    }
}

#[test]
fn several_processes_measure_what_one_does_and_go_on_alike() {
    let model = model();
    let recipes = ["s=0,q=3,preset=fast", "s=0.25,q=4,preset=fast", "s=0.5,q=4,preset=fast", "s=0,q=2,preset=fast"];
    let alone = tempfile::tempdir().expect("a directory");
    let expected = sweep(&model, &recipes).run(&model, alone.path(), &()).expect("runs");
    for size in [2, 3] {
        let together = tempfile::tempdir().expect("a directory");
        // Two configurations first: the second run takes what is left.
        for (count, reused) in [(2, 0), (4, 2)] {
            let results: Vec<SweepResults> = std::thread::scope(|scope| {
                let run = |ranks| {
                    let sweep = Sweep { ranks, ..sweep(&model, &recipes[..count]) };
                    sweep.run(&model, together.path(), &()).expect("runs")
                };
                let threads: Vec<_> =
                    Ranks::in_threads(size).into_iter().map(|ranks| scope.spawn(move || run(ranks))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            for result in &results {
                assert_eq!(result.configurations.iter().filter(|result| result.reused).count(), reused);
            }
            if count == recipes.len() {
                let numbers = |results: &SweepResults| {
                    let mut results = without_times(results);
                    results.configurations.iter_mut().for_each(|result| result.reused = false);
                    results
                };
                assert!(results.iter().all(|result| numbers(result) == numbers(&expected)), "{size} processes");
            }
        }
    }
}

/// Numbers without what may differ from run to run.
fn without_times(results: &SweepResults) -> SweepResults {
    let mut results = results.clone();
    results.base.seconds = 0.0;
    for configuration in &mut results.configurations {
        configuration.compress_seconds = 0.0;
        configuration.evaluate_seconds = 0.0;
        configuration.profile = sparq_pipeline::Profile::default();
        configuration.reused = false;
        configuration.layers.iter_mut().for_each(|layer| layer.seconds = 0.0);
    }
    results
}

#[derive(Default)]
struct Measured(Mutex<Vec<(String, bool)>>);

impl Observer for Measured {
    fn note(&self, what: &dyn std::fmt::Display) {
        let line = what.to_string();
        if let Some((recipe, _)) = line.split_once(": perplexity ") {
            self.0.lock().expect("not poisoned").push((recipe.to_owned(), line.ends_with("(measured before)")));
        }
    }
}

#[test]
fn a_sweep_measures_compares_and_continues() {
    let model = model();
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path();
    let asked = ["s=0,q=3", "s=0.25,q=4", "q=4,s=0.25"]; // one of them twice
    let first = sweep(&model, &asked).run(&model, out, &()).expect("swept");

    let [three, joint] = &first.configurations[..] else { panic!("two configurations") };
    assert_eq!((three.family, joint.family), (Family::Quantization, Family::Joint));
    assert_eq!((three.tcr, joint.tcr), (0.8125, 0.8125));
    assert!(first.base.perplexity < three.perplexity && joint.kl < three.kl);
    assert!((0.25..0.30).contains(&joint.measured_sparsity), "rounding may add zeros, nothing takes any away");
    let kept = joint.retention.as_ref().expect("the demo model is above chance");
    assert!(kept.sr > 0.8 && kept.interval.low <= kept.sr && kept.sr <= kept.interval.high);
    let expected = kept.sr * 0.75; // srcr.md's check value of the weight at (0.25, 4)
    assert!((joint.srcr.expect("Sr is there") - expected).abs() < 1e-9);
    assert_eq!(first.verdicts.len(), 1);
    assert!(first.verdicts[0].sentence.starts_with("At TCr 81.25 %"), "{}", first.verdicts[0].sentence);
    assert!(joint.kl_interval.expect("there is a text").contains(joint.kl));
    let [pair] = &first.differences[..] else { panic!("one pair at one rate") };
    assert_eq!((pair.equal, pair.first, pair.second), (Equal::Tcr(0.8125), 0, 1));
    let (kl, sr) = (pair.kl.expect("there is a text"), pair.sr.expect("there are tasks"));
    assert!((kl.value - (three.kl - joint.kl)).abs() < 1e-12 && kl.interval.contains(kl.value));
    let sr_of = |configuration: &ConfigurationResult| configuration.retention.as_ref().expect("above chance").sr;
    assert!((sr.value - (sr_of(three) - sr_of(joint))).abs() < 1e-12 && sr.interval.contains(sr.value));
    assert_eq!(joint.samples.len(), 1);

    let json = std::fs::read(out.join("results.json")).expect("written");
    assert_eq!(serde_json::from_slice::<SweepResults>(&json).expect("reads back"), first);

    // A longer sweep into the same directory measures only what is new, and the old numbers stay.
    let seen = Measured::default();
    let second =
        sweep(&model, &["s=0,q=3", "s=0.25,q=4", "s=0,q=8,quantizer=rtn"]).run(&model, out, &seen).expect("swept");
    let reused: Vec<bool> = seen.0.lock().expect("not poisoned").iter().map(|(_, reused)| *reused).collect();
    assert_eq!(reused, [true, true, false]);
    assert_eq!(without_times(&second).configurations[..2], without_times(&first).configurations[..]);

    // Another seed of the calibration is another measurement; a damaged one is made again.
    for entry in std::fs::read_dir(out.join("measurements")).expect("listable") {
        std::fs::write(entry.expect("an entry").path(), b"{").expect("writable");
    }
    let seen = Measured::default();
    let two_at_a_time = Sweep { jobs: 2, ..sweep(&model, &["s=0,q=3", "s=0.25,q=4"]) };
    let third = two_at_a_time.run(&model, out, &seen).expect("swept");
    assert!(seen.0.lock().expect("not poisoned").iter().all(|(_, reused)| !reused));
    assert_eq!(without_times(&third), without_times(&first), "the same bits when measured again, side by side");
}

#[test]
fn impossible_sweeps_are_refused_before_any_work() {
    let model = model();
    let directory = tempfile::tempdir().expect("a directory");
    assert!(matches!(sweep(&model, &[]).run(&model, directory.path(), &()), Err(Error::NoConfigurations)));
    let error =
        sweep(&model, &["s=0,q=4", "s=3:7,q=4"]).run(&model, directory.path(), &()).expect_err("7 does not divide");
    assert!(error.to_string().contains("s=3:7"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("listable").count(), 0);
}

#[test]
fn what_another_commit_measured_is_refused_unless_it_is_asked_for() {
    let (model, directory) = (model(), tempfile::tempdir().expect("a directory"));
    let mut sweep = sweep(&model, &["s=0,q=4,preset=reference"]);
    let first = sweep.run(&model, directory.path(), &()).expect("measured");
    assert_eq!(first.configurations[0].commit.as_deref(), Some("abc"));
    assert_eq!(first.configurations[0].settings["damping"], "0.01");
    sweep.commit = Some("def".to_owned());
    let error = sweep.run(&model, directory.path(), &()).expect_err("measured by another commit");
    assert!(matches!(&error, Error::OtherCommit { by, now, .. } if by == "abc" && now == "def"), "{error}");
    sweep.any_commit = true;
    let reused = sweep.run(&model, directory.path(), &()).expect("welcome");
    assert_eq!(reused.configurations[0].commit.as_deref(), Some("abc"));
    assert_eq!(without_times(&first).configurations, without_times(&reused).configurations);
}

#[test]
fn configurations_of_as_many_stored_bits_are_compared_across_rates() {
    let (model, directory) = (model(), tempfile::tempdir().expect("a directory"));
    let recipes = ["s=0,q=4,preset=reference", "s=0.25,q=4,preset=reference", "s=0,q=2,preset=reference"];
    let results = sweep(&model, &recipes).run(&model, directory.path(), &()).expect("measured");
    let [pair] = &results.differences[..] else { panic!("{:?}", results.differences) };
    assert_eq!((pair.first, pair.second), (0, 1));
    let bits = results.configurations[0].bits_per_weight;
    assert_eq!(pair.equal, Equal::StoredBits(bits));
    assert_eq!(pair.equal.to_string(), format!("{bits:.2} stored bits"));
}
