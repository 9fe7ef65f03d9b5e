use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the self-check found in one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerCheck {
    /// Full module name.
    pub name: String,
    /// Largest difference between a weight read back and the one in memory. Not zero where the format rounds what the
    /// solver did not: the product of scale and code, or a minimum.
    pub largest_difference: f32,
    /// Weights that are exactly zero in memory.
    pub zeros: usize,
    /// Those that are not when read back.
    pub zeros_lost: usize,
}

/// What an export has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExportReport {
    /// The format.
    pub format: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of the weights as stored, headers left out.
    pub stored_bytes: u64,
    /// Bytes the same tensors take in 16 bits each.
    pub sixteen_bit_bytes: u64,
    /// Weights and other parameters.
    pub parameters: u64,
    /// Bytes of the compressed layers' weights as stored: codes, scales, zero points.
    pub layer_bytes: u64,
    /// Weights in compressed layers.
    pub layer_weights: u64,
    /// Largest difference over all layers.
    pub largest_difference: f32,
    /// Exact zeros in memory, over all layers.
    pub zeros: u64,
    /// Those that do not read back as zero.
    pub zeros_lost: u64,
    /// Layer by layer, in model order.
    pub layers: Vec<LayerCheck>,
    /// What an engine can make of it, in plain words.
    pub engines: String,
    /// Tensors of the source that the model does not read: carried over as they are, left out of GGUF.
    #[serde(default)]
    pub unused: Vec<String>,
    /// What of the source was not as usual, and how it was read.
    #[serde(default)]
    pub remarks: Vec<String>,
}

impl ExportReport {
    /// Mean bits stored for each weight of the compressed layers; 0 without any.
    pub fn bits_per_weight(&self) -> f64 {
        if self.layer_weights == 0 { 0.0 } else { 8.0 * self.layer_bytes as f64 / self.layer_weights as f64 }
    }
}
