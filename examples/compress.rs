//! Compresses a checkpoint: prunes, quantizes, writes it in a format that engines load, and a report.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

mod common;

use anyhow::{Context, Result};
use clap::Parser;
use common::CompressionBar;
use common::arguments::{CalibrationArgs, JsonArgs, ModelArgs, SeedArgs, Source, ThreadArgs};
use common::format::{FormatArgs, print_report};
use common::search::{SearchArgs, SearchBar};
use common::solver::SolverArgs;
use sparq::Ranks;
use sparq::pipeline::{Allocation, Done, LayerBudget, Targets, unfit_layers};
use sparq::prelude::*;
use sparq::sweep::{Search, Searched, Target};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prune and quantize a model, layer by layer, and write it in a format that engines load.
///
/// Without --model, works on the embedded demo model. Work is kept in OUT.partial until everything is done: a run that
/// was interrupted, whatever by, goes on there when the same command is given again. Codes, scales and masks stay in
/// OUT/sparq (beside a GGUF file, in OUT.sparq): `export` makes other formats of them without solving again.
#[derive(Debug, Parser)]
#[command(name = "compress", version)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// Discard an unfinished run in OUT.partial
    #[arg(long)]
    restart: bool,
    /// Stop once N blocks are done; the same command goes on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    stop_after: Option<u32>,
    /// Treat fallbacks that may make the result worse as errors
    #[arg(long)]
    strict: bool,
    /// Do not keep codes, scales and masks with the output
    #[arg(long)]
    no_solution: bool,
    #[command(flatten)]
    solver: SolverArgs,
    /// Search sparsity and bits layer by layer for this theoretical compression rate (0.8125 is that of 25 % and 4 bits);
    /// what is measured is kept in OUT.search, the choice in OUT.search/allocation.json
    #[arg(long, value_name = "TCR", value_parser = common::parse_tcr, allow_negative_numbers = true,
        conflicts_with_all = ["sparsity", "bits"])]
    target_tcr: Option<f64>,
    /// Search bits layer by layer for weight files of at most this size, such as 300MB or 1.5GB: of a GGUF file all of it, of a
    /// directory *.safetensors. Weights are removed only if --sparsity says so, for no format stores zeros in less
    #[arg(long, value_name = "SIZE", value_parser = common::parse_bytes, allow_negative_numbers = true, conflicts_with_all = ["target_tcr", "bits"])]
    target_size: Option<u64>,
    #[command(flatten)]
    search: SearchArgs,
    /// Sparsity and bits layer by layer from a file, such as an earlier search left
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target_tcr", "target_size"])]
    allocation: Option<PathBuf>,
    /// Layers to compress, as a glob over module names such as '*.mlp.*'; may be repeated [default: every linear layer in the
    /// blocks]
    #[arg(long, value_name = "GLOB")]
    targets: Vec<String>,
    /// Layers to leave alone, as a glob; may be repeated
    #[arg(long, value_name = "GLOB")]
    ignore: Vec<String>,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    seed: SeedArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Memory that the program is predicted not to exceed, such as 8GB or 512MiB: calibration activations beyond it wait in a
    /// file in OUT.partial
    #[arg(long, value_name = "SIZE", value_parser = common::parse_bytes, allow_negative_numbers = true)]
    memory_budget: Option<u64>,
    #[command(flatten)]
    json: JsonArgs,
}

impl Arguments {
    /// Bytes that a file of coded weights may take.
    fn sized_codes(&self) -> Option<u64> {
        self.target_size.filter(|_| self.format.is_coded())
    }

    /// Whether layers have rates.
    fn has_rate(&self) -> bool {
        self.solver.rate().is_some() || self.sized_codes().is_some()
    }

    /// Whether sparsity and bits of layers are to be found.
    fn searches(&self) -> bool {
        (self.target_tcr.is_some() || self.target_size.is_some()) && !self.has_rate()
    }
}

/// Stands for a rate until it is known.
const ANY_RATE: f64 = 3.0;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run_shared(|ranks| compress(&arguments, &ranks))
}

