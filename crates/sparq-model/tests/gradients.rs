//! Agreement of the backward pass with PyTorch's autograd on the fixtures, and with differences of an own f64 forward pass.
#![allow(clippy::unwrap_used)]

mod common;

use common::{as_slices, model_fixtures, token_sequences};
use ndarray::{Array1, Array2, ArrayView2};
use sparq_model::{
    BatchLayout, Block, CrossEntropy, Divergence, Error, Gradients, LinearId, Loss, Model, SampledLabels,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Gradients at all tensors of a checkpoint, by name.
#[derive(Default)]
struct Sums {
    sums: BTreeMap<String, Vec<f32>>,
    /// Of the embedding, of positions if they are learned, of the final norm and of the output matrix.
    outside: [String; 4],
    vocabulary: usize,
    embedding_scale: f32,
    positions: usize,
}

impl Sums {
    fn new(model: &Model) -> Self {
        let matrices: Vec<String> = model.vocabulary_tensors().map(|(name, _)| name.to_owned()).collect();
        let names = |ending: &str| {
            let names = model.checkpoint().tensors().map(|tensor| tensor.name.clone());
            let mut found =
                names.filter(|name| name.ends_with(ending) && !name.contains("layers.") && !name.contains("h."));
            found.next().unwrap_or_default()
        };
        let norm = [names("norm.weight"), names("ln_f.weight")].concat();
        let outside = [matrices[0].clone(), names("wpe.weight"), norm, matrices.last().unwrap().clone()];
        Self {
            sums: BTreeMap::new(),
            outside,
            vocabulary: model.config().vocab_size,
            embedding_scale: model.config().embedding_scale,
            positions: model.config().max_positions,
        }
    }

    fn add(&mut self, name: &str, length: usize, first: usize, values: impl IntoIterator<Item = f32>) {
        let sums = self.sums.entry(name.to_owned()).or_insert_with(|| vec![0.0; length]);
        sums[first..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
}

impl Gradients for Sums {
    fn linear(&mut self, block: &Block, id: LinearId, input: ArrayView2<'_, f32>, gradient: ArrayView2<'_, f32>) {
        let (linear, shape) = (&block.linears()[id], &block.plan().linears()[id]);
        let of_weight: Array2<f32> = gradient.t().dot(&input);
        let stored = &linear.stored;
        let length = stored.shape.iter().product();
        if stored.transposed {
            let [inputs, rows] = stored.shape[..] else { panic!("{:?}", stored.shape) };
            for row in 0..inputs {
                self.add(&stored.tensor, length, row * rows + stored.first_row, of_weight.column(row).to_vec());
            }
        } else {
            self.add(&stored.tensor, length, stored.first_row * linear.in_features(), of_weight);
        }
        if shape.bias {
            let rows = if stored.transposed { stored.shape[1] } else { stored.shape[0] };
            self.add(&shape.bias_name(), rows, stored.first_row, gradient.sum_axis(ndarray::Axis(0)));
        }
    }

    fn norm(&mut self, block: &Block, index: usize, gradient: Array1<f32>) {
        let name = block.norms().nth(index).unwrap().0.to_owned();
        self.add(&name, gradient.len(), 0, gradient);
    }

    fn router(&mut self, block: &Block, gradient: Array2<f32>) {
        let name = block.router_name().unwrap().to_owned();
        self.add(&name, gradient.len(), 0, gradient);
    }

    fn final_norm(&mut self, weight: Array1<f32>, bias: Option<Array1<f32>>) {
        let name = self.outside[2].clone();
        self.add(&name, weight.len(), 0, weight);
        if let Some(bias) = bias {
            self.add(&name.replace(".weight", ".bias"), bias.len(), 0, bias);
        }
    }

    fn output(&mut self, hidden: ArrayView2<'_, f32>, gradient: ArrayView2<'_, f32>) {
        let name = self.outside[3].clone();
        let of_weight = gradient.t().dot(&hidden);
        self.add(&name, of_weight.len(), 0, of_weight);
    }

    fn embedded(&mut self, tokens: &[u32], layout: &BatchLayout, gradient: ArrayView2<'_, f32>) {
        let [embedding, positions, ..] = self.outside.clone();
        let width = gradient.ncols();
        for sequence in 0..layout.sequences() {
            for (position, row) in layout.rows(sequence).enumerate() {
                let gradient = gradient.row(row);
                self.add(
                    &embedding,
                    self.vocabulary * width,
                    tokens[row] as usize * width,
                    &gradient * self.embedding_scale,
                );
                if !positions.is_empty() {
                    let length = self.positions * width;
                    self.add(&positions, length, position * width, gradient.to_vec());
                }
            }
        }
    }
}

fn gradients(model: &Model, sequences: &[Vec<u32>]) -> (f64, BTreeMap<String, Vec<f32>>) {
    let batch = as_slices(sequences);
    let mut sums = Sums::new(model);
    let loss = model.backward(&batch, &CrossEntropy::of_next_tokens(&batch), &mut sums).unwrap();
    (loss, sums.sums)
}

#[test]
fn gradients_agree_with_pytorch() {
    for folder in model_fixtures() {
        let model = Model::open(&folder).unwrap();
        let (loss, mut found) = gradients(&model, &token_sequences(&folder, "tokens"));
        let wanted = stored(&folder);
        assert!((loss - f64::from(wanted["loss"][0])).abs() < 1e-5, "{}: {loss}", folder.display());
        let mut worst = 0.0_f32;
        for (name, wanted) in wanted.iter().filter(|(name, _)| *name != "loss") {
            let largest = wanted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            let found = found.remove(name).unwrap_or_else(|| vec![0.0; wanted.len()]);
            assert_eq!(found.len(), wanted.len(), "{name} of {}", folder.display());
            let off = found.iter().zip(wanted).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(off <= 1e-4 * largest.max(1e-6), "{name} of {}: {off:e} of {largest:e}", folder.display());
            worst = worst.max(off / largest.max(1e-6));
        }
        assert!(found.is_empty(), "{:?}", found.keys());
        eprintln!("{}: {worst:e}", folder.display());
    }
}

fn stored(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(folder.join("gradients.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    file.iter().map(|(name, tensor)| (name.to_owned(), values(tensor.data()))).collect()
}
