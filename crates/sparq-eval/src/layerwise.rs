//! Errors of a compressed model's layers and blocks on held-out text.

use crate::{Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use sparq_model::{BatchLayout, BlockPlan, Linear, LinearShape, Model};

/// Candidates for a cheap stand-in for the divergence of the whole model, all on one text. Every figure is a squared
/// error over the squared size of what it is an error of, averaged over layers or blocks.
///
/// "By token" means that each token's own ratio is taken, so that tokens with huge activations count like all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerwiseErrors {
    /// Output of each linear on the dense model's inputs, sums over all tokens.
    pub output: f64,
    /// The same by token.
    pub output_by_token: f64,
    /// What each block adds to the residual stream, from the dense model's stream, sums over all tokens.
    pub block: f64,
    /// The same by token.
    pub block_by_token: f64,
    /// The residual stream behind each block, from the dense model's stream before it, after division by its root mean
    /// square: what the next norm sees, by token.
    pub normed_by_token: f64,
    /// As `normed_by_token`, with what earlier blocks did added up.
    pub drift_by_token: f64,
    /// Hidden states behind the last norm, with everything added up, by token.
    pub last_by_token: f64,
}

/// Compares `compressed` with `base` layer by layer on these sequences.
///
/// Same bits for any number of threads. Costs about five forward passes and holds, beside the blocks, a few copies of the
/// residual stream.
///
/// # Errors
/// [`Error::Setting`] if there are no tokens; the models'.
///
/// # Examples
/// ```no_run
/// # fn run(base: sparq_model::Model, compressed: sparq_model::Model) -> sparq_eval::Result<()> {
/// let errors = sparq_eval::layerwise_errors(&base, &compressed, &[vec![1, 2, 3]])?;
/// println!("{:.4} of what blocks add is lost", errors.block_by_token);
/// # Ok(()) }
/// ```
pub fn layerwise_errors(base: &Model, compressed: &Model, sequences: &[Vec<u32>]) -> Result<LayerwiseErrors> {
    let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
    let layout = BatchLayout::new(&lengths);
    if layout.tokens() == 0 {
        return Err(Error::setting("sequences", "at least one token is needed"));
    }
    check_alike(base, compressed)?;
    let mut dense = base.embed(&sequences.concat(), &layout)?;
    let mut drifted = dense.clone();
    let mut sum = LayerwiseErrors::default();
    let (mut layers, blocks) = (0_usize, base.block_count());
    for index in 0..blocks {
        let (block, other) = (base.block(index)?, compressed.block(index)?);
        let mut state = block.begin(dense.clone(), layout.clone())?;
        for stage in 0..block.stages() {
            let input = block.stage_input(stage, &mut state)?;
            for &id in block.stage_linears(stage) {
                let (linear, replaced) = (&block.linears()[id], &other.linears()[id]);
                let mut plain = Linear { bias: None, ..linear.clone() };
                let output = plain.forward(input);
                plain.weight = &replaced.weight - &linear.weight;
                let error = plain.forward(input);
                let (whole, by_token) = ratios(&error, &output);
                sum.output += whole;
                sum.output_by_token += by_token;
                layers += 1;
            }
            block.apply(stage, &mut state)?;
        }
        let behind = block.end(state);
        let own = other.forward(dense.clone(), layout.clone())?;
        drifted = other.forward(drifted, layout.clone())?;
        let (whole, by_token) = ratios(&(&own - &behind), &(&behind - &dense));
        sum.block += whole;
        sum.block_by_token += by_token;
        let reference = normed(&behind);
        sum.normed_by_token += ratios(&(normed(&own) - &reference), &reference).1;
        sum.drift_by_token += ratios(&(normed(&drifted) - &reference), &reference).1;
        dense = behind;
    }
    let (dense, drifted) = (base.finish(dense), compressed.finish(drifted));
    let errors_are_finite = dense.iter().chain(&drifted).all(|value| value.is_finite());
    if !errors_are_finite {
        return Err(Error::NotFinite { what: "comparing layers".to_owned() });
    }
    let per = |value: f64, count: usize| value / count.max(1) as f64;
    Ok(LayerwiseErrors {
        output: per(sum.output, layers),
        output_by_token: per(sum.output_by_token, layers),
        block: per(sum.block, blocks),
        block_by_token: per(sum.block_by_token, blocks),
        normed_by_token: per(sum.normed_by_token, blocks),
        drift_by_token: per(sum.drift_by_token, blocks),
        last_by_token: ratios(&(&drifted - &dense), &dense).1,
    })
}

/// Each token over its root mean square.
fn normed(residual: &Array2<f32>) -> Array2<f32> {
    let mut normed = residual.clone();
    for mut token in normed.rows_mut() {
        let mean =
            token.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>() / token.len().max(1) as f64;
        if mean > 0.0 {
            let scale = (1.0 / mean.sqrt()) as f32;
            token.mapv_inplace(|value| value * scale);
        }
    }
    normed
}

/// Two models can be compared layer by layer if they consist of the same ones.
fn check_alike(base: &Model, compressed: &Model) -> Result<()> {
    let differ = |what: String| Err(Error::setting("compressed", format!("another model than the base: {what}")));
    let (blocks, others) = (base.block_count(), compressed.block_count());
    if blocks != others {
        return differ(format!("{others} blocks, not {blocks}"));
    }
    for index in 0..blocks {
        let (plan, other) = (base.block_plan(index)?, compressed.block_plan(index)?);
        let shapes = |plan: &BlockPlan| -> Vec<(String, usize, usize)> {
            let shape = |linear: &LinearShape| (linear.name.clone(), linear.out_features, linear.in_features);
            plan.linears().iter().map(shape).collect()
        };
        if shapes(plan) != shapes(other) || plan.stages() != other.stages() {
            return differ(format!("block {index} has other layers"));
        }
    }
    Ok(())
}

/// Squared size of `error` over that of `whole`: of all tokens together, and the mean of each token's own. Tokens whose
/// whole is zero are left out of the mean.
fn ratios(error: &Array2<f32>, whole: &Array2<f32>) -> (f64, f64) {
    let energy = |row: ndarray::ArrayView1<'_, f32>| row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    let (mut errors, mut wholes, mut by_token, mut tokens) = (0.0, 0.0, 0.0, 0_usize);
    for (error, whole) in error.outer_iter().zip(whole.outer_iter()) {
        let (error, whole) = (energy(error), energy(whole));
        errors += error;
        wholes += whole;
        if whole > 0.0 {
            by_token += error / whole;
            tokens += 1;
        }
    }
    let share = |value: f64, of: f64| if of > 0.0 { value / of } else { 0.0 };
    (share(errors, wholes), share(by_token, tokens as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn ratios_weigh_tokens_as_they_say() {
        let (error, whole) = (array![[1.0_f32, 0.0], [0.0, 1.0]], array![[10.0, 0.0], [0.0, 1.0]]);
        let (together, by_token) = ratios(&error, &whole);
        assert!((together - 2.0 / 101.0).abs() < 1e-12);
        assert!((by_token - 0.505).abs() < 1e-12);
        assert_eq!(ratios(&array![[1.0]], &array![[0.0]]), (0.0, 0.0));
    }

    #[test]
    fn normed_tokens_have_unit_mean_square() {
        assert_eq!(normed(&array![[3.0, -3.0], [0.0, 0.0]]), array![[1.0, -1.0], [0.0, 0.0]]);
    }
}
