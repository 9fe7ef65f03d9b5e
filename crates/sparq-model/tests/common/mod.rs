//! What several test files need.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part of it

pub(crate) mod reference;

use ndarray::{Array2, ArrayView2};
use sparq_model::Model;
use std::path::{Path, PathBuf};

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Folders with a model and what transformers computes with it.
pub(crate) fn model_fixtures() -> Vec<PathBuf> {
    let mut folders: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.safetensors").exists())
        .collect();
    folders.sort();
    assert!(folders.len() >= 28, "fixtures are missing: {folders:?}");
    folders
}

/// The plainest of them.
pub(crate) fn llama() -> PathBuf {
    fixtures().join("llama2_mha_untied")
}

/// A file or folder of the data shared with the repository, if it is there.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if !shared.exists() {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: ../shared is absent");
        }
        return None;
    }
    Some(shared.join(path))
}

pub(crate) fn expected(folder: &Path, name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let values = match tensor.dtype() {
        safetensors::Dtype::I64 => {
            tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
        }
        safetensors::Dtype::F32 => {
            tensor.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
        }
        other => panic!("{other:?}"),
    };
    (tensor.shape().to_vec(), values)
}

pub(crate) fn has_expected(folder: &Path, name: &str) -> bool {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor(name).is_ok()
}

/// The fixture's token sequences.
pub(crate) fn token_sequences(folder: &Path, name: &str) -> Vec<Vec<u32>> {
    let (shape, values) = expected(folder, name);
    values.chunks(shape[1]).map(|row| row.iter().map(|id| *id as u32).collect()).collect()
}

pub(crate) fn as_slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

pub(crate) fn logits(model: &Model, sequences: &[Vec<u32>]) -> Array2<f32> {
    model.logits(model.hidden(&as_slices(sequences)).unwrap().view()).unwrap()
}

/// Largest difference relative to the largest magnitude.
pub(crate) fn difference(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    let scale = b.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let worst = a.iter().zip(b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(a.iter().all(|value| value.is_finite()));
    worst / scale
}

/// A copy of a fixture whose config.json is what `change` makes of it.
pub(crate) fn with_config(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let mut config = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(copy.path().join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    copy
}