fn compress(arguments: &Arguments, ranks: &Ranks) -> Result<u8> {
    arguments.threads.start()?;
    let out = arguments.format.destination("compressed")?;
    if !arguments.searches() && !arguments.has_rate() {
        arguments.search.check_unused("--target-tcr, --target-size or --bits-per-weight")?;
    }
    let formats = arguments.format.formats()?;
    let (model, demo) = arguments.model.open()?;
    for (link, file) in model.checkpoint().links()? {
        eprintln!("{} is a link to {}", link.display(), file.display());
    }
    let mut targets = Targets { ignore: arguments.ignore.clone(), ..Targets::default() };
    if !arguments.targets.is_empty() {
        targets.include.clone_from(&arguments.targets);
    }
    let mut recipe = arguments.solver.recipe(
        targets,
        arguments.sized_codes().map(|_| ANY_RATE),
        arguments.format.keeps_gguf_codes(),
    )?;
    let calibration = arguments.calibration.draw(&model, demo.as_ref(), &arguments.seed)?;
    if let Some(file) = &arguments.allocation {
        let allocation = Allocation::parse(&common::read_text(file)?);
        recipe.allocation = Some(allocation.with_context(|| format!("{}", file.display()))?);
    }
    let (recipe, format) =
        sparq::pipeline::on_first(ranks, || complete(arguments, &model, recipe, calibration.as_ref(), &formats, &out))?;
    let format = formats[format].as_ref();
    let calibration = calibration.as_ref().map(|(_, calibration)| calibration);
    let held = sparq::pipeline::resident_bytes().unwrap_or(0);
    let bar = CompressionBar::new(common::stop_on_signals()?);
    let job = Compress::new(&model)
        .recipe(recipe.clone())
        .calibration(calibration)
        .observer(common::observer(ranks, &bar))
        .ranks(ranks.clone())
        .export(arguments.format.settings())
        .restart(arguments.restart)
        .strict(arguments.strict)
        .keep_solution(!arguments.no_solution)
        .memory_budget(arguments.memory_budget.map(|budget| budget.saturating_sub(held)))
        .stop_after(arguments.stop_after.map(|blocks| blocks as usize));
    if !ranks.is_alone()
        && let Some(sharing) = job.plan()?.sharing
    {
        // All at once: processes on one machine slow each other.
        ranks.barrier()?;
        let rate = common::product_rate();
        common::observer(ranks, &bar).note(&format!(
            "about {:.0} s of products and factors in each process at {:.0} GFLOP/s as measured here, and {:.0} s for what it \
             exchanges at 1 Gbit/s",
            (sharing.token_operations + sharing.solve_operations) / rate,
            rate / 1e9,
            sharing.exchanged_bytes as f64 / 125e6,
        ));
    }
    let done = match job.to(&out, format) {
        Err(sparq::pipeline::Error::Stopped { done, of }) => {
            bar.clear();
            if ranks.is_first() {
                let partial = Compress::partial(&out);
                eprintln!(
                    "stopped; {done} of {of} blocks are safe in {}; the same command goes on from there",
                    partial.display()
                );
            }
            return Ok(if arguments.stop_after.is_some_and(|_| !bar.is_stopped()) { 0 } else { common::INTERRUPTED });
        }
        Err(error @ sparq::pipeline::Error::MemoryBudget { .. }) => {
            let reason = format!("of the memory allowed the program itself holds {}", common::bytes(held));
            return Err(anyhow::Error::new(error).context(reason));
        }
        result => result?,
    };
    if ranks.is_first() {
        arguments.json.report(&done.compression, || summarise(&recipe, &done))?;
    }
    Ok(0)
}

/// The recipe with what a search finds, and the index of the format.
fn complete(
    arguments: &Arguments,
    model: &Model,
    mut recipe: Recipe,
    calibration: Option<&(Source, Calibration)>,
    formats: &[Box<dyn ExportFormat>],
    out: &Path,
) -> Result<(Recipe, usize)> {
    let mut format = 0;
    if arguments.searches() {
        let (source, calibration) = calibration.context("a search needs text: give --calibration FILE")?;
        let found = search(arguments, model, &recipe, (source, calibration), formats, out)?;
        (recipe.allocation, format) = (Some(found.allocation), found.format);
    }
    if let (true, None, Some((source, _))) = (arguments.has_rate(), &recipe.allocation, calibration) {
        // A coded file holds embedding and output matrix at a rate as well.
        let embeddings = arguments.format.is_coded() && recipe.embeddings.is_none();
        if embeddings {
            recipe.embeddings = Some(ANY_RATE);
        }
        let rate = match arguments.sized_codes() {
            Some(bytes) => sparq::pipeline::rate_for_size(model, &recipe, bytes, &arguments.format.settings())?,
            None => arguments.solver.rate().unwrap_or(ANY_RATE),
        };
        let directory = beside(out, ".search");
        let bar = SearchBar::new();
        let found = arguments.search.rates(&recipe, model, source, (rate, embeddings), &directory, &bar)?;
        common::write_json(&directory.join("allocation.json"), &found.allocation)?;
        recipe.embeddings = found.embeddings.or(recipe.embeddings);
        recipe.allocation = Some(found.allocation);
    }
    Ok((recipe, format))
}

