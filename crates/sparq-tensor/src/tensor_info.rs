use std::path::PathBuf;

use crate::DType;

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// The Hugging Face name, whatever the file calls it.
    pub name: String,
    /// The shape, outermost dimension first (`[out, in]` for a linear layer).
    pub shape: Vec<usize>,
    /// The element type on disk; of a quantized weight stored in several parts, the type its values have.
    pub dtype: DType,
    /// The size on disk in bytes, all parts together.
    pub bytes: u64,
    /// The file that holds it.
    pub file: PathBuf,
    /// Set if the weight is stored as integer codes with scales in tensors of their own.
    pub packing: Option<Packing>,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// How the integer codes of a quantized weight are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Packing {
    /// compressed-tensors, packed or one byte each. Values are computed in the type of the scales, as the format says.
    CompressedTensors {
        /// Bits per code.
        bits: u8,
    },
    /// sparq's own coded format: [`codec::coded`](crate::codec::coded).
    Coded {
        /// Bits of the codes before they were coded; none if they have no fixed width.
        bits: Option<u8>,
    },
    /// GPTQ, version 1 or 2.
    Gptq {
        /// Bits per code.
        bits: u8,
    },
}
