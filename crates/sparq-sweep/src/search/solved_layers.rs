//! The layers of a block under one candidate, kept in few bytes.

use ndarray::Array2;
use sparq_core::{Codes, CompressedLayer};
use sparq_model::{Block, Linear, LinearId};
use std::collections::BTreeMap;

/// Solved layers by full module name. A weight takes about one byte if it is a code of a grid, and four otherwise.
#[derive(Debug, Default)]
pub(super) struct SolvedLayers(BTreeMap<String, Kept>);

/// One layer.
#[derive(Debug)]
enum Kept {
    Codes(Codes),
    Weights(Array2<f32>),
}

impl SolvedLayers {
    /// Adds a layer.
    pub(super) fn insert(&mut self, linear: &Linear, layer: CompressedLayer) {
        let CompressedLayer { weight, codes, .. } = layer;
        let codes = codes.filter(|codes| codes.dequantize() == weight);
        self.0.insert(linear.name.clone(), codes.map_or(Kept::Weights(weight), Kept::Codes));
    }

    /// Replaces the weights of these linears of `block`.
    pub(super) fn install(&self, block: &mut Block, ids: &[LinearId]) {
        for &id in ids {
            let linear = block.linear_mut(id);
            match self.0.get(&linear.name) {
                Some(Kept::Codes(codes)) => linear.weight = codes.dequantize(),
                Some(Kept::Weights(weights)) => linear.weight.assign(weights),
                None => {}
            }
        }
    }
}
