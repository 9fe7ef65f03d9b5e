//! Compresses a checkpoint block by block.
//!
//! A [`Recipe`] says what to do to every linear layer, a [`Calibration`] on which text, a [`Sink`] where the result
//! goes. [`compress`] walks the blocks once: it runs the calibration tokens through a stage of linears that read the
//! same input, sums up one Hessian for them, compresses them, and goes on **with the compressed weights**, so that
//! later layers are fitted to what their inputs will really be. The pass that gathers statistics is the pass that
//! propagates; one block is in memory at a time.
//!
//! ```no_run
//! use sparq_export::Dense;
//! use sparq_model::Model;
//! use sparq_pipeline::{Calibration, Job, Recipe};
//! let model = Model::open("models/SmolLM2-135M")?;
//! let recipe: Recipe = "s=0.25,q=4,group=64".parse()?;
//! let text = std::fs::read_to_string("calibration.txt")?;
//! let calibration = Calibration::from_text(model.tokenizer()?, &text, 32, 512, 0)?;
//! let done = Job::new(&model, &recipe, "out/smollm2-joint").calibration(Some(&calibration)).run(&Dense, &())?;
//! println!("{:.1} % of the weights are zero", 100.0 * done.compression.measured_sparsity);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Job`] does all of it and survives interruptions: it solves into a [`SolutionSink`], which makes every block safe as
//! it is done, then exports. [`compress`] with a [`MemorySink`] keeps the compressed model in memory instead.
//!
//! # Should I use this crate?
//! Through `sparq`, unless you drive the blocks yourself.
#![deny(unsafe_code)]

mod calibration;
mod compressors;
mod damping_choice;
mod dense_stream;
mod driver;
mod error;
mod fingerprint;
mod gather;
mod job;
mod matrix_io;
mod observer;
mod plan;
mod profile;
mod recipe;
mod report;
mod sink;
mod spill;
mod stage;
mod stage_drift;
mod state;
mod stream;
mod survey;
mod targets;

pub use calibration::Calibration;
pub use driver::{Compression, compress};
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
pub use job::{Done, Job, planned_size};
pub use observer::Observer;
pub use plan::Plan;
pub use profile::{Phase, PhaseProfile, Profile, resident_bytes};
pub use recipe::{Allocation, LayerBudget, PipelineKind, Preset, PrunerKind, QuantizerKind, Recipe};
pub use report::{CompressionReport, LayerReport};
pub use sink::{Activations, MemorySink, Progress, Resumed, Sink, SolutionSink};
pub use survey::Survey;
pub use targets::Targets;
