//! One file per format.

mod compressed_tensors;
mod dense;
mod gguf;
mod gptq;
mod packed;

pub use compressed_tensors::CompressedTensors;
pub use dense::Dense;
pub use gguf::{Gguf, GgufTypes};
pub use gptq::Gptq;
