//! The main job: compares compression configurations of a model and says which keeps most at each compression rate.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::{Context, Result, bail};
use clap::Parser;
use common::demo;
use common::search::SearchArgs;
use common::tasks::TaskArgs;
use indicatif::ProgressBar;
use sparq::eval::{Evaluation, TextEvaluation, TextSettings};
use sparq::pipeline::{LayerReport, Plan, Recipe};
use sparq::prelude::*;
use sparq::report::{table, write_reports};
use sparq::sweep::{ConfigurationResult, Labels, Sweep, Target, default_recipes};
use std::path::PathBuf;
use std::process::ExitCode;

/// Compare compression configurations of a model: perplexity, KL, tasks, Sr, SrCr.
///
/// Writes results.json, results.csv and report.html into --out. A configuration that is there already, measured with
/// the same model, settings and data, is not measured again, so a stopped sweep continues.
/// Without --model, works on the embedded demo model.
#[derive(Debug, Parser)]
#[command(name = "sweep", version)]
struct Arguments {
    /// Hugging Face directory, .safetensors file or .gguf file [default: the demo model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Directory for results; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "sweep-report")]
    out: PathBuf,
    /// A configuration such as "s=0.25,q=4,pattern=unstructured,pipeline=joint"; may be repeated
    #[arg(long, value_name = "RECIPE")]
    config: Vec<String>,
    /// Every combination of sparsities and bits, such as "s=0,0.25,2:4;q=3,4,8"
    #[arg(long, value_name = "GRID")]
    grid: Option<String>,
    /// Settings appended to every configuration, such as "group=64,clip=mse"
    #[arg(long, value_name = "RECIPE")]
    common: Option<String>,
    /// Add a configuration whose sparsity and bits are searched layer by layer, at this theoretical compression rate
    /// (0.75, 0.8125, ...); may be repeated
    #[arg(long, value_name = "TCR")]
    search: Vec<f64>,
    #[command(flatten)]
    searched_on: SearchArgs,
    /// Text to calibrate on
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Calibration sequences
    #[arg(long, default_value_t = 64)]
    samples: usize,
    /// Tokens in a calibration sequence [default: 512; for the demo model 128]
    #[arg(long)]
    seq_len: Option<usize>,
    /// Held-out text for perplexity and KL
    #[arg(long, value_name = "FILE")]
    perplexity: Option<PathBuf>,
    /// Tokens in a perplexity window [default: 512; for the demo model 128]
    #[arg(long)]
    window: Option<usize>,
    /// Use this many tokens of the held-out text
    #[arg(long)]
    text_tokens: Option<usize>,
    #[command(flatten)]
    judged_by: TaskArgs,
    /// Keep results of the base here, to be shared with other sweeps [default: in --out]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Seed of calibration sampling, task subsets and bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; 0 uses every core. The numbers do not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Configurations measured at a time, each with its own memory: pays on many cores or a small model
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// A short run on the demo model: two configurations, 40 items of each task
    #[arg(long)]
    quick: bool,
    /// Print results.json instead of the table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| sweep(&arguments))
}

fn sweep(arguments: &Arguments) -> Result<()> {
    common::set_threads(arguments.threads)?;
    let (mut model, demo) = demo::model_or_demo(arguments.model.as_deref())?;
    let is_demo = demo.is_some();
    let file_of_demo = |name: &str| demo.as_ref().map(|demo| demo.file(name));
    let length = |given: Option<usize>| given.unwrap_or(if is_demo { 128 } else { 512 });

    let Some(calibration_file) = arguments.calibration.clone().or(file_of_demo("calibration.txt")) else {
        bail!("--calibration FILE is needed for a model of your own");
    };
    let calibration = Calibration::from_text(
        model.tokenizer()?,
        &common::read_text(&calibration_file)?,
        arguments.samples,
        length(arguments.seq_len),
        arguments.seed,
    )
    .with_context(|| format!("calibration text {}", calibration_file.display()))?;

    let text_file = arguments.perplexity.clone().or(file_of_demo("heldout.txt"));
    let mut judged_by = arguments.judged_by.clone();
    judged_by.limit = judged_by.limit.or(arguments.quick.then_some(40));
    let mut evaluation = Evaluation::new();
    let mut prompts = Vec::new();
    if let Some(file) = &text_file {
        let text = common::read_text(file)?;
        prompts = prompts_from(&text);
        let settings = TextSettings {
            length: length(arguments.window),
            token_limit: arguments.text_tokens.or(arguments.quick.then_some(4096)),
            ..TextSettings::default()
        };
        evaluation = evaluation.with_text(
            TextEvaluation::from_text(&model, &text, settings)
                .with_context(|| format!("held-out text {}", file.display()))?,
        );
    }
    let of_demo = demo.as_ref().map(demo::Demo::tasks).unwrap_or_default();
    evaluation = judged_by.add_to(evaluation, of_demo, arguments.seed)?;
    if text_file.is_none() && evaluation.tasks().is_empty() {
        bail!("nothing to judge by: give --perplexity FILE or --tasks");
    }

    if arguments.search.is_empty() {
        arguments.searched_on.check_unused("--search")?;
    }
    let bar = Bar::new();
    let mut recipes = recipes(arguments)?;
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot create {}", arguments.out.display()))?;
    if !arguments.search.is_empty() {
        let recipe: Recipe = format!("s=0.25,q=4,{}", arguments.common.as_deref().unwrap_or_default()).parse()?;
        model.make_resident()?; // once for the search and the sweep
        let drawn_from = (calibration_file.as_path(), arguments.seed, length(arguments.seq_len));
        let searched_on = &arguments.searched_on;
        let search = searched_on.search(&recipe).widths(&searched_on.widths(&[3, 4, 8])?);
        let targets: Vec<Target<'_>> = arguments.search.iter().copied().map(Target::Tcr).collect();
        let found = searched_on.allocate(search, &model, drawn_from, &calibration, &targets, &arguments.out, &bar)?;
        recipes.extend(found.iter().map(|found| found.recipe(&recipe)));
    }
    let sweep = Sweep {
        recipes,
        calibration,
        evaluation,
        prompts,
        sample_tokens: 24,
        bootstrap: sparq::metric::Bootstrap { seed: arguments.seed, ..Default::default() },
        jobs: arguments.jobs,
        cache: arguments.cache.clone(),
        labels: Labels {
            model: demo::name_or_demo(arguments.model.as_deref()),
            calibration: common::name_of(&calibration_file),
            text: text_file.as_deref().map(common::name_of).unwrap_or_default(),
            limit: judged_by.limit,
            command: Some(common::command("sweep")),
            threads: rayon::current_num_threads(),
        },
    };
    let results = sweep.run(&model, &arguments.out, &bar)?;
    write_reports(&results, &arguments.out)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
        return Ok(());
    }
    println!("{}", table(&results));
    for verdict in &results.verdicts {
        println!("{}", verdict.sentence);
    }
    println!("{}", results.comparisons);
    if let Some(best) = results.best_srcr.and_then(|best| results.configurations.get(best)) {
        println!("Largest SrCr: {} ({}), {:.3}.", best.recipe, best.family, best.srcr.unwrap_or_default());
    }
    println!("Report: {}", arguments.out.join("report.html").display());
    Ok(())
}

