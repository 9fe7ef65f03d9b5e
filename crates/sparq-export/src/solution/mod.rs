//! A finished solve on disk, without loss: what exporters read and what an interrupted run continues from.
//!
//! A directory with `solution.json` and one safetensors file for each block. For a layer `L` a file holds `L.codes` (the
//! rows as bit streams), `L.scales` in their storage type, `L.zeros` if the grid is asymmetric, and `L.mask` (one bit a
//! weight) if it was pruned; a layer that was only pruned has its `L.weight` as `f32` instead of codes. Norms and biases
//! that were tuned are in `tensors.safetensors` under their names in the source. Nothing in it
//! depends on the clock, so equal runs give equal bytes.

mod contents;
mod packed;
mod reader;
mod writer;

pub use contents::{LayerEntry, SolutionContents};
pub use reader::Solution;
pub use writer::SolutionWriter;

/// Name of the file that says what is in the directory; it is written last.
pub(crate) const MANIFEST: &str = "solution.json";
/// Name of the file with tensors that belong to no layer.
pub(crate) const TENSORS: &str = "tensors.safetensors";
/// What a manifest calls itself.
pub(crate) const FORMAT: &str = "sparq-solution";
/// Structure of the manifest; a change makes old ones unreadable.
pub(crate) const SCHEMA: u32 = 2;
/// Bytes of a manifest at most: some hundred for each layer of the largest models.
pub(crate) const MANIFEST_BYTES: u64 = 256 << 20;
