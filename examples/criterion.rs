//! Which cheap measure ranks compressed models as their divergence from the base does?

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

mod common;

use anyhow::{Context, Result, bail};
use clap::Parser;
use common::demo;
use serde::{Deserialize, Serialize};
use sparq::eval::{LayerwiseErrors, TextEvaluation, TextSettings, layerwise_errors};
use sparq::metric::rank_correlation;
use sparq::pipeline::{MemorySink, Recipe, compress};
use sparq::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measure errors of layers and blocks, and KL of the whole model, for many candidate solutions, and how well each error
/// ranks them as KL does (Spearman's correlation).
///
/// Candidates that --out holds are not measured again, if it was measured with the same settings. Without --model, works
/// on the demo model.
#[derive(Debug, Parser)]
#[command(name = "criterion", version)]
struct Arguments {
    /// Hugging Face directory, .safetensors file or .gguf file [default: the demo model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// A candidate, as a recipe; may be repeated [default: some fifty, over methods, bits, sparsities and dampings]
    #[arg(long, value_name = "RECIPE")]
    config: Vec<String>,
    /// Settings appended to every candidate
    #[arg(long, value_name = "RECIPE", default_value = "")]
    common: String,
    /// Text to calibrate on
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Calibration sequences
    #[arg(long, default_value_t = 16)]
    samples: usize,
    /// Tokens in a calibration sequence, and in a window of held-out text
    #[arg(long, default_value_t = 256)]
    seq_len: usize,
    /// Held-out text for errors and KL
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens of it
    #[arg(long, default_value_t = 4096)]
    text_tokens: usize,
    /// Results, as JSON
    #[arg(long, value_name = "FILE", default_value = "criterion.json")]
    out: PathBuf,
    /// Seed of the choice of calibration sequences
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; 0 uses every core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// What decides every number beside a candidate's recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    version: String,
    model: String,
    calibration: String,
    samples: usize,
    seq_len: usize,
    text: String,
    text_tokens: usize,
    seed: u64,
}

/// What --out holds.
#[derive(Debug, Serialize, Deserialize)]
struct Results {
    command: String,
    settings: Settings,
    candidates: Vec<Row>,
}

/// One candidate.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    recipe: String,
    kl: f64,
    /// Mean over layers of the error on calibration tokens that the solver reports.
    calibration: f64,
    errors: LayerwiseErrors,
}

/// A measure by name.
type Measure = (&'static str, fn(&Row) -> f64);

const MEASURES: [Measure; 8] = [
    ("output error on calibration tokens", |row| row.calibration),
    ("output error", |row| row.errors.output),
    ("output error by token", |row| row.errors.output_by_token),
    ("block error", |row| row.errors.block),
    ("block error by token", |row| row.errors.block_by_token),
    ("error after the next norm, by token", |row| row.errors.normed_by_token),
    ("drift after the next norm, by token", |row| row.errors.drift_by_token),
    ("drift of the last hidden states, by token", |row| row.errors.last_by_token),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| criterion(&arguments))
}

fn criterion(arguments: &Arguments) -> Result<()> {
    common::set_threads(arguments.threads)?;
    let (mut model, demo) = demo::model_or_demo(arguments.model.as_deref())?;
    let file = |given: &Option<PathBuf>, name| given.clone().or(demo.as_ref().map(|demo| demo.file(name)));
    let (Some(calibration), Some(text)) =
        (file(&arguments.calibration, "calibration.txt"), file(&arguments.text, "heldout.txt"))
    else {
        bail!("--calibration FILE and --text FILE are needed for a model of your own");
    };
    let settings = Settings {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: demo::name_or_demo(arguments.model.as_deref()),
        calibration: common::name_of(&calibration),
        samples: arguments.samples,
        seq_len: arguments.seq_len,
        text: common::name_of(&text),
        text_tokens: arguments.text_tokens,
        seed: arguments.seed,
    };
    let mut results = found_or_none(&arguments.out, settings)?;

    model.make_resident()?;
    let calibration = Calibration::from_text(
        model.tokenizer()?,
        &common::read_text(&calibration)?,
        arguments.samples,
        arguments.seq_len,
        arguments.seed,
    )?;
    let text = common::read_text(&text)?;
    let settings =
        TextSettings { length: arguments.seq_len, token_limit: Some(arguments.text_tokens), ..TextSettings::default() };
    let evaluation = TextEvaluation::from_text(&model, &text, settings)?;
    let held_out = Calibration::from_text(
        model.tokenizer()?,
        &text,
        (arguments.text_tokens / arguments.seq_len).max(1),
        arguments.seq_len,
        arguments.seed,
    )?;
    let baseline = evaluation.baseline(&model, &())?;

    let recipes = recipes(arguments)?;
    for (index, recipe) in recipes.iter().enumerate() {
        if results.candidates.iter().any(|row| row.recipe == recipe.to_string()) {
            continue;
        }
        let mut sink = MemorySink::new();
        let report = compress(&model, recipe, Some(&calibration), &mut sink, &())?;
        let compressed = sink.into_model(&model)?;
        let scores = evaluation.evaluate(&compressed, Some(&baseline), &())?;
        let layers = report.layers.len().max(1) as f64;
        let row = Row {
            recipe: recipe.to_string(),
            kl: scores.base.map_or(f64::NAN, |base| base.mean_kl),
            calibration: report.layers.iter().map(|layer| layer.relative_output_error).sum::<f64>() / layers,
            errors: layerwise_errors(&model, &compressed, held_out.sequences())?,
        };
        eprintln!("[{}/{}] {}: KL {:.4}", index + 1, recipes.len(), row.recipe, row.kl);
        results.candidates.push(row);
        common::write_json(&arguments.out, &results)?;
    }
    let mut rows = results.candidates;
    rows.retain(|row| recipes.iter().any(|recipe| recipe.to_string() == row.recipe));

    println!("{} candidates, KL {:.4} to {:.4} nats", rows.len(), extreme(&rows, f64::min), extreme(&rows, f64::max));
    let series = damping_series(&rows);
    let names: Vec<&str> = series.iter().map(|(name, _)| name.as_str()).collect();
    println!("Correlation over all, and over those that differ in damping alone: {}", names.join(" | "));
    for (name, measure) in MEASURES {
        let of_series = series.iter().map(|(_, rows)| correlation(rows, measure)).collect::<Result<Vec<f64>>>()?;
        print!("{name:<42} all {:>6.3}   dampings only", correlation(&rows, measure)?);
        for correlation in &of_series {
            print!(" {correlation:>6.3}");
        }
        println!("   mean {:>6.3}", of_series.iter().sum::<f64>() / of_series.len() as f64);
    }
    Ok(())
}

