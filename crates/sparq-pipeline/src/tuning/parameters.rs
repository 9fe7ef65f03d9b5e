use super::adam::Adam;
use super::layer::Layer;
use super::vector::{Place, Vector};
use ndarray::{Array1, ArrayView2, Axis};
use rayon::prelude::*;
use sparq_model::{Block, Gradients, LinearId, weight_gradient};
use std::sync::Arc;

/// Length of the longest step of scales, norms and biases, relative to what they are, and of codes, in steps of the grid.
///
/// On the development text of stories260K anything from 0.001 to 0.005 and from 0.003 to 0.01 is within 10 % of the best. 0.01
/// and 0.03 make larger models diverge.
const RATES: [f32; 2] = [0.001, 0.005];

/// Everything of a compressed model that is tuned.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) layers: Vec<Layer>,
    pub(super) vectors: Vec<Vector>,
}

impl Parameters {
    /// All parts, in one order, each with its rate.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (&mut Adam, f32)> {
        let [relative, of_codes] = RATES;
        let layers = self.layers.iter_mut().flat_map(move |layer| layer.parts(relative, of_codes));
        layers.chain(self.vectors.iter_mut().map(move |vector| (&mut vector.change, relative)))
    }

    /// Takes a step whose length is `share` of the longest. `number` counts the steps since the means of gradients were empty,
    /// from 1.
    pub(super) fn step(&mut self, number: usize, share: f32) {
        let parts: Vec<_> = self.all().collect();
        parts.into_par_iter().for_each(|(part, rate)| part.step(number, rate * share));
    }

    /// Forgets the gradients there were.
    pub(super) fn forget(&mut self) {
        for (part, _) in self.all() {
            *part = Adam::new(std::mem::take(&mut part.values));
        }
    }

    /// Gives blocks the weights and vectors as they are now.
    pub(super) fn apply(&self, blocks: &mut [Arc<Block>]) {
        for layers in self.layers.chunk_by(|a, b| a.block == b.block) {
            let weights: Vec<_> = layers.par_iter().map(|layer| layer.codes().dequantize()).collect();
            for (layer, weight) in layers.iter().zip(weights) {
                Arc::make_mut(&mut blocks[layer.block]).linear_mut(layer.id).weight = weight;
            }
        }
        for vector in &self.vectors {
            let block = Arc::make_mut(&mut blocks[vector.block]);
            match vector.place {
                Place::Norm(index) => *block.norm_mut(index) = vector.value(),
                Place::Bias(id) => block.linear_mut(id).bias = Some(vector.value()),
            }
        }
    }

    fn vector(&mut self, block: &Block, place: Place) -> Option<&mut Vector> {
        self.vectors.iter_mut().find(|vector| vector.block == block.index() && vector.place == place)
    }
}

impl Gradients for Parameters {
    fn linear(&mut self, block: &Block, id: LinearId, input: ArrayView2<'_, f32>, gradient: ArrayView2<'_, f32>) {
        let is_here = |layer: &&mut Layer| layer.block == block.index() && layer.id == id;
        if let Some(layer) = self.layers.iter_mut().find(is_here) {
            layer.add(block.linears()[id].weight.view(), &weight_gradient(input, gradient));
        }
        if let Some(bias) = self.vector(block, Place::Bias(id)) {
            bias.add(&gradient.sum_axis(Axis(0)));
        }
    }

    fn norm(&mut self, block: &Block, index: usize, gradient: Array1<f32>) {
        if let Some(norm) = self.vector(block, Place::Norm(index)) {
            norm.add(&gradient);
        }
    }
}
