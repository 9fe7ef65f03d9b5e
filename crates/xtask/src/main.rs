//! `cargo run -p xtask -- tables` writes every published table, `tables --check` says which are stale, and
//! `keep NAME results.json` takes a sweep's results into docs/results.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

use anyhow::{Result, bail};
use std::path::Path;
use std::process::ExitCode;
use xtask::{Pages, Raw};

const USAGE: &str = "usage: xtask tables [--check] | xtask keep NAME FILE";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tables"] => {
            for page in Pages::open(&root)?.write()? {
                println!("{} written", page.display());
            }
        }
        ["tables", "--check"] => {
            let stale = Pages::open(&root)?.stale()?;
            if !stale.is_empty() {
                let lines: Vec<String> = stale.iter().map(ToString::to_string).collect();
                bail!("{}\nwrite them with: cargo run -p xtask -- tables", lines.join("\n"));
            }
        }
        ["keep", name, file] => Raw::keep(&root, name, Path::new(file))?,
        _ => bail!(USAGE),
    }
    Ok(())
}
