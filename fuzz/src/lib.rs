//! What the fuzz targets do with their bytes. Every function must come back: an error is as good as success, a panic or
//! an allocation beyond the limits of docs/reliability.md is a finding.

mod coding;
mod parsers;
mod round_trips;
mod scratch;

pub use coding::{coded, coding};
pub use parsers::{config, gguf, index, quantized, recipe, safetensors, solution, task, tokenizer};
pub use round_trips::packing;
