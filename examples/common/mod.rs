//! What the examples share: the demo model, threads, progress, and one-line errors.

#![allow(dead_code, reason = "every example compiles this module and uses its own part of it")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "these are programs")]

pub(crate) mod demo;
pub(crate) mod solver;
pub(crate) mod tasks;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use sparq::pipeline::{LayerReport, Observer, Plan};
use std::process::ExitCode;

/// Runs `main` and turns an error into one line and exit code 1.
pub(crate) fn run(main: impl FnOnce() -> Result<()>) -> ExitCode {
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Uses `threads` threads (0 = one per core) for everything that follows.
pub(crate) fn set_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start the threads")
}

/// Reads a text file, naming it if that fails.
pub(crate) fn read_text(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes `value` as JSON, whole or not at all.
pub(crate) fn write_json(path: &std::path::Path, value: &impl serde::Serialize) -> Result<()> {
    let place = || format!("cannot write {}", path.display());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".partial-").tempfile_in(parent).with_context(place)?;
    serde_json::to_writer_pretty(&mut file, value).with_context(place)?;
    std::io::Write::write_all(&mut file, b"\n").with_context(place)?;
    file.persist(path).with_context(place)?;
    Ok(())
}

/// A progress bar with ETA on standard error; silent when that is no terminal.
pub(crate) fn progress_bar(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} (ETA {eta}) {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(what.to_owned());
    bar
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// Shows a compression on a progress bar: one step per layer.
pub(crate) struct CompressionBar(ProgressBar);

impl CompressionBar {
    /// A bar that will be as long as the plan says.
    pub(crate) fn new() -> Self {
        Self(progress_bar(0, "compress"))
    }
}

impl Observer for CompressionBar {
    fn planned(&self, plan: &Plan) {
        self.0.set_length(plan.layers as u64);
        let line = format!(
            "{} layers in {} blocks, {:.1} M weights, {} calibration tokens; predicted peak memory {}",
            plan.layers,
            plan.blocks,
            plan.weights as f64 / 1e6,
            plan.tokens,
            bytes(plan.peak_bytes),
        );
        if self.0.is_hidden() {
            eprintln!("{line}");
        } else {
            self.0.println(line);
        }
    }

    fn layer(&self, report: &LayerReport) {
        if !report.fallbacks.is_empty() {
            self.0.println(report.to_string());
        }
        self.0.set_message(format!("{}  error {:.1e}", report.name, report.relative_output_error));
        self.0.inc(1);
    }

    fn block(&self, done: usize, total: usize) {
        if done == total {
            self.0.finish_and_clear();
        }
    }
}
