use super::parameters::Parameters;
use crate::{Error, Result};
use ndarray::aview1;
use sparq_tensor::{Checkpoint, TensorData, write_safetensors_file};
use std::path::Path;

const NUMBERS: &str = "numbers";

/// How far a tuning has come, besides its parameters.
#[derive(Debug)]
pub(super) struct State {
    /// Steps taken.
    pub(super) done: usize,
    /// The step after which it began once more from the start; 0 if it did not.
    pub(super) since: usize,
    /// Divergence on the judging text, in nats: at the start, and the least so far.
    pub(super) before: f64,
    pub(super) best: f64,
    /// The parameters of the best state.
    values: Vec<Vec<f32>>,
}

impl State {
    pub(super) fn new(before: f64, parameters: &mut Parameters) -> Self {
        Self { done: 0, since: 0, before, best: before, values: values(parameters) }
    }

    /// Keeps the parameters as they are now if they are the best so far.
    pub(super) fn judge(&mut self, judged: f64, parameters: &mut Parameters) {
        if judged < self.best || self.best.is_infinite() {
            (self.best, self.values) = (judged, values(parameters));
        }
    }

    /// Whether no state so far was better than the first. Without a text that judges nobody can say, and it is not.
    pub(super) fn is_no_better_than_at_the_start(&self) -> bool {
        self.best.is_finite() && self.best == self.before
    }

    pub(super) fn restore_best(&self, parameters: &mut Parameters) {
        parameters.all().zip(&self.values).for_each(|((part, _), best)| part.values.clone_from(best));
    }

    /// Makes everything safe in `file`.
    pub(super) fn write(&self, file: &Path, parameters: &mut Parameters) -> Result<()> {
        let [before, best] = [self.before, self.best].map(|value| value.to_bits().cast_signed());
        let numbers = ndarray::array![self.done as i64, self.since as i64, before, best].into_dyn();
        let mut tensors = vec![(NUMBERS.to_owned(), TensorData::I64(numbers.view()))];
        let parts: Vec<_> = parameters.all().map(|(part, _)| &*part).collect();
        for (index, (part, best)) in parts.iter().zip(&self.values).enumerate() {
            let [means, squares] = &part.means;
            for (what, values) in [("values", &part.values), ("means", means), ("squares", squares), ("best", best)] {
                tensors.push((format!("{index}.{what}"), TensorData::F32(aview1(values).into_dyn())));
            }
        }
        let tensors: Vec<_> = tensors.iter().map(|(name, data)| (name.as_str(), data.clone())).collect();
        Ok(write_safetensors_file(file, &tensors)?)
    }

    /// Reads what [`write`](Self::write) has left, into `parameters` of the same shape.
    pub(super) fn read(file: &Path, parameters: &mut Parameters) -> Result<Self> {
        let saved = Checkpoint::open(file)?;
        let bad = || Error::State { path: file.to_path_buf(), reason: "it is of another tuning".to_owned() };
        let bytes = saved.read_bytes(NUMBERS)?;
        let &[done, since, before, best] = bytes.as_chunks().0 else { return Err(bad()) };
        let [before, best] = [before, best].map(f64::from_le_bytes);
        let [done, since] = [done, since].map(|count| usize::try_from(i64::from_le_bytes(count)).unwrap_or(usize::MAX));
        if since > done || done == usize::MAX {
            return Err(bad());
        }
        let mut values = Vec::new();
        for (index, (part, _)) in parameters.all().enumerate() {
            let read = |what: &str| -> Result<Vec<f32>> {
                let read = saved.read_vector(&format!("{index}.{what}"))?.to_vec();
                if read.len() == part.values.len() { Ok(read) } else { Err(bad()) }
            };
            values.push(read("best")?);
            let (of_part, means) = (read("values")?, [read("means")?, read("squares")?]);
            (part.values, part.means) = (of_part, means);
        }
        Ok(Self { done, since, before, best, values })
    }
}

fn values(parameters: &mut Parameters) -> Vec<Vec<f32>> {
    parameters.all().map(|(part, _)| part.values.clone()).collect()
}
