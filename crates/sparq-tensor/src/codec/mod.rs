//! How weights become bytes and bytes weights. A file holds both directions of one format.
//!
//! Codes are unsigned everywhere, `0..2^bits`, and matrices `[out, in]` or `[out, groups]`, as `sparq_core::Quantized` has
//! them. Words are the `i32` that safetensors stores.

#![allow(clippy::inline_always, reason = "blocks are read in loops that are compiled for the processor found")]

mod block;
pub mod coded;
pub mod compressed_tensors;
pub mod ggml;
#[cfg(test)]
mod golden;
pub mod gptq;
mod iq4;
pub(crate) mod packed;
pub(crate) mod plain;
pub(crate) mod present;
mod products;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod search;
mod settings;
mod stream;
pub(crate) mod tensor;

pub use products::{RowInputs, rounded_to_8_bits};
pub use tensor::decode_rows;
