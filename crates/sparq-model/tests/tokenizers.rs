//! Agreement with transformers on a page of hard text.
#![allow(clippy::unwrap_used)]

mod common;

use common::{fixtures, shared};
use serde_json::Value;
use sparq_model::Model;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn check(model: &str, folder: Option<std::path::PathBuf>) {
    let Some(folder) = folder.filter(|folder| folder.exists()) else {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: {model} is absent");
        }
        return;
    };
    let expected: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join(format!("hard_text.{model}.json"))).unwrap()).unwrap();
    let text = String::from_utf8(std::fs::read(fixtures().join("hard_text.txt")).unwrap()).unwrap();
    let model = Model::open(folder).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    for (whole, pieces, special) in [("whole", "ids", true), ("whole_plain", "ids_plain", false)] {
        assert_eq!(tokenizer.encode(&text, special).unwrap(), ids(&expected[whole]));
        for (piece, wanted) in text.split('\n').zip(expected[pieces].as_array().unwrap()) {
            assert_eq!(tokenizer.encode(piece, special).unwrap(), ids(wanted), "{piece:?}");
        }
    }
    let decoded = tokenizer.decode(&ids(&expected["whole_plain"]), false).unwrap();
    assert_eq!(decoded, expected["decoded_whole"].as_str().unwrap());
    assert!(tokenizer.eos().is_some() && tokenizer.vocab_size() <= model.config().vocab_size);
}

#[test]
fn demo_model() {
    check("demo-model", shared("demo-model"));
}

#[test]
fn stories260k() {
    check("stories260K", shared("models/stories260K"));
}

/// Set `SPARQ_SMOLLM2` to the GGUF file that `get-real-models.sh` fetches.
#[test]
fn smollm2() {
    check("smollm2", std::env::var_os("SPARQ_SMOLLM2").map(Into::into));
}
