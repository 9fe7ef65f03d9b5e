#![doc = include_str!("../README.md")]
#![deny(unsafe_code)] // the exceptions map a file and give its pages back, in mmap.rs
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoint;
mod content_hash;
mod decode;
mod destination;
mod dtype;
mod encode;
mod error;
mod fault;
mod files;
mod gguf;
mod limits;
mod mmap;
mod packed;
pub mod packing;
mod part;
mod planned_size;
mod safetensors;
mod side_files;
mod single_file;
mod staged;
mod whole_files;
mod writer;

pub use checkpoint::{Checkpoint, SourceFormat, TensorInfo};
pub use destination::{check_apart, check_replaceable, move_checkpoint};
pub use dtype::DType;
pub use error::{Error, Result};
pub use fault::Fault;
pub use gguf::imatrix::{Importance, read_imatrix, write_imatrix};
pub use gguf::tensor_in_gguf::TensorInGguf;
pub use gguf::writer::GgufWriter;
pub use packed::Packing;
pub use part::TensorPart;
pub use planned_size::PlannedSize;
pub use side_files::SideFile;
pub use single_file::{FileTensor, TensorData, read_safetensors_file, write_safetensors_file};
pub use staged::StagedCheckpoint;
pub use whole_files::{file_sha256, read_file, remove_unfinished_files, write_file, write_file_with};
pub use writer::{CheckpointWriter, TensorSpec, WriteOptions, Written};
