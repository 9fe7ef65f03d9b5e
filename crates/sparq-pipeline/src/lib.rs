//! Compresses a checkpoint block by block.
//!
//! A [`Recipe`] says what to do to every linear layer, a [`Calibration`] on which text, a [`Sink`] where the result
//! goes. [`compress`] walks the blocks once: it runs the calibration tokens through a stage of linears that read the
//! same input, sums up one Hessian for them, compresses them, and goes on **with the compressed weights**, so that
//! later layers are fitted to what their inputs will really be. The pass that gathers statistics is the pass that
//! propagates; one block is in memory at a time.
//!
//! ```no_run
//! use sparq_model::Model;
//! use sparq_pipeline::{Calibration, CheckpointSink, Recipe, WriteSettings, compress};
//! let model = Model::open("models/SmolLM2-135M")?;
//! let recipe: Recipe = "s=0.25,q=4,group=64".parse()?;
//! let text = std::fs::read_to_string("calibration.txt")?;
//! let calibration = Calibration::from_text(model.tokenizer()?, &text, 32, 512, 0)?;
//! let mut sink = CheckpointSink::create(&model, "out/smollm2-joint", WriteSettings::default())?;
//! let report = compress(&model, &recipe, Some(&calibration), &mut sink, &())?;
//! sink.finish()?;
//! println!("{:.1} % of the weights are zero", 100.0 * report.measured_sparsity);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Should I use this crate?
//! Through `sparq`, unless you drive the blocks yourself.
#![deny(unsafe_code)]

mod calibration;
mod driver;
mod error;
mod observer;
mod plan;
mod recipe;
mod report;
mod sink;
mod targets;

pub use calibration::Calibration;
pub use driver::compress;
pub use error::{Error, Result};
pub use observer::Observer;
pub use plan::Plan;
pub use recipe::{PipelineKind, PrunerKind, QuantizerKind, Recipe};
pub use report::{CompressionReport, LayerReport};
pub use sink::{CheckpointSink, MemorySink, OutputType, Sink, WriteSettings};
pub use targets::Targets;
