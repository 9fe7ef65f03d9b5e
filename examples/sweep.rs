//! Compares compression configurations of a model and reports which one keeps most at each compression rate.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::{Context, Result, bail};
use clap::Parser;
use common::arguments::{CalibrationArgs, JsonArgs, ModelArgs, SeedArgs, ThreadArgs};
use common::judging::JudgingArgs;
use common::search::SearchArgs;
use indicatif::ProgressBar;
use sparq::Ranks;
use sparq::eval::Evaluation;
use sparq::prelude::*;
use sparq::report::{table, write_reports};
use sparq::sweep::{Labels, Search, Sweep, SweepResults, Target, default_recipes};
use std::fmt::Display;
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
    #[command(flatten)]
    model: ModelArgs,
    /// Directory for results; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "sweep-report")]
    out: PathBuf,
    /// A configuration such as "s=0.25,q=4,pipeline=joint"; may be repeated
    #[arg(long, value_name = "RECIPE")]
    config: Vec<String>,
    /// Every combination of sparsities and bits, such as "s=0,0.25,2:4;q=3,4,8"
    #[arg(long, value_name = "GRID")]
    grid: Option<String>,
    /// Settings of every configuration, such as "group=64,clip=mse"; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    set: Vec<String>,
    /// Add a configuration whose sparsity and bits are searched layer by layer, at this theoretical compression rate
    /// (0.75, 0.8125, ...); may be repeated
    #[arg(long, value_name = "TCR", value_parser = common::parse_tcr, allow_negative_numbers = true)]
    target_tcr: Vec<f64>,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    judging: JudgingArgs,
    #[command(flatten)]
    seed: SeedArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// A short run on the demo model: two configurations, 40 items of each task
    #[arg(long)]
    quick: bool,
    /// Take measurements in --out that another commit of this program made; they are refused otherwise
    #[arg(long)]
    any_commit: bool,
    #[command(flatten)]
    json: JsonArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run_shared(|ranks| sweep(&arguments, &ranks).map(|()| 0))
}

fn sweep(arguments: &Arguments, ranks: &Ranks) -> Result<()> {
    arguments.threads.start()?;
    let (mut model, demo) = arguments.model.open()?;
    if ranks.is_first() {
        common::arguments::print_remarks(&model);
    }
    let demo = demo.as_ref();
    let seed = arguments.seed.seed;
    let drawn = arguments.calibration.draw(&model, demo, &arguments.seed)?;
    let (source, calibration) = drawn.context("--calibration FILE is needed for a model of your own")?;

    let mut judging = arguments.judging.clone();
    if arguments.quick {
        judging.limit = judging.limit.or(Some(40));
        judging.text_tokens = judging.text_tokens.or(Some(4096));
    }
    let evaluation = judging.add_to(Evaluation::new(), &model, demo, seed)?;
    let text_file = judging.text_file(demo);
    let prompts = match &text_file {
        Some(file) => prompts_from(&common::read_text(file)?),
        None => Vec::new(),
    };

    if arguments.target_tcr.is_empty() {
        arguments.search.check_unused("--target-tcr")?;
    }
    let bar = Bar::new();
    let observer = common::observer(ranks, &bar);
    let mut recipes = recipes(arguments)?;
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot create {}", arguments.out.display()))?;
    if !arguments.target_tcr.is_empty() {
        let recipe: Recipe = format!("s=0.25,q=4,{}", arguments.set.join(",")).parse()?;
        model.make_resident()?; // once for the search and the sweep
        let search = Search::new(recipe.clone()).widths(&arguments.search.widths(&[3, 4, 8])?);
        let targets: Vec<Target<'_>> = arguments.target_tcr.iter().copied().map(Target::Tcr).collect();
        let (targets, source) = (&targets, &source);
        recipes.extend(sparq::pipeline::on_first(ranks, || {
            let (searches, out) = (&arguments.search, &arguments.out);
            let found = searches.allocate(search, &model, source, &calibration, targets, out, &bar)?;
            anyhow::Ok(found.iter().map(|found| found.recipe(&recipe)).collect::<Vec<_>>())
        })?);
    }
    let sweep = Sweep {
        recipes,
        calibration,
        evaluation,
        prompts,
        sample_tokens: 24,
        bootstrap: sparq::metric::Bootstrap { seed, ..Default::default() },
        jobs: arguments.search.jobs,
        cache: judging.cache.clone(),
        commit: common::commit(),
        any_commit: arguments.any_commit,
        labels: Labels {
            model: arguments.model.name(),
            calibration: common::name_of(&source.file),
            text: text_file.as_deref().map(common::name_of).unwrap_or_default(),
            limit: judging.limit,
            command: Some(common::command("sweep")),
            threads: rayon::current_num_threads(),
        },
        ranks: ranks.clone(),
    };
    let results = sweep.run(&model, &arguments.out, observer)?;
    if !ranks.is_first() {
        return Ok(());
    }
    write_reports(&results, &arguments.out)?;
    arguments.json.report(&results, || summarise(&results))?;
    if !arguments.json.is_printed() {
        println!("Report: {}", arguments.out.join("report.html").display());
    }
    Ok(())
}

fn summarise(results: &SweepResults) {
    println!("{}", table(results));
    for verdict in &results.verdicts {
        println!("{}", verdict.sentence);
    }
    println!("{}", results.comparisons);
    if let Some(best) = results.best_srcr.and_then(|best| results.configurations.get(best)) {
        println!("Largest SrCr: {} ({}), {:.3}.", best.recipe, best.family, best.srcr.unwrap_or_default());
    }
}

fn recipes(arguments: &Arguments) -> Result<Vec<Recipe>> {
    let common = arguments.set.join(",");
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
    if recipes.is_empty() && arguments.target_tcr.is_empty() {
        recipes = if arguments.quick {
            vec![complete("s=0,q=3")?, complete("s=0.25,q=4")?]
        } else {
            default_recipes(&common)?
        };
    }
    Ok(recipes)
}

/// The beginnings of ten paragraphs, spread over the text, that base and compressed models continue.
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

/// Progress of the whole sweep: one step for each configuration.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        Self(common::progress_bar(0, "sweep"))
    }
}

impl Observer for Bar {
    fn step(&self, index: usize, total: usize, what: &dyn Display) {
        self.0.set_length(total as u64 + 1);
        self.0.set_position(self.0.position().max(index as u64));
        self.0.set_message(what.to_string());
        if self.0.is_hidden() {
            eprintln!("[{index}/{total}] {what}");
        }
    }

    fn note(&self, what: &dyn Display) {
        common::note(&self.0, what);
    }

    fn progress(&self, done: usize, total: usize, what: &dyn Display) {
        self.0.set_message(format!("{done}/{total} {what}"));
    }
}
