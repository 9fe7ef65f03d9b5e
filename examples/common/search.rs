//! Searching for sparsity and bits layer by layer, shared by `sweep` and `compress`.

use super::arguments::Source;
use anyhow::Result;
use clap::Args;
use sparq::prelude::*;
use sparq::sweep::{Rates, Search, Searched, Target};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Shows on standard error how a search goes.
pub(crate) struct SearchBar(indicatif::ProgressBar);

impl SearchBar {
    pub(crate) fn new() -> Self {
        Self(super::progress_bar(0, "search"))
    }
}

impl Observer for SearchBar {
    fn step(&self, index: usize, total: usize, what: &dyn Display) {
        self.0.set_length(total as u64);
        self.0.set_position(index.saturating_sub(1) as u64);
        self.0.set_message(what.to_string());
        if self.0.is_hidden() {
            eprintln!("[{index}/{total}] {what}");
        }
    }
}

/// What a search is measured on.
#[derive(Debug, Clone, Args)]
pub(crate) struct SearchArgs {
    /// Text a search is probed on; must not be what results are judged by [default: other draws from the
    /// calibration text, which may share parts with what is calibrated on]
    #[arg(long, value_name = "FILE")]
    search_text: Option<PathBuf>,
    /// Bit widths that a search mixes; the format must hold all of them [default: 3,4,8; 3,4,5,6,8 for GGUF, 4,8
    /// for compressed-tensors]
    #[arg(long, value_name = "BITS", value_delimiter = ',', allow_negative_numbers = true)]
    search_bits: Vec<u8>,
    /// Models that a search or a sweep compresses at a time, each with its own memory: pays on many cores or a small model
    #[arg(long, default_value_t = 1, value_parser = super::positive, allow_negative_numbers = true)]
    pub(crate) jobs: usize,
}

/// Sequences that a search is calibrated on, and as many that it is probed on. With less than a few thousand tokens a
/// search takes noise for differences.
const SEQUENCES: usize = 8;

impl SearchArgs {
    /// Refuses flags of a search if none is asked for by `flags`.
    pub(crate) fn check_unused(&self, flags: &str) -> Result<()> {
        if self.search_text.is_none() && self.search_bits.is_empty() {
            return Ok(());
        }
        anyhow::bail!("--search-text and --search-bits concern a search, which {flags} asks for")
    }

    /// Whether bit widths were asked for.
    pub(crate) fn names_widths(&self) -> bool {
        !self.search_bits.is_empty()
    }

    /// The bit widths that are mixed: those that were asked for, or else `default`.
    pub(crate) fn widths(&self, default: &[u8]) -> Result<Vec<Bits>> {
        let asked = if self.search_bits.is_empty() { default } else { &self.search_bits };
        Ok(asked.iter().map(|&bits| Bits::new(bits)).collect::<Result<_, _>>()?)
    }

    /// Rates for the layers of `model`, and perhaps embedding and output matrix, with this mean, such that a bit is worth as
    /// much everywhere.
    pub(crate) fn rates(
        &self,
        recipe: &Recipe,
        model: &Model,
        source: &Source,
        rate: (f64, bool),
        directory: &Path,
        observer: &dyn Observer,
    ) -> Result<Rates> {
        let fitted = source.draw(model, SEQUENCES)?;
        let file = self.search_text.clone().unwrap_or_else(|| source.file.clone());
        let probe = Source { file, seed: source.seed.wrapping_add(1), ..*source }.draw(model, 1)?;
        Ok(Search::new(recipe.clone()).rates(model, &fitted, &probe, rate, Some(directory), observer)?)
    }

    /// Lets `search` find an allocation for each target, and shows how it was chosen. `finals` is what the result will be
    /// calibrated on. What is measured is kept in `directory` and found there again.
    pub(crate) fn allocate(
        &self,
        search: Search,
        model: &Model,
        source: &Source,
        finals: &Calibration,
        targets: &[Target<'_>],
        directory: &Path,
        observer: &dyn Observer,
    ) -> Result<Vec<Searched>> {
        let fitted = source.draw(model, SEQUENCES)?;
        let file = self.search_text.clone().unwrap_or_else(|| source.file.clone());
        let probe = Source { file, seed: source.seed.wrapping_add(1), ..*source }.draw(model, SEQUENCES)?;
        let search = search.jobs(self.jobs).finals_on(finals.clone());
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
