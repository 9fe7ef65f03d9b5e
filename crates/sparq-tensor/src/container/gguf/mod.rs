//! GGUF files, presented as Hugging Face checkpoints and written from such.

mod architecture;
mod config;
mod gpt2;
pub(crate) mod imatrix;
mod key_values;
pub(crate) mod metadata;
mod names;
mod parse;
pub(crate) mod read;
mod reader;
mod rope_scaling;
pub(crate) mod tensor_in_gguf;
mod to_metadata;
mod to_tokenizer;
mod tokenizer;
mod value;
mod vocabulary;
pub(crate) mod writer;
