//! Writes the logits of a token sequence, so that others can check the forward pass.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::Context;
use clap::Parser;
use common::arguments::{JsonArgs, ModelArgs, ThreadArgs};
use sparq::tensor::{TensorData, write_safetensors_file};
use std::path::PathBuf;
use std::process::ExitCode;

/// Write f32 logits `[tokens, vocab]` of a token sequence as safetensors. Needs no tokenizer beside the model.
#[derive(Debug, Parser)]
#[command(name = "logits", version)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,3")]
    tokens: Vec<u32>,
    /// File to write; holds one tensor, `logits`
    #[arg(long, value_name = "FILE", default_value = "logits.safetensors")]
    out: PathBuf,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    json: JsonArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| {
        arguments.threads.start()?;
        let (model, _demo) = arguments.model.open()?;
        let hidden = model.hidden(&[&arguments.tokens])?;
        let logits = model.logits(hidden.view())?;
        write_safetensors_file(&arguments.out, &[("logits", TensorData::F32(logits.view().into_dyn()))])
            .with_context(|| format!("cannot write {}", arguments.out.display()))?;
        let last = logits.row(logits.nrows().saturating_sub(1));
        let best = last.iter().enumerate().max_by(|x, y| x.1.total_cmp(y.1)).map_or(0, |(token, _)| token);
        let (tokens, vocabulary) = logits.dim();
        let answer = serde_json::json!({
            "file": arguments.out, "shape": [tokens, vocabulary], "most_likely_next": best,
        });
        arguments.json.report(&answer, || {
            println!("{tokens} x {vocabulary} logits in {}; most likely next token: {best}", arguments.out.display());
        })
    })
}
