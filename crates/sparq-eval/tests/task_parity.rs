//! Tasks against an independent computation with transformers, one for each way of loading and scoring, if a real
//! checkpoint was fetched: `SPARQ_SMOLLM2_GGUF` names the file that the fixture was made with.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use sparq_eval::{Task, TaskOptions};
use sparq_model::Model;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What `scripts/fixtures/task_parity.py` writes.
#[derive(Deserialize)]
struct Fixture {
    tasks: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    ids: Vec<String>,
    accuracy: f64,
    /// Of every choice of every item, in nats.
    #[serde(default)]
    log_likelihoods: Vec<Vec<f64>>,
    /// What was written, for generated answers.
    #[serde(default)]
    texts: Vec<String>,
}

#[test]
fn scores_are_those_of_transformers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = root.join("../../../shared/data");
    let Some(path) = std::env::var_os("SPARQ_SMOLLM2_GGUF").filter(|_| data.is_dir()) else {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: SPARQ_SMOLLM2_GGUF is not set, or ../shared is absent");
        }
        return;
    };
    let Ok(fixture) = std::fs::read(root.join("tests/fixtures/smollm2_tasks.json")) else {
        {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: scripts/fixtures/task_parity.py has not made its fixture");
        }
        return;
    };
    let mut model = Model::open(path).unwrap();
    model.make_resident().unwrap();
    let fixture: Fixture = serde_json::from_slice(&fixture).unwrap();
    assert_eq!(fixture.tasks.len(), 8);
    for (name, expected) in &fixture.tasks {
        let index: HashMap<&str, usize> = expected.ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let task = Task::load(name, Some(&data)).unwrap().only(|item| index.contains_key(item.id())).unwrap();
        assert_eq!(task.items().len(), expected.ids.len(), "{name}");
        let result = task.evaluate(&model, &TaskOptions::default(), &()).unwrap();
        let mut worst = 0.0_f64;
        for item in &result.items {
            let at = index[item.id.as_str()];
            if let Some(text) = expected.texts.get(at) {
                assert_eq!(item.prediction.as_ref(), Some(text), "{name}, {}", item.id);
                continue;
            }
            let log_likelihoods = &expected.log_likelihoods[at];
            assert_eq!(item.log_likelihoods.len(), log_likelihoods.len(), "{name}, {}", item.id);
            for (found, expected) in item.log_likelihoods.iter().zip(log_likelihoods) {
                assert!((found - expected).abs() < 1e-3, "{name}, {}: {found} {expected}", item.id);
                worst = worst.max((found - expected).abs());
            }
        }
        eprintln!("{name}: accuracy {:.4}, largest difference {worst:.1e} nats", result.accuracy);
        assert!(
            (result.accuracy - expected.accuracy).abs() < 1e-9,
            "{name}: {} {}",
            result.accuracy,
            expected.accuracy
        );
    }
}