/// Searches sparsity and bits layer by layer. What is measured stays in `OUT.search`.
fn search(
    arguments: &Arguments,
    model: &Model,
    recipe: &Recipe,
    (source, calibration): (&Source, &Calibration),
    formats: &[Box<dyn ExportFormat>],
    out: &Path,
) -> Result<Searched> {
    let directory = beside(out, ".search");
    let settings = arguments.format.settings();
    let mut widths = arguments.search.widths(arguments.format.widths())?;
    let sparsity = if arguments.solver.prunes() { recipe.sparsity } else { Sparsity::DENSE };
    let of_width = |&bits: &Bits| LayerBudget { sparsity, bits: Some(bits), rate: None };
    let formats: Vec<&dyn ExportFormat> = formats.iter().map(AsRef::as_ref).collect();
    // The search may choose any width, so one that cannot be written is refused before it starts. A search for a size knows where
    // only some layers cannot have it.
    let may_differ = arguments.target_size.is_some() || !arguments.search.names_widths();
    let mut everywhere = Vec::new();
    for &bits in &widths {
        let recipe = recipe.with_budget(of_width(&bits));
        if may_differ && !unfit_layers(model, &recipe, formats[0])?.is_empty() {
            continue;
        }
        Compress::new(model).recipe(recipe).calibration(calibration).export(settings).check(out, formats[0])?;
        everywhere.push(bits);
    }
    if arguments.target_size.is_none() {
        widths = everywhere;
    }
    let candidates: Vec<LayerBudget> = widths.iter().map(of_width).collect();
    let search = Search::new(recipe.clone());
    let (search, target) = match (arguments.target_size, arguments.target_tcr) {
        (Some(bytes), _) => {
            (search.candidates(candidates), Target::File { bytes, formats: &formats, settings: &settings })
        }
        (None, rate) => (search.widths(&widths), Target::Tcr(rate.unwrap_or_default())),
    };
    let bar = SearchBar::new();
    let found = arguments.search.allocate(search, model, source, calibration, &[target], &directory, &bar)?;
    let found = found.into_iter().next().context("a search found nothing")?;
    common::write_json(&directory.join("allocation.json"), &found.allocation)?;
    Ok(found)
}

/// A path with this after its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn summarise(recipe: &Recipe, done: &Done) {
    let (report, export) = (&done.compression, &done.export);
    println!("{recipe} on {} layers in {:.1} s", report.layers.len(), report.seconds);
    println!("requested   TCr {:.2} %", 100.0 * report.requested_tcr);
    if report.layers.is_empty() {
        println!("measured    nothing was pruned or quantized");
    } else {
        println!(
            "measured    {:.2} % exact zeros, {:.3} bits per weight with codes of fixed width, {:.3} entropy-coded",
            100.0 * report.measured_sparsity,
            report.bits_per_weight,
            report.coded_bits_per_weight
        );
        println!(
            "            MCr {:.2} % by coded bits, {:.3} bits for each parameter of the whole model",
            100.0 * (1.0 - report.coded_bits_per_weight / 16.0),
            report.model_bits_per_weight()
        );
    }
    if let Some((tuning, (before, after))) =
        report.tuning.and_then(|tuning| Some((tuning, tuning.before.zip(tuning.after)?)))
    {
        println!(
            "tuned       divergence {before:.4} before, {after:.4} after {} steps, in nats on {} tokens that judge",
            tuning.steps, tuning.judging_tokens
        );
    }
    print_report(export);
    let mut counts = std::collections::BTreeMap::new();
    for fallback in report.layers.iter().flat_map(|layer| &layer.fallbacks) {
        *counts
            .entry(serde_json::to_value(fallback).map_or(String::new(), |value| value["kind"].to_string()))
            .or_insert(0) += 1;
    }
    for (kind, layers) in counts {
        println!("fallback    {} in {layers} layers; see --json", kind.trim_matches('"').replace('_', " "));
    }
    println!("{}", report.profile);
}
