//! Converts a finished solution into another format without solving again.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::{Context, Result, bail};
use clap::Parser;
use common::arguments::{JsonArgs, ModelArgs};
use common::format::{FormatArgs, print_report};
use sparq::export::{CodedLayers, Solution, export};
use sparq::model::open_checkpoint;
use sparq::tensor::Checkpoint;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Convert a finished solution (codes, scales, zero points, masks) into another format without solving again.
///
/// `compress` leaves the solution inside of its output. --model is the model it was solved on: it is needed for
/// everything that was not compressed. A coded checkpoint needs neither: its codes are in it, and everything else.
#[derive(Debug, Parser)]
#[command(name = "export", version)]
struct Arguments {
    /// Output of `compress`, or the solution inside of it, or a coded checkpoint
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
    let directory = solution_directory(&arguments.solution);
    if let Some(coded) = coded_checkpoint(&directory)? {
        sparq::tensor::check_apart(&out, &directory)?;
        let layers = CodedLayers::new(&coded)?.context("no weight of it is coded")?;
        let report = export(&coded, &layers, format.as_ref(), &out, &arguments.format.settings())?;
        return arguments.json.report(&report, || print_report(&report));
    }
    let (path, _demo) = arguments.model.path()?;
    let source = open_checkpoint(path)?;
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

/// A checkpoint without a solution whose weights are coded.
fn coded_checkpoint(directory: &Path) -> Result<Option<Checkpoint>> {
    if !directory.join("config.json").is_file() {
        return Ok(None);
    }
    let checkpoint = open_checkpoint(directory)?;
    Ok(CodedLayers::new(&checkpoint)?.is_some().then_some(checkpoint))
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