fn recipes(arguments: &Arguments) -> Result<Vec<Recipe>> {
    let common = arguments.common.as_deref().unwrap_or_default();
    let complete = |recipe: &str| -> Result<Recipe> { Ok(format!("{recipe},{common}").parse()?) };
    let mut recipes = Vec::new();
    for recipe in &arguments.config {
        recipes.push(complete(recipe)?);
    }
    if let Some(grid) = &arguments.grid {
        let mut axes = (vec!["0"], vec!["4"]);
        for axis in grid.split(';') {
            match axis.trim().split_once('=') {
                Some(("s", values)) => axes.0 = values.split(',').map(str::trim).collect(),
                Some(("q", values)) => axes.1 = values.split(',').map(str::trim).collect(),
                _ => bail!("--grid {grid:?}: {axis:?} is neither s=... nor q=..."),
            }
        }
        for sparsity in &axes.0 {
            for bits in &axes.1 {
                if *bits != "16" || sparsity.parse() != Ok(0.0) {
                    recipes.push(complete(&format!("s={sparsity},q={bits}"))?);
                }
            }
        }
    }
    if let Some(grid) = arguments.grid.as_deref().filter(|_| recipes.is_empty()) {
        bail!("--grid {grid:?} holds nothing that prunes or quantizes");
    }
    if recipes.is_empty() && arguments.search.is_empty() {
        recipes = if arguments.quick {
            vec![complete("s=0,q=3")?, complete("s=0.25,q=4")?]
        } else {
            default_recipes(common)?
        };
    }
    Ok(recipes)
}

/// The beginnings of ten paragraphs all over the text, for base and compressed models to continue.
fn prompts_from(text: &str) -> Vec<String> {
    const PROMPTS: usize = 10;
    let words = |line: &str| line.split_whitespace().count();
    let paragraphs = |least: usize| -> Vec<&str> {
        text.lines().filter(|line| words(line) >= least && !line.trim_start().starts_with('=')).collect()
    };
    let mut long = paragraphs(24);
    if long.len() < PROMPTS {
        long = paragraphs(8);
    }
    let opening = |line: &&str| line.split_whitespace().take((words(line) / 2).min(12)).collect::<Vec<_>>().join(" ");
    long.iter().step_by((long.len() / PROMPTS).max(1)).take(PROMPTS).map(opening).collect()
}

/// Progress of the whole sweep: one step per layer and evaluation.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        Self(common::progress_bar(0, "sweep"))
    }
}

/// Steps of the bar for one configuration: its compression and its evaluation count alike.
const STEPS: u64 = 1000;

impl sparq::sweep::Observer for Bar {
    fn step(&self, index: usize, total: usize, what: &str) {
        self.0.set_length((total as u64 + 1) * STEPS);
        self.0.set_position(self.0.position().max(index as u64 * STEPS));
        self.0.set_message(what.to_owned());
        if self.0.is_hidden() {
            eprintln!("[{index}/{total}] {what}");
        }
    }

    fn configuration(&self, result: &ConfigurationResult) {
        let sr = result.retention.as_ref().map_or_else(|| "no Sr".to_owned(), |kept| format!("Sr {:.3}", kept.sr));
        let again = if result.reused { " (measured before)" } else { "" };
        let line = format!("{}: perplexity {:.2}, KL {:.4}, {sr}{again}", result.recipe, result.perplexity, result.kl);
        if self.0.is_hidden() {
            eprintln!("{line}");
        } else {
            self.0.println(line);
        }
    }
}

impl sparq::pipeline::Observer for Bar {
    fn planned(&self, _: &Plan) {}

    fn layer(&self, report: &LayerReport) {
        self.0.set_message(report.name.clone());
    }

    fn block(&self, done: usize, total: usize) {
        let start = self.0.position() / STEPS * STEPS;
        self.0.set_position(start + STEPS / 2 * done as u64 / total.max(1) as u64);
    }
}

impl sparq::eval::Observer for Bar {
    fn progress(&self, done: usize, total: usize, what: &str) {
        self.0.set_message(format!("{what} {done}/{total}"));
    }
}
