//! Continues a prompt.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

mod common;

use clap::Parser;
use common::demo;
use sparq::model::{GenerateOptions, Sampler};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Continue a prompt, greedily or by sampling.
#[derive(Debug, Parser)]
#[command(name = "generate", version)]
struct Arguments {
    /// Hugging Face directory, .safetensors file or .gguf file [default: the demo model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Text to continue
    #[arg(long, default_value = "Q: What is the capital of France? A:")]
    prompt: String,
    /// Most tokens to add
    #[arg(long, default_value_t = 48)]
    max_tokens: usize,
    /// Sample at this temperature instead of taking the most likely token
    #[arg(long)]
    temperature: Option<f32>,
    /// Sample among this many most likely tokens
    #[arg(long, requires = "temperature")]
    top_k: Option<usize>,
    /// Sample among the most likely tokens that reach this probability together
    #[arg(long, requires = "temperature")]
    top_p: Option<f32>,
    /// Seed of sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; 0 uses every core. The result does not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print text, tokens and speed as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| {
        common::set_threads(arguments.threads)?;
        let (mut model, _demo) = demo::model_or_demo(arguments.model.as_deref())?;
        model.make_resident()?;
        let tokenizer = model.tokenizer()?;
        let prompt = tokenizer.encode_beginning(&arguments.prompt)?;
        let sampler = arguments.temperature.map_or(Sampler::Greedy, |temperature| Sampler::Temperature {
            temperature,
            top_k: arguments.top_k,
            top_p: arguments.top_p.unwrap_or(1.0),
            seed: arguments.seed,
        });
        let options = GenerateOptions { max_tokens: arguments.max_tokens, stop: tokenizer.eos_ids().to_vec(), sampler };
        let mut tokens: Vec<u32> = Vec::new();
        let mut shown = String::new();
        if !arguments.json {
            print!("{}", arguments.prompt);
        }
        let (start, mut first) = (Instant::now(), None);
        model.generate(&prompt, &options, |token| {
            first.get_or_insert_with(Instant::now);
            tokens.push(token);
            // A character may take several tokens: show text once it is complete.
            if let Ok(text) = tokenizer.decode(&tokens, true)
                && !arguments.json
                && !text.ends_with('\u{fffd}')
            {
                print!("{}", text.strip_prefix(&shown).unwrap_or(""));
                // A reader that has gone away ends the program at the next line anyway.
                let _ = std::io::stdout().flush();
                shown = text;
            }
            ControlFlow::Continue(())
        })?;
        let decoding = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        let speed = if decoding > 0.0 { tokens.len().saturating_sub(1) as f64 / decoding } else { 0.0 };
        if arguments.json {
            let text = tokenizer.decode(&tokens, true)?;
            let answer = serde_json::json!({
                "prompt": arguments.prompt, "text": text, "tokens": tokens,
                "seconds": start.elapsed().as_secs_f64(), "tokens_per_second": speed,
            });
            println!("{answer}");
        } else {
            println!();
            eprintln!("{} tokens, {speed:.1} tokens/s", tokens.len());
        }
        Ok(())
    })
}
