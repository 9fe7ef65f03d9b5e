//! Writes the logits of a token sequence, so that others can check the forward pass.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::Context;
use clap::Parser;
use common::demo;
use sparq::tensor::{TensorData, write_safetensors_file};
use std::path::PathBuf;
use std::process::ExitCode;

/// Write f32 logits `[tokens, vocab]` of a token sequence as safetensors. Needs no tokenizer beside the model.
#[derive(Debug, Parser)]
#[command(name = "logits", version)]
struct Arguments {
    /// Hugging Face directory, .safetensors file or .gguf file [default: the demo model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,3")]
    tokens: Vec<u32>,
    /// File to write; holds one tensor, `logits`
    #[arg(long, value_name = "FILE", default_value = "logits.safetensors")]
    out: PathBuf,
    /// Threads; 0 uses every core. The result does not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| {
        common::set_threads(arguments.threads)?;
        let (model, _demo) = demo::model_or_demo(arguments.model.as_deref())?;
        let hidden = model.hidden(&[&arguments.tokens])?;
        let logits = model.logits(hidden.view())?;
        write_safetensors_file(&arguments.out, &[("logits", TensorData::F32(logits.view().into_dyn()))])
            .with_context(|| format!("cannot write {}", arguments.out.display()))?;
        let last = logits.row(logits.nrows().saturating_sub(1));
        let best = last.iter().enumerate().max_by(|x, y| x.1.total_cmp(y.1)).map_or(0, |(token, _)| token);
        if arguments.json {
            let shape = [logits.nrows(), logits.ncols()];
            println!("{}", serde_json::json!({ "file": arguments.out, "shape": shape, "most_likely_next": best }));
        } else {
            println!(
                "{} x {} logits in {}; most likely next token: {best}",
                logits.nrows(),
                logits.ncols(),
                arguments.out.display()
            );
        }
        Ok(())
    })
}
