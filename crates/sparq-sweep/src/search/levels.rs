//! A model's layers under one candidate, kept small enough for all candidates to be held at once.

use ndarray::Array2;
use sparq_core::{CompressedLayer, Quantized};
use sparq_model::{Block, Linear, LinearId};
use std::collections::BTreeMap;

/// What a candidate made of every layer, by full module name. Takes about a byte a weight where the weights are codes of
/// a grid, four where they are not.
#[derive(Debug, Default)]
pub(super) struct Level(BTreeMap<String, Kept>);

/// One layer.
#[derive(Debug)]
enum Kept {
    Codes(Quantized),
    Weights(Array2<f32>),
}

impl Level {
    /// Adds a layer.
    pub(super) fn insert(&mut self, linear: &Linear, layer: CompressedLayer) {
        let CompressedLayer { weight, quantized, .. } = layer;
        let codes = quantized.filter(|codes| codes.dequantize() == weight);
        self.0.insert(linear.name.clone(), codes.map_or(Kept::Weights(weight), Kept::Codes));
    }

    /// Puts this level's weights in the place of these linears of `block`.
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

/// The linears of one unit: the block they are in, and which they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) block: usize,
    pub(super) ids: Vec<LinearId>,
}

/// `base` with every unit in it at the level that `choice` names for it.
pub(super) fn assemble(base: &Block, places: &[Place], levels: &[Level], choice: &[usize]) -> Block {
    let mut block = base.clone();
    let index = block.index();
    for (place, &candidate) in places.iter().zip(choice).filter(|(place, _)| place.block == index) {
        if let Some(level) = levels.get(candidate) {
            level.install(&mut block, &place.ids);
        }
    }
    block
}
