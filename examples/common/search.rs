//! Searching for sparsity and bits layer by layer, shared by `sweep` and `compress`.

use anyhow::Result;
use clap::Args;
use sparq::pipeline::{Calibration, Recipe};
use sparq::prelude::{Bits, Model};
use sparq::sweep::{Observer, Search, Searched, Target};
use std::path::{Path, PathBuf};

/// Tells on standard error how a search goes. A search that is interrupted goes on where it was.
pub(crate) struct SearchBar(indicatif::ProgressBar);

impl SearchBar {
    pub(crate) fn new() -> Self {
        Self(super::progress_bar(0, "search"))
    }
}

impl Observer for SearchBar {
    fn step(&self, index: usize, total: usize, what: &str) {
        self.0.set_length(total as u64);
        self.0.set_position(index.saturating_sub(1) as u64);
        self.0.set_message(what.to_owned());
        if self.0.is_hidden() {
            eprintln!("[{index}/{total}] {what}");
        }
    }
}

impl sparq::pipeline::Observer for SearchBar {}

impl sparq::eval::Observer for SearchBar {
    fn progress(&self, done: usize, total: usize, what: &str) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
        self.0.set_message(what.to_owned());
    }
}

/// What a search is measured on.
#[derive(Debug, Clone, Args)]
pub(crate) struct SearchArgs {
    /// Text a search is probed on; must not be what results are judged by [default: other draws from the
    /// calibration text, which may share parts with what is calibrated on]
    #[arg(long, value_name = "FILE")]
    search_text: Option<PathBuf>,
    /// Bit widths that a search mixes; the format must hold all of them [default: 3,4,8; 4,5,8 for GGUF, 4,8 for
    /// compressed-tensors]
    #[arg(long, value_name = "BITS", value_delimiter = ',')]
    search_bits: Vec<u8>,
    /// Sequences, as long as those of the calibration, that each candidate of a search is calibrated on
    /// [default: 8]
    #[arg(long, value_name = "N")]
    search_samples: Option<usize>,
    /// Sequences, as long as those of the calibration, that a search is probed on; with less than a few thousand tokens it takes noise for differences
    /// [default: 8]
    #[arg(long, value_name = "N")]
    probe_samples: Option<usize>,
    /// Models that a search compresses at a time, each with its own memory: pays on many cores or a small model
    /// [default: 1]
    #[arg(long, value_name = "N")]
    search_jobs: Option<usize>,
}

/// Sequences that a search is calibrated on, and those it is probed on.
const SEQUENCES: usize = 8;

impl SearchArgs {
    /// Refuses what only a search listens to, where none is asked for by `flags`.
    pub(crate) fn check_unused(&self, flags: &str) -> Result<()> {
        let numbers = [self.search_samples, self.probe_samples, self.search_jobs];
        if self.search_text.is_none() && self.search_bits.is_empty() && numbers == [None; 3] {
            return Ok(());
        }
        anyhow::bail!("--search-* and --probe-samples concern a search, which {flags} asks for")
    }

    /// The bit widths that are mixed: those that were asked for, or else these.
    pub(crate) fn widths(&self, otherwise: &[u8]) -> Result<Vec<Bits>> {
        let asked = if self.search_bits.is_empty() { otherwise } else { &self.search_bits };
        Ok(asked.iter().map(|&bits| Bits::new(bits)).collect::<Result<_, _>>()?)
    }

    /// A search for recipes like this one.
    pub(crate) fn search(&self, recipe: &Recipe) -> Search {
        Search::new(recipe.clone()).jobs(self.search_jobs.unwrap_or(1))
    }

    /// Lets `search` find an allocation for each of these targets, and says how it was chosen; `finals` is what the result will
    /// be calibrated on. What is measured is kept in `directory` and found there again.
    pub(crate) fn allocate(
        &self,
        search: Search,
        model: &Model,
        drawn_from: (&Path, u64, usize),
        finals: &Calibration,
        targets: &[Target<'_>],
        directory: &Path,
        observer: &dyn Observer,
    ) -> Result<Vec<Searched>> {
        let (file, seed, length) = drawn_from;
        let draw = |file: &Path, samples, seed| -> Result<Calibration> {
            let text = super::read_text(file)?;
            Ok(Calibration::from_text(model.tokenizer()?, &text, samples, length, seed)?)
        };
        let fitted = draw(file, self.search_samples.unwrap_or(SEQUENCES), seed)?;
        let probe = draw(
            self.search_text.as_deref().unwrap_or(file),
            self.probe_samples.unwrap_or(SEQUENCES),
            seed.wrapping_add(1),
        )?;
        let search = search.finals_on(finals.clone());
        let found = search.allocate(model, &fitted, &probe, targets, Some(directory), observer)?;
        for (searched, target) in found.iter().zip(targets) {
            for contestant in &searched.contestants {
                eprintln!(
                    "{target}, {}: KL on the probe {:.4}{}",
                    contestant.origin,
                    contestant.divergence,
                    if contestant.origin == searched.origin { ", chosen" } else { "" }
                );
            }
        }
        Ok(found)
    }
}
