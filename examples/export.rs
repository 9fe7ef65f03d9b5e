//! Converts a finished solution into another format without solving again.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::{Result, bail};
use clap::Parser;
use common::format::{FormatArgs, print_report};
use sparq::export::{ExportSettings, Solution, export};
use sparq::model::open_checkpoint;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Convert a finished solution (codes, scales, zero points, masks) into another format without solving again.
///
/// `compress` leaves the solution inside of its output. The source model is needed for everything that was not
/// compressed.
#[derive(Debug, Parser)]
#[command(name = "export", version)]
struct Arguments {
    /// Output of `compress`, or the solution inside of it
    #[arg(long, value_name = "DIR", default_value = "compressed")]
    solution: PathBuf,
    /// The model it was solved on: Hugging Face directory, .safetensors or .gguf file [default: the demo model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Directory to create, or file for GGUF
    #[arg(long, value_name = "PATH", default_value = "exported")]
    out: PathBuf,
    /// Replace an existing output
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    format: FormatArgs,
    /// Most bytes of weights in one file
    #[arg(long, value_name = "BYTES")]
    max_shard_bytes: Option<u64>,
    /// Write the report here, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the report as JSON instead of a summary
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| convert(&arguments))
}

fn convert(arguments: &Arguments) -> Result<()> {
    arguments.format.check_destination(&arguments.out)?;
    let format = arguments.format.format()?;
    if arguments.max_shard_bytes.is_some() && format.is_one_file() {
        bail!("--max-shard-bytes concerns formats of several files; a GGUF file is one");
    }
    let demo = if arguments.model.is_none() { Some(common::demo::Demo::unpack()?) } else { None };
    let source = match (&arguments.model, &demo) {
        (Some(model), _) => open_checkpoint(common::hub::resolve(model)?)?,
        (None, Some(demo)) => open_checkpoint(demo.directory())?,
        (None, None) => bail!("no model"),
    };
    let solution = Solution::open(solution_directory(&arguments.solution))?;
    if let Some(solved_on) = solution.settings().get("model")
        && *solved_on != source.content_hash()?
    {
        bail!(
            "{} was solved on another model than {}; give the one it was solved on",
            arguments.solution.display(),
            source.path().display()
        );
    }
    let mut settings = ExportSettings {
        float_type: arguments.format.float_type(),
        overwrite: arguments.overwrite,
        ..ExportSettings::default()
    };
    settings.max_shard_bytes = arguments.max_shard_bytes.unwrap_or(settings.max_shard_bytes);
    sparq::tensor::check_apart(&arguments.out, &solution_directory(&arguments.solution))?;
    let report = export(&source, &solution, format.as_ref(), &arguments.out, &settings)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_report(&report);
    }
    if let Some(file) = &arguments.report {
        common::write_json(file, &report)?;
    }
    Ok(())
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
