//! How integer codes are put into 32-bit words, by format. Pure functions, both directions.
//!
//! Everywhere codes are unsigned, `0..2^bits`, and matrices `[out, in]` or `[out, groups]`, as
//! `sparq_core::Quantized` has them. Words are the `i32` that safetensors stores.

pub mod compressed_tensors;
pub mod gguf;
pub mod gptq;
mod stream;

pub(crate) use stream::{read_stream, words};
use stream::{read_words, write_stream};
