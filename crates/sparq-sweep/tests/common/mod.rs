//! The demo model of this repository, and texts drawn from it.

use sparq_model::Model;
use sparq_pipeline::{Calibration, Sampling};
use std::path::{Path, PathBuf};

/// A file of the demo model.
pub(crate) fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model").join(file)
}

/// The demo model.
pub(crate) fn model() -> Model {
    Model::open(demo("")).expect("the demo model opens")
}

/// Sequences of the demo model's calibration text.
pub(crate) fn draw(model: &Model, samples: usize, length: usize, seed: u64) -> Calibration {
    let text = std::fs::read_to_string(demo("calibration.txt")).expect("a text");
    Calibration::from_text(model.tokenizer().expect("a tokenizer"), &text, Sampling { samples, length, seed })
        .expect("text")
}
