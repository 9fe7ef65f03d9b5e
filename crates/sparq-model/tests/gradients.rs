//! Agreement of the backward pass with PyTorch's autograd on the fixtures, and with differences of an own f64 forward pass.
#![allow(clippy::unwrap_used)]

mod common;

use common::reference::{block, is_plain};
use common::{as_slices, llama, model_fixtures, token_sequences};
use ndarray::{Array1, Array2, ArrayView2};
use sparq_model::{
    BatchLayout, Block, CrossEntropy, Divergence, Error, Gradients, LinearId, Loss, Model, SampledLabels,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Gradients at all tensors of a checkpoint, by name.
#[derive(Default)]
struct Sums {
    found: BTreeMap<String, Vec<f32>>,
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
            found: BTreeMap::new(),
            outside,
            vocabulary: model.config().vocab_size,
            embedding_scale: model.config().embedding_scale,
            positions: model.config().max_positions,
        }
    }

    fn add(&mut self, name: &str, length: usize, first: usize, values: impl IntoIterator<Item = f32>) {
        let sums = self.found.entry(name.to_owned()).or_insert_with(|| vec![0.0; length]);
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
    (loss, sums.found)
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

/// Gradients of `Σ c · x` over what leaves one block, some of each tensor, against differences of the f64 pass.
#[test]
fn gradients_of_a_block_agree_with_differences_in_f64() {
    let mut seen = 0;
    for folder in model_fixtures() {
        let model = Model::open(&folder).unwrap();
        let (config, checkpoint) = (model.config(), model.checkpoint());
        if !is_plain(config) {
            continue;
        }
        seen += 1;
        let tokens = &token_sequences(&folder, "tokens")[0][..11];
        let layout = BatchLayout::new(&[tokens.len()]);
        let entering = model.embed(tokens, &layout).unwrap();
        let of_loss = Array2::from_shape_fn(entering.dim(), |(i, j)| ((i * 7 + j * 13) % 11) as f32 / 5.0 - 1.0);
        let last = config.layers - 1;
        let mut sums = Sums::new(&model);
        let found = model.block(last).unwrap().backward(entering.clone(), layout, of_loss.clone(), &mut sums).unwrap();
        let loss = |name: &str, at: usize, change: f64| -> f64 {
            let read = |other: &str| {
                let mut tensor = checkpoint.contains(other).then(|| checkpoint.read(other).unwrap().mapv(f64::from))?;
                if other == name {
                    *tensor.iter_mut().nth(at).unwrap() += change;
                }
                Some(tensor)
            };
            let mut x: Vec<Vec<f64>> =
                entering.outer_iter().map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect();
            if name.is_empty() {
                *x.iter_mut().flatten().nth(at).unwrap() += change;
            }
            let left = block(&read, config, last, x);
            left.iter().flatten().zip(&of_loss).map(|(x, c)| x * f64::from(*c)).sum()
        };
        sums.found.insert(String::new(), found.iter().copied().collect());
        for (name, gradient) in &sums.found {
            let largest = gradient.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for at in (0..gradient.len()).step_by(gradient.len() / 5 + 1) {
                let slope = (loss(name, at, 1e-5) - loss(name, at, -1e-5)) / 2e-5;
                let off = (f64::from(gradient[at]) - slope).abs();
                assert!(
                    off < 1e-4 * f64::from(largest) + 1e-8,
                    "{name} {at} of {}: {} {slope}",
                    folder.display(),
                    gradient[at]
                );
            }
        }
    }
    assert!(seen >= 12);
}

/// The gradients of losses at logits are the slopes of their values.
#[test]
fn losses_and_their_gradients_agree() {
    let model = Model::open(llama()).unwrap();
    let sequences = token_sequences(&llama(), "tokens");
    let batch = as_slices(&sequences);
    let hidden = model.hidden(&batch).unwrap();
    let logits = model.logits(hidden.view()).unwrap();
    let tokens = hidden.nrows();
    let other = hidden.mapv(|value| value * 1.3 + 0.1);
    let next = CrossEntropy::of_next_tokens(&batch);
    let divergence = Divergence::new(&model, other.clone());
    let losses: [&dyn Loss; 2] = [&next, &divergence];
    for loss in losses {
        let value = |logits: &Array2<f32>| loss.gradient(0, &mut logits.clone()).unwrap();
        let mut gradient = logits.clone();
        loss.gradient(0, &mut gradient).unwrap();
        let largest = gradient.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for at in [(0, 3), (5, 60), (23, 0), (40, 17)] {
            let (mut more, mut less) = (logits.clone(), logits.clone());
            (more[at], less[at]) = (more[at] + 0.1, less[at] - 0.1);
            let slope = (value(&more) - value(&less)) / 0.2;
            assert!((slope - f64::from(gradient[at])).abs() < 1e-3 * f64::from(largest), "{loss:?} {at:?}");
        }
        // In pieces it is the same.
        let mut part = logits.slice(ndarray::s![10..20, ..]).to_owned();
        loss.gradient(10, &mut part).unwrap();
        assert_eq!(part, gradient.slice(ndarray::s![10..20, ..]));
    }
    assert!(Divergence::new(&model, hidden.clone()).gradient(0, &mut logits.clone()).unwrap().abs() < 1e-9);
    assert!(model.loss(&batch, &divergence).unwrap() > 0.0);
    let refused = next.gradient(tokens, &mut logits.clone());
    assert!(matches!(refused, Err(Error::Shape { .. })), "{refused:?}");
    let unknown = CrossEntropy::new(vec![Some(1000); tokens]).gradient(0, &mut logits.clone());
    assert!(matches!(unknown, Err(Error::TokenOutOfVocabulary { token: 1000, .. })), "{unknown:?}");
}

#[test]
fn labels_are_drawn_as_the_model_says() {
    let logits = Array2::from_shape_fn((4000, 3), |(_, token)| [0.5_f32, 0.3, 0.2][token].ln());
    let labels = SampledLabels::new(4000, 1);
    let mut gradient = logits.clone();
    let loss = labels.gradient(0, &mut gradient).unwrap();
    let entropy = -[0.5_f64, 0.3, 0.2].iter().map(|p| p * p.ln()).sum::<f64>();
    assert!((loss - entropy).abs() < 0.03, "{loss} {entropy}");
    let drawn = |token: usize| gradient.column(token).iter().filter(|value| **value < 0.0).count();
    assert!((drawn(0) as f64 - 2000.0).abs() < 130.0 && (drawn(2) as f64 - 800.0).abs() < 110.0);
    let mut again = logits.slice(ndarray::s![7..9, ..]).to_owned();
    labels.gradient(7, &mut again).unwrap();
    assert_eq!(again, gradient.slice(ndarray::s![7..9, ..]), "a token's label does not depend on its batch");
    let mut other = logits;
    SampledLabels::new(4000, 2).gradient(0, &mut other).unwrap();
    assert_ne!(other, gradient);
}

#[test]
fn gradients_of_another_shape_are_refused() {
    let model = Model::open(llama()).unwrap();
    let layout = BatchLayout::new(&[3]);
    let entering = model.embed(&[1, 2, 3], &layout).unwrap();
    let refused = model.block(0).unwrap().backward(entering, layout, Array2::zeros((3, 1)), &mut Sums::default());
    assert!(matches!(refused, Err(Error::Shape { .. })));
}

#[test]
fn gradients_do_not_depend_on_threads() {
    let folder = llama().with_file_name("gemma3");
    let model = Model::open(&folder).unwrap();
    let sequences = token_sequences(&folder, "tokens");
    let runs = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gradients(&model, &sequences))
    });
    assert_eq!(runs[0], runs[1]);
}
