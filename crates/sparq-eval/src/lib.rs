//! Evaluates compressed models: perplexity, divergence from the base, tasks, and the share of task performance that is
//! kept.
//!
//! ```no_run
//! use sparq_eval::{Evaluation, Task, TextEvaluation, TextSettings};
//! use sparq_model::Model;
//! use std::path::Path;
//!
//! let base = Model::open("models/SmolLM2-135M")?;
//! let text = std::fs::read_to_string("wiki.test.raw")?;
//! let settings = TextSettings { length: 1024, ..TextSettings::default() };
//! let evaluation = Evaluation::new()
//!     .with_text(TextEvaluation::from_text(&base, &text, settings)?)
//!     .with_task(Task::load("piqa", Some(Path::new("data")))?.limit(200, 0));
//!
//! let baseline = evaluation.baseline(&base, &())?; // once
//! let compressed = Model::open("models/SmolLM2-135M-25-4bit")?;
//! let report = evaluation.evaluate(&compressed, Some(&baseline), &())?; // per configuration
//! println!("{}", serde_json::to_string_pretty(&report)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Should I use this crate?
//! Through the facade `sparq` if you compress models with it. Directly, to evaluate models that implement
//! [`LanguageModel`].
//!
//! # Contents
//! * [`TextEvaluation`]: perplexity over non-overlapping or strided windows, and in the same pass KL divergence and top-1
//!   agreement against a [`TextBaseline`].
//! * [`Task`] over a [`TaskDefinition`]: multiple choice by log-likelihood, partial scoring, minimal pairs, last words,
//!   generated answers. Built-in definitions by name ([`TaskDefinition::built_in`]), own ones as TOML.
//! * [`pool`]: the tasks of a group as one.
//! * With the feature `math`: `equivalent`, whether two answers of mathematics are the same, and tasks that need it.
//! * [`ResultCache`]: results of a model on disk, checked before they are used.
//! * [`Evaluation`]: text and tasks together, with the retention Sr, as an [`EvaluationReport`].
//!
//! All results are the same bits for any number of rayon threads and processes.
#![deny(unsafe_code)] // not `forbid`: the expansion of `ndarray::s!` contains an allow
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cache;
mod dealt;
mod error;
mod evaluation;
mod fingerprint;
mod language_model;
mod scoring;
mod task;
mod text;

#[cfg(test)]
mod testing;

pub use cache::ResultCache;
pub use error::{Error, Result};
pub use evaluation::{Baseline, Evaluation, EvaluationReport, identity, paired_scores};
pub use language_model::LanguageModel;
pub use scoring::{Continuation, ContinuationScore, continue_greedily, score_continuations};
#[cfg(feature = "math")]
pub use task::equivalent;
pub use task::{
    AnswerRule, ChoiceSource, Comparison, FieldNames, Item, ItemResult, Metric, PooledResult, Shots, Skipped, Task,
    TaskDefinition, TaskKind, TaskOptions, TaskResult, pool,
};
pub use text::{
    BaseComparison, TextBaseline, TextEvaluation, TextScores, TextSettings, Window, WindowComparison, WindowScores,
    mean_divergence,
};
