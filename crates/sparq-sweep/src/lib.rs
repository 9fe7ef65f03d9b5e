//! Compares compression configurations of one model in a resumable sweep, and searches for sparsity and bits layer by layer.
//!
//! ```no_run
//! use sparq_eval::{Evaluation, TextEvaluation, TextSettings};
//! use sparq_model::Model;
//! use sparq_pipeline::{Calibration, Sampling};
//! use sparq_sweep::{Sweep, default_recipes};
//!
//! let model = Model::open("models/SmolLM2-135M")?;
//! let calibration = std::fs::read_to_string("c4.txt")?;
//! let held_out = std::fs::read_to_string("wiki.test.raw")?;
//! let calibration = Calibration::from_text(model.tokenizer()?, &calibration, Sampling::default())?;
//! let judge = Evaluation::new().with_text(TextEvaluation::from_text(&model, &held_out, TextSettings::default())?);
//! let sweep = Sweep::new(default_recipes("group=64")?, calibration, judge);
//! let results = sweep.run(&model, "sweep-report".as_ref(), &())?;
//! for verdict in &results.verdicts {
//!     println!("{}", verdict.sentence);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Should I use this crate?
//! Through `sparq`; the `sweep` example is its command line. `sparq-report` makes a page and tables of the results.
#![deny(unsafe_code)]

mod differences;
mod error;
mod names;
mod parallel;
mod results;
mod search;
mod store;
mod sweep;
mod verdict;

pub use error::{Error, Result};
pub use names::name_in_block;
pub use results::{
    BaseResult, ConfigurationResult, Difference, Equal, Family, MachineFacts, ModelFacts, PairedDifference, Sample,
    SettingsFacts, SweepResults, TaskAccuracy, TaskFacts, TaskTest, Verdict,
};
pub use search::{Contestant, DamageCurves, Origin, Rates, Remaining, Search, Searched, Target, Unit};
pub use sweep::{Labels, Sweep, default_recipes};
