//! The files that hold tensors.

pub(crate) mod gguf;
pub(crate) mod safetensors;
