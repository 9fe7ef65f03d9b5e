//! Turns a source checkpoint and its compressed layers into a format that inference engines load.
//!
//! Compression has two steps. A solver leaves codes, scales, zero points and masks; an [`ExportFormat`] puts them into a
//! file without touching a code. Every export is opened again by the reader of `sparq-tensor` before it appears at its
//! destination, and every value is compared with the one in memory.
//!
//! ```
//! use ndarray::array;
//! use sparq_core::{Bits, Codes, CompressedLayer, Grid, QuantScheme, Quantized, SolveReport};
//! use sparq_export::{Dense, ExportSettings, SolvedInMemory, export};
//! use sparq_tensor::{Checkpoint, TensorData, write_safetensors_file};
//!
//! let directory = tempfile::tempdir()?;
//! let source = directory.path().join("source");
//! std::fs::create_dir(&source)?;
//! let weight = array![[0.2f32, 1.4, -2.1]].into_dyn();
//! write_safetensors_file(source.join("model.safetensors"), &[("proj.weight", TensorData::F32(weight.view()))])?;
//! std::fs::write(source.join("config.json"), "{}")?;
//!
//! let quantized = Quantized {
//!     scheme: QuantScheme::new(Bits::B4),
//!     codes: array![[8, 11, 4]],
//!     grids: array![[Grid { scale: 0.5, zero: 8 }]],
//! };
//! let weight = quantized.dequantize();
//! let layer = CompressedLayer { weight, mask: None, codes: Some(Codes::Grid(quantized)), report: SolveReport::default() };
//! let solved = SolvedInMemory::new([("proj".to_owned(), layer)])?;
//!
//! let out = directory.path().join("out");
//! let report = export(&Checkpoint::open(&source)?, &solved, &Dense, &out, &ExportSettings::default())?;
//! assert_eq!((report.largest_difference, report.zeros_lost), (0.0, 0));
//! assert_eq!(Checkpoint::open(&out)?.read_matrix("proj.weight")?, array![[0.0, 1.5, -2.0]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod coded_layers;
mod config;
mod error;
mod export;
mod float_type;
mod format;
mod formats;
mod joined;
mod report;
mod settings;
mod solution;
mod solved;
mod verify;

pub use coded_layers::CodedLayers;
pub use error::{Error, Result};
pub use export::{bytes_besides_codes, carried_over, check, check_values, export, planned_size};
pub use float_type::FloatType;
pub use format::{ExportContext, ExportFormat, ExportTensor};
pub use formats::{Coded, CompressedTensors, Dense, Format, Gguf, GgufTypes, GptqCheckpoint};
pub use report::{ExportReport, LayerCheck};
pub use settings::ExportSettings;
pub use solution::{LayerEntry, Solution, SolutionContents, SolutionWriter};
pub use solved::{SolvedInMemory, SolvedLayers, SolvedShape};
