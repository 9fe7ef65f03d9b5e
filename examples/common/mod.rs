//! What the examples share: the demo model, threads, progress, and one-line errors.

#![allow(dead_code, reason = "every example compiles this module and uses its own part of it")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "these are programs")]

pub(crate) mod arguments;
pub(crate) mod demo;
pub(crate) mod format;
pub(crate) mod hub;
pub(crate) mod judging;
pub(crate) mod search;
pub(crate) mod solver;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::Array2;
pub(crate) use sparq::model::read_text;
use sparq::{Model, Observer, Ranks};
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Runs `main` and turns an error into one line and exit code 1.
pub(crate) fn run(main: impl FnOnce() -> Result<()>) -> ExitCode {
    run_shared(|ranks| {
        ensure!(ranks.is_alone(), "this program runs as one process; start it without mpirun");
        main().map(|()| 0)
    })
}

/// As [`run`], for programs whose work several processes can share, with exit codes of their own. An error ends all processes.
pub(crate) fn run_shared(main: impl FnOnce(Ranks) -> Result<u8>) -> ExitCode {
    // A handler that does nothing makes a write beyond the file size limit an ordinary error.
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    #[cfg(feature = "mpi")]
    let job = sparq::mpi::start();
    #[cfg(feature = "mpi")]
    let ranks = job.ranks();
    #[cfg(not(feature = "mpi"))]
    let ranks = Ranks::default();
    #[cfg(not(feature = "mpi"))]
    let main = |ranks| {
        let started = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].iter().find_map(|name| std::env::var(name).ok());
        let alone = started.is_none_or(|processes| processes == "1");
        ensure!(alone, "several processes were started, but this program was built without --features mpi");
        main(ranks)
    };
    let rank = if ranks.is_alone() { String::new() } else { format!("rank {}: ", ranks.rank()) };
    match main(ranks) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {rank}{error:#}");
            #[cfg(feature = "mpi")]
            if !rank.is_empty() {
                job.abort(1)
            }
            ExitCode::FAILURE
        }
    }
}

/// `observer` on the first process, none on others.
pub(crate) fn observer<'a>(ranks: &Ranks, observer: &'a dyn Observer) -> &'a dyn Observer {
    if ranks.is_first() { observer } else { &() }
}

/// Exit code of a program that a signal asked to stop: what shells give for SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// A flag that SIGINT and SIGTERM set; a second one ends the process at once. What is written is safe either way.
#[cfg(unix)]
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds the flag unset, sets it, and so arms the shutdown.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot watch for signals")?;
    }
    Ok(stop)
}

/// A flag that nothing sets: an interrupted process just ends, and what is written is safe.
#[cfg(not(unix))]
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    Ok(Arc::default())
}

/// Floating-point operations a second of an `f32` product with as many tokens as a batch has, on all threads.
pub(crate) fn product_rate() -> f64 {
    let (a, b) = (Array2::<f32>::ones((2048, 1024)), Array2::<f32>::ones((1024, 1024)));
    let mut c = Array2::zeros((2048, 1024));
    let mut once = || {
        let start = Instant::now();
        sparq::linalg::gemm(1.0, a.view(), b.view(), 0.0, c.view_mut());
        start.elapsed().as_secs_f64()
    };
    let fastest = (0..3).map(|_| once()).fold(f64::INFINITY, f64::min);
    2.0 * 2048.0 * 1024.0 * 1024.0 / fastest
}

/// A number that must be at least 1.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("a whole number of at least 1 is needed".to_owned()),
    }
}

/// A theoretical compression rate, which is a fraction.
pub(crate) fn parse_tcr(text: &str) -> Result<f64, String> {
    let rate: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| "a fraction such as 0.8125 is needed")?;
    if (0.0..1.0).contains(&rate) && !text.ends_with('%') {
        return Ok(rate);
    }
    if (0.0..100.0).contains(&rate) && (text.ends_with('%') || rate > 1.0) {
        return Err(format!("a fraction is needed: {rate} % is {}", rate / 100.0));
    }
    Err("a fraction between 0 and 1 is needed, such as 0.8125".to_owned())
}

/// Tokens of calibration sequences and of windows of held-out text where nobody says: those the model was made for, at most
/// 512. The demo model was trained on sequences of 128.
pub(crate) fn default_length(model: &Model, demo: Option<&demo::Demo>) -> usize {
    let trained = if demo.is_some() { 128 } else { 512 };
    model.config().max_positions.min(trained)
}

/// Writes `value` as JSON, whole or not at all; its directory is made if there is none.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    sparq::tensor::write_file(path, &json).with_context(|| format!("cannot write {}", path.display()))
}

/// The command line of an example, as one would type it.
pub(crate) fn command(example: &str) -> String {
    let quoted = |argument: String| {
        let plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=,:".contains(c));
        if plain { argument } else { format!("'{}'", argument.replace('\'', r"'\''")) }
    };
    let arguments: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    format!("cargo run --release --example {example} -- {}", arguments.join(" "))
        .trim_end_matches(" --")
        .trim_end()
        .to_owned()
}

/// The commit of the checkout that this program was built in, `-dirty` behind it if files were changed since; none outside a
/// checkout.
pub(crate) fn commit() -> Option<String> {
    let describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    let out = std::process::Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(describe).output().ok()?;
    let commit = String::from_utf8(out.stdout).ok()?;
    Some(commit.trim().to_owned()).filter(|commit| out.status.success() && !commit.is_empty())
}

/// The last part of a path. Results name no directories.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// A progress bar with ETA on standard error; silent when that is no terminal.
pub(crate) fn progress_bar(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} (ETA {eta}) {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(what.to_owned());
    bar
}

/// A line above a progress bar, or on standard error without one.
pub(crate) fn note(bar: &ProgressBar, what: &dyn Display) {
    if bar.is_hidden() {
        eprintln!("{what}");
    } else {
        bar.println(what.to_string());
    }
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

/// A number of bytes with a unit or none: `8GB`, `512MiB`, `1e9`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => f64::from(1_u32 << 10),
        "mib" => f64::from(1_u32 << 20),
        "gib" => f64::from(1_u32 << 30),
        other => return Err(format!("{other:?} is no unit: kB, MB, GB, KiB, MiB, GiB")),
    };
    let number: f64 = digits.trim().parse().map_err(|_| format!("{digits:?} is not a number"))?;
    let bytes = number * unit;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(format!("{text:?} is out of range")) }
}

/// Shows a compression on a progress bar, one step for each layer, and asks it to stop after a signal.
pub(crate) struct CompressionBar {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl CompressionBar {
    /// A bar whose length comes from the plan, for a compression that ends early once `stop` is set.
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Self {
        Self { bar: progress_bar(0, "compress"), stop }
    }

    /// Whether a signal came.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for CompressionBar {
    fn note(&self, what: &dyn Display) {
        note(&self.bar, what);
    }

    fn progress(&self, done: usize, total: usize, what: &dyn Display) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(what.to_string());
        if done == total {
            self.bar.finish_and_clear();
        }
    }

    fn stop(&self) -> bool {
        self.is_stopped()
    }
}
