use crate::{Error, LanguageModel, Result};
use ndarray::{Array2, s};
use rayon::prelude::*;
use sparq_model::Softmax;

/// Rows of logits held at once.
const TILE: usize = 256;

/// A row of hidden states and a token whose probability is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    /// Row of the hidden states.
    pub(super) row: usize,
    /// The token.
    pub(super) token: u32,
}

/// Log-probability of each query's token, and whether it is the most likely one. `hidden` is `[rows, hidden]`; queries
/// are sorted by row.
pub(super) fn ask<M: LanguageModel>(model: &M, hidden: &Array2<f32>, queries: &[Query]) -> Result<Vec<(f64, bool)>> {
    let mut answers = Vec::with_capacity(queries.len());
    let mut rest = queries;
    for start in (0..hidden.nrows()).step_by(TILE) {
        let end = hidden.nrows().min(start + TILE);
        let logits = model.logits(hidden.slice(s![start..end, ..]))?;
        let logits = logits.as_standard_layout();
        let row = |row: usize| logits.row(row - start).to_slice().unwrap_or_default(); // rows of a standard layout
        let softmax: Vec<Softmax> = (start..end).into_par_iter().map(|index| Softmax::of(row(index))).collect();
        let (now, later) = rest.split_at(rest.partition_point(|query| query.row < end));
        for query in now {
            if query.token as usize >= logits.ncols() {
                let reason = format!("token {} of a text is beyond the model's {} logits", query.token, logits.ncols());
                return Err(Error::setting("tokenizer", reason));
            }
            let softmax = &softmax[query.row - start];
            let log_probability = softmax.log_probability(row(query.row), query.token);
            if !log_probability.is_finite() {
                return Err(Error::NotFinite { what: "scoring a continuation".to_owned() });
            }
            answers.push((log_probability, softmax.best == query.token));
        }
        rest = later;
    }
    Ok(answers)
}

/// The most likely token of each row of `hidden`, `[rows, hidden]`; of equal ones, the first.
pub(super) fn most_likely<M: LanguageModel>(model: &M, hidden: &Array2<f32>) -> Result<Vec<u32>> {
    let mut tokens = Vec::with_capacity(hidden.nrows());
    for start in (0..hidden.nrows()).step_by(TILE) {
        let end = hidden.nrows().min(start + TILE);
        let logits = model.logits(hidden.slice(s![start..end, ..]))?;
        let logits = logits.as_standard_layout();
        let rows = (0..end - start).into_par_iter();
        let found: Vec<Softmax> = rows.map(|row| Softmax::of(logits.row(row).to_slice().unwrap_or_default())).collect();
        if found.iter().any(|softmax| !softmax.log_sum.is_finite()) {
            return Err(Error::NotFinite { what: "generating text".to_owned() });
        }
        tokens.extend(found.iter().map(|softmax| softmax.best));
    }
    Ok(tokens)
}
