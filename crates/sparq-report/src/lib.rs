//! Reports of a sweep: an HTML page, comma-separated values, and a table for a terminal.
//!
//! ```no_run
//! use sparq_sweep::SweepResults;
//!
//! let json = std::fs::read("sweep-report/results.json")?;
//! let results: SweepResults = serde_json::from_slice(&json)?;
//! sparq_report::write_reports(&results, "sweep-report".as_ref())?;
//! println!("{}", sparq_report::table(&results));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Should I use this crate?
//! Through `sparq`. Directly, to render results of [`Sweep::run`](sparq_sweep::Sweep::run) again.
#![deny(unsafe_code)]

mod cells;
mod csv;
mod error;
mod family;
mod figure;
mod html;
mod layer_map;
mod page;
mod scatter;
mod srcr_grid;
mod table;
mod task_plots;
mod timing;

pub use csv::csv;
pub use error::{Error, Result};
pub use html::html;
pub use table::table;

use sparq_sweep::SweepResults;
use std::path::Path;

/// Writes `results.csv` and `report.html` into `directory`, each whole or not at all.
///
/// # Errors
/// [`Error::Template`] if the page cannot be rendered, and [`Error::Tensor`] if a file cannot be written.
pub fn write_reports(results: &SweepResults, directory: &Path) -> Result<()> {
    sparq_tensor::write_file(directory.join("results.csv"), csv(results).as_bytes())?;
    Ok(sparq_tensor::write_file(directory.join("report.html"), html(results)?.as_bytes())?)
}
