//! The demo model of this repository, embedded in every example.

use anyhow::{Context, Result};
use std::path::PathBuf;
use tempfile::TempDir;

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../assets/demo-model/", $name)).as_slice())),*]
    };
}

const FILES: [(&str, &[u8]); 10] = embed![
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "calibration.txt",
    "heldout.txt",
    "knowledge.jsonl",
    "reasoning.jsonl",
    "math.jsonl",
];

/// The demo model, unpacked into a directory that lives as long as this value.
pub(crate) struct Demo(TempDir);

impl Demo {
    /// Unpacks it.
    pub(crate) fn unpack() -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("sparq-demo-").tempdir().context("cannot unpack the demo model")?;
        let model = directory.path().join("demo-model");
        std::fs::create_dir(&model).context("cannot unpack the demo model")?;
        for (name, contents) in FILES {
            std::fs::write(model.join(name), contents).with_context(|| format!("cannot unpack {name}"))?;
        }
        Ok(Self(directory))
    }

    /// Its directory: a Hugging Face checkpoint with calibration text and tasks beside it.
    pub(crate) fn directory(&self) -> PathBuf {
        self.0.path().join("demo-model")
    }

    /// Paths of its task files.
    pub(crate) fn tasks(&self) -> Vec<String> {
        ["knowledge.jsonl", "reasoning.jsonl", "math.jsonl"].map(|name| self.file(name).display().to_string()).to_vec()
    }

    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }
}
