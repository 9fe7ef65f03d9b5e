//! GGUF files, presented as Hugging Face checkpoints and written from such.

mod config;
pub(crate) mod conventions;
pub(crate) mod family;
pub(crate) mod fields;
pub(crate) mod imatrix;
pub(crate) mod key_values;
pub(crate) mod metadata;
pub(crate) mod model;
pub(crate) mod names;
mod parse;
pub(crate) mod parts;
pub(crate) mod pre_tokenizer;

pub(crate) mod read;
mod reader;
pub(crate) mod tensor_in_gguf;
mod to_metadata;
mod to_tokenizer;
mod tokenizer;
mod value;
pub(crate) mod vocabulary;
pub(crate) mod writer;
