//! One file per format.

mod compressed_tensors;
mod dense;
mod gptq;
mod packed;

pub use compressed_tensors::CompressedTensors;
pub use dense::Dense;
pub use gptq::Gptq;
