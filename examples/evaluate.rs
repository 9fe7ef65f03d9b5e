//! Evaluates a model, alone or against its base.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

mod common;

use anyhow::Result;
use clap::Parser;
use common::arguments::{ForwardArgs, JsonArgs, ModelArgs, SeedArgs, ThreadArgs};
use common::judging::JudgingArgs;
use indicatif::ProgressBar;
use sparq::Ranks;
use sparq::eval::{Evaluation, EvaluationReport, ResultCache, pool};
use sparq::metric::Bootstrap;
use sparq::prelude::*;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Perplexity, tasks, and, given a base, KL divergence and retention.
///
/// Without --model, evaluates the embedded demo model.
#[derive(Debug, Parser)]
#[command(name = "evaluate", version)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// The uncompressed model to compare with
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    #[command(flatten)]
    judging: JudgingArgs,
    #[command(flatten)]
    seed: SeedArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    forward: ForwardArgs,
    #[command(flatten)]
    json: JsonArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run_shared(|ranks| evaluate(&arguments, ranks).map(|()| 0))
}

fn evaluate(arguments: &Arguments, ranks: Ranks) -> Result<()> {
    arguments.threads.start()?;
    let (model, demo) = arguments.model.open()?;
    if ranks.is_first() {
        common::arguments::print_remarks(&model);
    }
    let seed = arguments.seed.seed;
    let evaluation = Evaluation::new().with_bootstrap(Bootstrap { seed, ..Bootstrap::default() });
    let evaluation = arguments.judging.add_to(evaluation, &model, demo.as_ref(), seed)?.with_ranks(ranks.clone());
    let bar = Bar::new();
    let observer = common::observer(&ranks, &bar);
    let cache = arguments.judging.cache.as_deref().map(ResultCache::open).transpose()?;
    // The base comes first, and only its output layer stays in memory: one model is in memory at a time.
    let baseline = match &arguments.base {
        Some(path) => {
            let mut base = Model::open(common::hub::resolve(path)?)?;
            base.run_as_stored()?;
            let base = base.with_precision(arguments.forward.forward);
            Some(match &cache {
                Some(cache) => {
                    evaluation.baseline_cached(&base, &base.checkpoint().content_hash()?, cache, observer)?
                }
                None => evaluation.baseline(&base, observer)?,
            })
        }
        None => None,
    };
    let mut model = model.with_precision(arguments.forward.forward);
    model.run_as_stored()?;
    let report = match &cache {
        Some(cache) => {
            let content_hash = model.checkpoint().content_hash()?;
            evaluation.evaluate_cached(&model, &content_hash, cache, baseline.as_ref(), observer)?
        }
        None => evaluation.evaluate(&model, baseline.as_ref(), observer)?,
    };
    bar.bar.finish_and_clear();
    if ranks.is_first() {
        arguments.json.report(&report, || print(&report))?;
    }
    Ok(())
}

fn print(report: &EvaluationReport) {
    if let Some(text) = &report.text {
        println!("perplexity   {:.4}  ({} tokens, {:.4} nats a token)", text.perplexity, text.tokens, text.mean_nll);
        if let Some(base) = &text.base {
            println!("base         {:.4}  (ratio {:.4})", base.base_perplexity, base.perplexity_ratio);
            let interval = text.kl_interval(&Bootstrap::default()).ok().flatten();
            let interval = interval.map_or_else(String::new, |of| format!(" [{:.5}, {:.5}]", of.low, of.high));
            println!(
                "KL           {:.5}{interval} nats a token, top-1 agreement {:.2} %",
                base.mean_kl,
                100.0 * base.top1_agreement
            );
        }
    }
    let line = |name: &str, accuracy: f64, error: Option<f64>, items: usize, chance: f64| {
        let error = error.map_or_else(String::new, |error| format!(" ± {:.2}", 100.0 * error));
        println!("{name:<12} {:.2}{error} %  ({items} items, chance {:.1} %)", 100.0 * accuracy, 100.0 * chance);
    };
    for task in &report.tasks {
        line(&task.name, task.accuracy, task.standard_error, task.items.len(), task.chance);
        for skipped in &task.skipped {
            println!("             left out: {} ({})", skipped.id, skipped.reason);
        }
    }
    for group in pool(&report.tasks).iter().filter(|group| group.members.len() > 1) {
        line(&group.name, group.accuracy, group.standard_error, group.scores.len(), group.chance);
    }
    if let Some(kept) = &report.retention {
        println!("Sr           {:.4}  [{:.4}, {:.4}]", kept.sr, kept.interval.low, kept.interval.high);
        for excluded in &kept.excluded {
            println!("left out of Sr: {excluded}");
        }
    }
}

/// Progress on a bar; without a terminal, a line whenever a part is finished, with the seconds it took.
struct Bar {
    bar: ProgressBar,
    started: Mutex<Instant>,
}

impl Bar {
    fn new() -> Self {
        Self { bar: common::progress_bar(0, "evaluate"), started: Mutex::new(Instant::now()) }
    }
}

impl sparq::Observer for Bar {
    fn progress(&self, done: usize, total: usize, what: &dyn std::fmt::Display) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(what.to_string());
        if done == total && self.bar.is_hidden() {
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("{what}: {total} in {:.1} s", started.elapsed().as_secs_f64());
            *started = Instant::now();
        }
    }
}
