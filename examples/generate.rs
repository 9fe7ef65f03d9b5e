//! Continues a prompt.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

mod common;

use clap::Parser;
use common::arguments::{ForwardArgs, JsonArgs, ModelArgs, SeedArgs, ThreadArgs};
use sparq::model::{GenerateOptions, Sampler};
use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Instant;

/// Continue a prompt, greedily or by sampling.
#[derive(Debug, Parser)]
#[command(name = "generate", version)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue
    #[arg(long, default_value = "Q: What is the capital of France? A:")]
    prompt: String,
    /// Most tokens to add
    #[arg(long, default_value_t = 48, allow_negative_numbers = true)]
    max_tokens: usize,
    /// Sample at this temperature instead of taking the most likely token
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Sample among this many most likely tokens
    #[arg(long, requires = "temperature", allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Sample among the most likely tokens that reach this probability together
    #[arg(long, requires = "temperature", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Hold all weights in memory as f32, four bytes a weight instead of what the file has: more tokens a second where they are not
    /// in the blocks of a GGUF file
    #[arg(long)]
    in_memory: bool,
    #[command(flatten)]
    forward: ForwardArgs,
    #[command(flatten)]
    seed: SeedArgs,
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
        let mut model = model.with_precision(arguments.forward.forward);
        common::arguments::print_remarks(&model);
        if arguments.in_memory {
            model.make_resident()?;
        } else {
            model.run_as_stored()?;
        }
        let tokenizer = model.tokenizer()?;
        let prompt = tokenizer.encode_beginning(&arguments.prompt)?;
        let sampler = arguments.temperature.map_or(Sampler::Greedy, |temperature| Sampler::Temperature {
            temperature,
            top_k: arguments.top_k,
            top_p: arguments.top_p.unwrap_or(1.0),
            seed: arguments.seed.seed,
        });
        let options = GenerateOptions { max_tokens: arguments.max_tokens, stop: tokenizer.eos_ids().to_vec(), sampler };
        let mut tokens: Vec<u32> = Vec::new();
        let mut shown = String::new();
        let shows = !arguments.json.is_printed();
        if shows {
            print!("{}", arguments.prompt);
        }
        let (start, mut first) = (Instant::now(), None);
        model.generate(&prompt, &options, |token| {
            first.get_or_insert_with(Instant::now);
            tokens.push(token);
            // A character may take several tokens: show text once it is complete.
            if let Ok(text) = tokenizer.decode(&tokens, true)
                && shows
                && !text.ends_with('\u{fffd}')
            {
                print!("{}", text.strip_prefix(&shown).unwrap_or(""));
                // If the reader has gone away, the next line ends the program.
                let _ = std::io::stdout().flush();
                shown = text;
            }
            ControlFlow::Continue(())
        })?;
        if prompt.len() + tokens.len() == model.config().max_positions {
            eprintln!("\nstopped at the last of the model's {} positions", model.config().max_positions);
        }
        let decoding = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        let speed = if decoding > 0.0 { tokens.len().saturating_sub(1) as f64 / decoding } else { 0.0 };
        let answer = serde_json::json!({
            "prompt": arguments.prompt, "text": tokenizer.decode(&tokens, true)?, "tokens": tokens,
            "seconds": start.elapsed().as_secs_f64(), "tokens_per_second": speed,
        });
        arguments.json.report(&answer, || {
            println!();
            eprintln!("{} tokens, {speed:.1} tokens/s", tokens.len());
        })
    })
}
