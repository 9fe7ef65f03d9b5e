//! One file per format.

mod coded;
mod compressed_tensors;
mod dense;
mod format;
mod gguf;
mod gptq;
mod packed;

pub use coded::Coded;
pub use compressed_tensors::CompressedTensors;
pub use dense::Dense;
pub use format::Format;
pub use gguf::{Gguf, GgufTypes};
pub use gptq::GptqCheckpoint;
