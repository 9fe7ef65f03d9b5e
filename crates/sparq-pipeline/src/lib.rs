//! Compresses a checkpoint block by block.
//!
//! A [`Recipe`] says what to do to every linear layer, a [`Calibration`] on which text. [`Compress`] walks the blocks once:
//! it runs the calibration tokens through a stage of linears that read the same input, sums up one Hessian for them,
//! compresses them, and goes on **with the compressed weights**, so that later layers are fitted to what their inputs will
//! really be. The pass that gathers statistics is the pass that propagates; one block is in memory at a time.
//!
//! [`Compress`] has the example. [`Compress::to`] survives interruptions: it solves into a [`SolutionSink`], which makes every
//! block safe as it is done, then exports.
//!
//! # Should I use this crate?
//! Through `sparq`, unless you drive the blocks yourself.
#![deny(unsafe_code)]

mod agreement;
mod calibration;
mod compress;
mod compressors;
mod damping_choice;
mod dense_stream;
mod driver;
mod error;
mod fingerprint;
mod gather;
mod matrix_io;
mod partial;
mod parts;
mod plan;
mod profile;
mod recipe;
mod report;
mod sharing;
mod sink;
mod spill;
mod stage;
mod stage_drift;
mod state;
mod stream;
mod survey;
mod targets;
mod tuning;
mod unmatched;

pub use agreement::on_first;
pub use calibration::{Calibration, Sampling};
pub use compress::{Compress, Done, planned_size, rate_for_size, unfit_layers, vocabulary_in};
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
pub use plan::Plan;
pub use profile::{Phase, PhaseProfile, Profile, resident_bytes};
pub use recipe::{Allocation, Key, LayerBudget, Preset, PrunerKind, QuantizerKind, Recipe, RecipeBuilder};
pub use report::{CompressionReport, LayerReport};
pub use sharing::Sharing;
pub use sink::{Activations, MemorySink, Progress, Resumed, Sink, SolutionSink};
pub use survey::Survey;
pub use targets::{Matcher, Targets};
pub use tuning::TuningReport;
