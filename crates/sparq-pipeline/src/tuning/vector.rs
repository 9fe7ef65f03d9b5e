use super::adam::Adam;
use crate::Result;
use ndarray::{Array1, aview1};
use sparq_model::{Block, LinearId, Model};
use sparq_tensor::DType;
use std::collections::BTreeMap;

/// A norm's weight, which is tuned by factors, or a bias, by summands in units of its root mean square.
#[derive(Debug)]
pub(super) struct Vector {
    pub(super) block: usize,
    pub(super) place: Place,
    /// The tensor that holds it, from this element on, and its type.
    tensor: (String, usize, DType),
    /// Added to what is stored.
    offset: f32,
    start: Array1<f32>,
    pub(super) change: Adam,
    /// Of a summand; none for factors.
    unit: Option<f32>,
}

/// Which vector of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Norm(usize),
    Bias(LinearId),
}

impl Vector {
    /// All of a block whose tensors are stored as floats.
    pub(super) fn of_block(model: &Model, block: &Block) -> Vec<Self> {
        let stored_as = |name: &str| {
            let dtype = model.checkpoint().get(name)?.dtype;
            matches!(dtype, DType::F32 | DType::F16 | DType::BF16).then_some(dtype)
        };
        let norms = block.norms().enumerate().filter_map(|(index, (name, values))| {
            let tensor = (name.to_owned(), 0, stored_as(name)?);
            let is_bias = block.is_norm_bias(index);
            let offset = if is_bias { 0.0 } else { model.config().norm_offset };
            Some(Self::new(block.index(), Place::Norm(index), tensor, offset, values.clone(), is_bias))
        });
        let linears = block.linears().iter().zip(block.plan().linears()).enumerate();
        let biases = linears.filter_map(|(id, (linear, shape))| {
            let name = shape.bias_name();
            let tensor = (name.clone(), shape.stored.first_row, stored_as(&name)?);
            Some(Self::new(block.index(), Place::Bias(id), tensor, 0.0, linear.bias.clone()?, true))
        });
        norms.chain(biases).collect()
    }

    fn new(
        block: usize,
        place: Place,
        tensor: (String, usize, DType),
        offset: f32,
        start: Array1<f32>,
        is_bias: bool,
    ) -> Self {
        let mean_square = start.iter().map(|value| value * value).sum::<f32>() / start.len().max(1) as f32;
        let (unit, first) = if is_bias { (Some(mean_square.sqrt()), 0.0) } else { (None, 1.0) };
        Self { block, place, tensor, offset, change: Adam::new(vec![first; start.len()]), start, unit }
    }

    /// What it is now, as its tensor's type gives it back.
    pub(super) fn value(&self) -> Array1<f32> {
        self.stored() + self.offset
    }

    fn stored(&self) -> Array1<f32> {
        let change = aview1(&self.change.values);
        let value = match self.unit {
            Some(unit) => &self.start + &(&change * unit),
            None => &self.start * &change,
        };
        value.mapv(|value| self.tensor.2.rounded(value - self.offset))
    }

    /// The gradient at the vector joins that at its factors or summands.
    pub(super) fn add(&mut self, gradient: &Array1<f32>) {
        for ((sum, start), gradient) in self.change.gradient.iter_mut().zip(&self.start).zip(gradient) {
            *sum += gradient * self.unit.unwrap_or(*start);
        }
    }

    /// Puts it where it belongs among the model's tensors.
    pub(super) fn write(&self, model: &Model, tensors: &mut BTreeMap<String, (DType, Array1<f32>)>) -> Result<()> {
        let (name, first, dtype) = &self.tensor;
        if !tensors.contains_key(name) {
            tensors.insert(name.clone(), (*dtype, model.checkpoint().read_vector(name)?));
        }
        if let Some((_, whole)) = tensors.get_mut(name) {
            let places = whole.iter_mut().skip(*first);
            places.zip(self.stored()).for_each(|(place, value)| *place = value);
        }
        Ok(())
    }
}
