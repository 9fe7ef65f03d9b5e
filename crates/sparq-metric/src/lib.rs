//! How much ability a compressed model keeps for each bit saved: TCr, Sr, SrCr, and the statistics of their
//! differences.
//!
//! ```
//! use sparq_metric::{Bootstrap, SrcrForm, TaskScores, retention, tcr};
//!
//! // Ten items of a task with four choices: the base gets nine right, the compressed model eight.
//! let base = vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0];
//! let compressed = vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0];
//! let task = TaskScores::new("knowledge", base, compressed, vec![0.25; 10])?;
//! let kept = retention(&[task], &Bootstrap::default())?;
//! assert!((kept.sr - (0.8 - 0.25) / (0.9 - 0.25)).abs() < 1e-12);
//! assert!(kept.interval.low <= kept.sr && kept.sr <= kept.interval.high);
//!
//! // 25 % of the weights pruned, the rest in 4 bits.
//! assert_eq!(tcr(0.25, 4.0)?, 0.8125);
//! assert_eq!(SrcrForm::SqrtLog.score(1.0, 0.25, 4.0)?, 0.75);
//! # Ok::<(), sparq_metric::Error>(())
//! ```
//!
//! # Should I use this crate?
//! To measure a model, use `sparq-eval` or the facade `sparq`, which call this crate. It is pure arithmetic: useful alone
//! for scores that come from another evaluation.
//!
//! # What is the paper's and what is ours
//! The paper is "Semantic Retention and Extreme Compression in LLMs: Can We Have Both?" (Laborde, Cousseau, Yaacoub,
//! Prevost; IJCNN 2025; arXiv 2505.07289).
//! * [`tcr`] is the paper's.
//! * The idea of Sr (the share of the base model's task performance that is kept) is the paper's; the definition in
//!   [`retention`], with its correction for chance, its rule of exclusion and its intervals, is OURS.
//! * That SrCr joins Sr with a square root of the pruning ratio and a logarithm of the bit width is the paper's; the
//!   equation in [`SrcrForm::SqrtLog`] is OURS, because the paper's exact equation was not available to us.
//!   [`SrcrForm::Tcr`] is OURS too.
//!
//! # Contents
//! * [`tcr`], [`SrcrForm`]: what a configuration is worth in theory.
//! * [`TaskScores`], [`retention`], [`retention_difference`]: Sr with intervals, and the difference of two
//!   configurations.
//! * [`Bootstrap`], [`Interval`], [`mean`], [`standard_error`], [`ratio_interval`], [`mcnemar`], [`holm`]:
//!   statistics.
//! * [`pareto_front`]: which configurations no other one beats in both size and quality.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bootstrap;
mod error;
mod pareto;
mod retention;
mod srcr;
mod statistics;
mod task_scores;
mod tcr;

pub use bootstrap::{Bootstrap, Interval, ratio_interval};
pub use error::{Error, Result};
pub use pareto::pareto_front;
pub use retention::{
    ExcludedTask, Retention, RetentionDifference, TaskDifference, TaskRetention, retention, retention_difference,
};
pub use srcr::SrcrForm;
pub use statistics::{McNemar, holm, mcnemar, mean, standard_error};
pub use task_scores::TaskScores;
pub use tcr::tcr;
