//! Converts a finished solution into another format without solving again.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::{Result, bail};
use clap::Parser;
use common::arguments::{JsonArgs, ModelArgs};
use common::format::{FormatArgs, print_report};
use sparq::export::{Solution, export};
use sparq::model::open_checkpoint;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Convert a finished solution (codes, scales, zero points, masks) into another format without solving again.
///
/// `compress` leaves the solution inside of its output. --model is the model it was solved on: it is needed for
/// everything that was not compressed.
#[derive(Debug, Parser)]
#[command(name = "export", version)]
struct Arguments {
    /// Output of `compress`, or the solution inside of it
    #[arg(long, value_name = "DIR", default_value = "compressed")]
    solution: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    json: JsonArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| convert(&arguments))
}

fn convert(arguments: &Arguments) -> Result<()> {
    let out = arguments.format.destination("exported")?;
    let format = arguments.format.format()?;
    let (path, _demo) = arguments.model.path()?;
    let source = open_checkpoint(path)?;
    let directory = solution_directory(&arguments.solution);
    let solution = Solution::open(&directory)?;
    if let Some(solved_on) = solution.settings().get("model")
        && *solved_on != source.content_hash()?
    {
        bail!(
            "{} was solved on another model than {}; give the one it was solved on",
            arguments.solution.display(),
            source.path().display()
        );
    }
    sparq::tensor::check_apart(&out, &directory)?;
    let report = export(&source, &solution, format.as_ref(), &out, &arguments.format.settings())?;
    arguments.json.report(&report, || print_report(&report))
}

/// The solution itself, or where `compress` puts it: inside of a directory, beside a file.
fn solution_directory(given: &Path) -> PathBuf {
    let inside = given.join("sparq");
    if inside.is_dir() {
        return inside;
    }
    let mut beside = given.as_os_str().to_owned();
    beside.push(".sparq");
    if given.is_file() { PathBuf::from(beside) } else { given.to_path_buf() }
}