/// Results to go on from: what a file holds that was measured with these settings, none if there is no file.
fn found_or_none(file: &Path, settings: Settings) -> Result<Results> {
    let command = common::command("criterion");
    if !file.exists() {
        return Ok(Results { command, settings, candidates: Vec::new() });
    }
    let found: Results =
        serde_json::from_str(&common::read_text(file)?).with_context(|| format!("{}", file.display()))?;
    if found.settings != settings {
        bail!(
            "{} holds candidates that were measured with other settings ({:?}): give another --out",
            file.display(),
            found.settings
        );
    }
    Ok(Results { command, ..found })
}

fn extreme(rows: &[Row], choose: fn(f64, f64) -> f64) -> f64 {
    rows.iter().map(|row| row.kl).fold(f64::NAN, choose)
}

fn correlation(rows: &[Row], measure: fn(&Row) -> f64) -> Result<f64> {
    if rows.len() < 2 {
        return Ok(f64::NAN);
    }
    let (kl, measured): (Vec<f64>, Vec<f64>) = rows.iter().map(|row| (row.kl, measure(row))).unzip();
    Ok(rank_correlation(&measured, &kl)?)
}

/// Candidates that differ in damping alone, a series for each recipe that was tried with several: the hard case, where
/// layer errors are known to mislead.
fn damping_series(rows: &[Row]) -> Vec<(String, Vec<Row>)> {
    let stem = |row: &Row| {
        let others = row.recipe.split(',').filter(|setting| !setting.starts_with("damping="));
        others.collect::<Vec<_>>().join(",")
    };
    let stems: BTreeSet<String> = rows.iter().filter(|row| row.recipe.contains(",damping=")).map(stem).collect();
    let alike = |of: String| {
        let rows = rows.iter().filter(|row| stem(row) == of).cloned().collect();
        (of, rows)
    };
    stems.into_iter().map(alike).collect()
}

fn recipes(arguments: &Arguments) -> Result<Vec<Recipe>> {
    let complete = |text: String| -> Result<Recipe> { Ok(format!("{text},{}", arguments.common).parse()?) };
    if !arguments.config.is_empty() {
        return arguments.config.iter().cloned().map(complete).collect();
    }
    let mut recipes = Vec::new();
    for damping in [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0] {
        recipes.push(complete(format!("s=0.25,q=4,preset=reference,damping={damping}"))?);
        recipes.push(complete(format!("s=0,q=3,preset=reference,damping={damping}"))?);
        recipes.push(complete(format!("s=0.5,q=4,preset=balanced,held-out=0,damping={damping}"))?);
    }
    for budget in ["s=0.25,q=4", "s=0.5,q=4", "s=0.3333,q=3", "s=2:4,q=4"] {
        for method in [
            "preset=reference",
            "pipeline=sequential-b",
            "preset=fast",
            "preset=reference,refit=5",
            "preset=reference,refit=5,descent=3",
            "preset=reference,drift=0.5",
            "preset=balanced",
        ] {
            recipes.push(complete(format!("{budget},{method}"))?);
        }
    }
    let mut seen = BTreeSet::new();
    recipes.retain(|recipe| seen.insert(recipe.to_string()));
    Ok(recipes)
}
