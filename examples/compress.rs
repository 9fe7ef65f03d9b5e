//! Compresses a checkpoint: prunes, quantizes, writes a dense Hugging Face directory and a report.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use common::{CompressionBar, bytes, demo, solver::SolverArgs};
use sparq::pipeline::{OutputType, Targets};
use sparq::prelude::*;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    /// As in the source (f16 for block-quantized GGUF)
    Source,
    F32,
    F16,
    Bf16,
}

/// Prune and quantize a model, layer by layer, and write it as a dense checkpoint that transformers loads.
///
/// Without --model, works on the embedded demo model.
#[derive(Debug, Parser)]
#[command(name = "compress", version)]
struct Arguments {
    /// Hugging Face directory, .safetensors file or .gguf file [default: the demo model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Directory to create
    #[arg(long, value_name = "DIR", default_value = "compressed")]
    out: PathBuf,
    /// Replace DIR if it exists
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    solver: SolverArgs,
    /// Layers to compress, as globs over module names such as '*.mlp.*' [default: every linear layer in the blocks]
    #[arg(long, value_name = "GLOB")]
    targets: Vec<String>,
    /// Layers to leave alone
    #[arg(long, value_name = "GLOB")]
    ignore: Vec<String>,
    /// Text to calibrate on [default for the demo model: its own]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Calibration sequences
    #[arg(long, default_value_t = 64)]
    samples: usize,
    /// Tokens in a calibration sequence
    #[arg(long, default_value_t = 512)]
    seq_len: usize,
    /// Number type of the output
    #[arg(long, value_enum, default_value = "source")]
    dtype: Dtype,
    /// Seed of the choice of calibration sequences
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; 0 uses every core. The result does not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Write the per-layer report here, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the report as JSON instead of a summary
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| {
        common::set_threads(arguments.threads)?;
        let (model, demo) = demo::model_or_demo(arguments.model.as_deref())?;
        let mut targets = Targets { ignore: arguments.ignore.clone(), ..Targets::default() };
        if !arguments.targets.is_empty() {
            targets.include.clone_from(&arguments.targets);
        }
        let recipe = arguments.solver.recipe(targets)?;
        let calibration_file = arguments.calibration.clone().or(demo.as_ref().map(|demo| demo.file("calibration.txt")));
        let calibration = match &calibration_file {
            Some(file) => Some(
                Calibration::from_text(
                    model.tokenizer()?,
                    &common::read_text(file)?,
                    arguments.samples,
                    arguments.seq_len,
                    arguments.seed,
                )
                .with_context(|| format!("calibration text {}", file.display()))?,
            ),
            None => None,
        };
        let settings = WriteSettings {
            output_type: match arguments.dtype {
                Dtype::Source => OutputType::Source,
                Dtype::F32 => OutputType::F32,
                Dtype::F16 => OutputType::F16,
                Dtype::Bf16 => OutputType::Bf16,
            },
            overwrite: arguments.overwrite,
            ..WriteSettings::default()
        };
        let mut sink = CheckpointSink::create(&model, &arguments.out, settings)?;
        let bar = CompressionBar::new();
        let report = sparq::pipeline::compress(&model, &recipe, calibration.as_ref(), &mut sink, &bar)?;
        let written = sink.finish()?;
        if let Some(file) = &arguments.report {
            common::write_json(file, &report)?;
        }
        if arguments.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(());
        }
        let sixteen_bit = 2 * report.plan.parameters as u64;
        println!("{recipe} on {} layers in {:.1} s", report.layers.len(), report.seconds);
        println!("requested   TCr {:.2} %", 100.0 * report.requested_tcr);
        println!(
            "measured    {:.2} % exact zeros, {:.3} bits per weight if the codes are stored",
            100.0 * report.measured_sparsity,
            report.bits_per_weight
        );
        println!(
            "written     {} in {}; the 16-bit original has {}",
            bytes(written.bytes),
            written.path.display(),
            bytes(sixteen_bit)
        );
        println!(
            "            A dense checkpoint stores zeros and rounded weights at full width: the file is not smaller. \
             What is saved is what an engine that reads the codes would store."
        );
        if report.layers_with_fallbacks > 0 {
            println!("fallbacks   in {} layers; see --report", report.layers_with_fallbacks);
        }
        Ok(())
    })
}
