#![doc = include_str!("../README.md")]
#![deny(unsafe_code)] // the exceptions: mmap.rs maps a file and gives its pages back, codec/products.rs prefetches
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arrangement;
mod checkpoint;
pub mod codec;
mod container;
mod content;
mod content_hash;
mod destination;
mod digest;
mod dtype;
mod entry;
mod error;
mod fault;
mod files;
pub mod gguf;
mod limits;
mod mmap;
mod part;
mod planned_size;
mod read;
mod sentence_piece;
mod side_files;
mod size;
mod staged;
mod stored_rows;
mod tensor_info;
mod ties;
mod tokenizer_files;
mod whole_files;

pub use checkpoint::{Checkpoint, SourceFormat};
pub use codec::{RowInputs, rounded_to_8_bits};
pub use container::gguf::imatrix::{Importance, read_imatrix, write_imatrix};
pub use container::gguf::tensor_in_gguf::TensorInGguf;
pub use container::gguf::writer::GgufWriter;
pub use container::safetensors::layout::TensorSpec;
pub use container::safetensors::single_file::{FileTensor, TensorData, read_safetensors_file, write_safetensors_file};
pub use container::safetensors::writer::{CheckpointWriter, WriteOptions};
pub use destination::{check_apart, check_replaceable, check_space, move_checkpoint};
pub use digest::digest;
pub use dtype::DType;
pub use error::{Error, Result};
pub use fault::Fault;
pub use files::read_text;
pub use part::TensorPart;
pub use planned_size::PlannedSize;
pub use side_files::SideFile;
pub use staged::{StagedCheckpoint, Written};
pub use stored_rows::{OpenRows, StoredRows};
pub use tensor_info::{Packing, TensorInfo};
pub use whole_files::{file_sha256, read_file, remove_unfinished_files, write_file, write_file_with};
