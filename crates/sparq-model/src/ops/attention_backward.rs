use super::attention::{TILE, weigh};
use super::{Span, lanes, wide};
use crate::block::BatchLayout;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use sparq_linalg::gemm_sequential;

/// One task: the heads of one sequence that share a key head. Each field is the part of an array that it reads or writes.
struct Part<'a> {
    queries: ArrayView2<'a, f32>,
    keys: ArrayView2<'a, f32>,
    values: ArrayView2<'a, f32>,
    gradient: ArrayView2<'a, f32>,
    of_queries: ArrayViewMut2<'a, f32>,
    of_keys: ArrayViewMut2<'a, f32>,
    of_values: ArrayViewMut2<'a, f32>,
}

/// The gradients at queries, keys and values, where `gradient` is that at what [`attention`](super::attention) makes of them,
/// `[tokens, heads * head_dim]`; all sequences start at their first token.
///
/// With `P` the attention weights of a head and `G` the gradient at its output: `dV = PᵀG`; `dS = scale · P ∘ (GVᵀ - r)` with
/// `r` the row sums of `P ∘ GVᵀ`; `dQ = dS K`, `dK = dSᵀ Q`. The weights are computed again, some query rows at a time.
pub(crate) fn attention_backward(
    [queries, keys, values]: [&Array2<f32>; 3],
    layout: &BatchLayout,
    span: Span,
    gradient: &Array2<f32>,
) -> [Array2<f32>; 3] {
    let [mut of_queries, mut of_keys, mut of_values] = [queries, keys, values].map(|x| Array2::zeros(x.dim()));
    let group_width = queries.ncols() / span.kv_heads;
    let mut parts = Vec::new();
    let mut rest = [of_queries.view_mut(), of_keys.view_mut(), of_values.view_mut()];
    for sequence in 0..layout.sequences() {
        let rows = layout.rows(sequence);
        let [mut of_sequence_queries, mut of_sequence_keys, mut of_sequence_values];
        ([of_sequence_queries, of_sequence_keys, of_sequence_values], rest) = split(rest, Axis(0), [rows.len(); 3]);
        for head in 0..span.kv_heads {
            let (wide, narrow) =
                (head * group_width..(head + 1) * group_width, head * span.head_dim..(head + 1) * span.head_dim);
            let [of_queries, of_keys, of_values];
            ([of_queries, of_keys, of_values], [of_sequence_queries, of_sequence_keys, of_sequence_values]) = split(
                [of_sequence_queries, of_sequence_keys, of_sequence_values],
                Axis(1),
                [group_width, span.head_dim, span.head_dim],
            );
            parts.push(Part {
                queries: queries.slice(s![rows.clone(), wide.clone()]),
                keys: keys.slice(s![rows.clone(), narrow.clone()]),
                values: values.slice(s![rows.clone(), narrow]),
                gradient: gradient.slice(s![rows.clone(), wide]),
                of_queries,
                of_keys,
                of_values,
            });
        }
    }
    parts.into_par_iter().for_each_init(Scratch::default, |scratch, part| part.run(span, scratch));
    [of_queries, of_keys, of_values]
}

type Three<'a> = [ArrayViewMut2<'a, f32>; 3];

/// The first rows or columns of each, so many as `at` says, and what is left.
fn split(views: Three<'_>, axis: Axis, at: [usize; 3]) -> (Three<'_>, Three<'_>) {
    let [a, b, c] = views;
    let ((a, a_rest), (b, b_rest), (c, c_rest)) =
        (a.split_at(axis, at[0]), b.split_at(axis, at[1]), c.split_at(axis, at[2]));
    ([a, b, c], [a_rest, b_rest, c_rest])
}

#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    slopes: Vec<f32>,
}

impl Part<'_> {
    fn run(mut self, span: Span, scratch: &mut Scratch) {
        let length = self.queries.nrows();
        for head in 0..self.queries.ncols() / span.head_dim {
            let columns = head * span.head_dim..(head + 1) * span.head_dim;
            for first in (0..length).step_by(TILE) {
                let rows = first..length.min(first + TILE);
                let oldest = span.window.map_or(0, |window| (first + 1).saturating_sub(window));
                self.tile(span, scratch, s![rows.clone(), columns.clone()], (first, oldest..rows.end));
            }
        }
    }

    /// Some query rows of one head: `tile` in the arrays of queries, the first of them and the keys it may see.
    fn tile(
        &mut self,
        span: Span,
        scratch: &mut Scratch,
        tile: ndarray::SliceInfo<[ndarray::SliceInfoElem; 2], ndarray::Ix2, ndarray::Ix2>,
        (first, seen): (usize, std::ops::Range<usize>),
    ) {
        let (queries, gradient) = (self.queries.slice(tile), self.gradient.slice(tile));
        let (keys, values) = (self.keys.slice(s![seen.clone(), ..]), self.values.slice(s![seen.clone(), ..]));
        let (rows, width) = (queries.nrows(), keys.nrows());
        let mut sums = [0.0_f32; TILE];
        scratch.weights.resize(rows * width, 0.0);
        scratch.slopes.resize(rows * width, 0.0);
        let (weights, slopes) = (&mut scratch.weights[..], &mut scratch.slopes[..]);
        weigh(queries, keys, span, |row| first - seen.start + row, weights, &mut sums[..rows]);
        let Ok(of_weights) = ArrayViewMut2::from_shape((rows, width), &mut *slopes) else { return };
        gemm_sequential(1.0, gradient, values.t(), 0.0, of_weights);
        wide(
            #[inline(always)]
            || {
                for ((weights, slopes), sum) in
                    weights.chunks_exact_mut(width).zip(slopes.chunks_exact_mut(width)).zip(sums)
                {
                    let share = 1.0 / sum;
                    lanes::map_and_sum(weights, |weight| weight * share);
                    let mean = lanes::dot(weights, slopes);
                    for (slope, weight) in slopes.iter_mut().zip(weights.iter()) {
                        *slope = span.scale * *weight * (*slope - mean);
                    }
                }
            },
        );
        let view = |values| ArrayView2::from_shape((rows, width), values);
        let (Ok(weights), Ok(slopes)) = (view(&*weights), view(&*slopes)) else { return };
        gemm_sequential(1.0, weights.t(), gradient, 1.0, self.of_values.slice_mut(s![seen.clone(), ..]));
        gemm_sequential(1.0, slopes.t(), queries, 1.0, self.of_keys.slice_mut(s![seen, ..]));
        gemm_sequential(1.0, slopes, keys, 0.0, self.of_queries.slice_mut(tile));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Attended, attention, check_backward};

    #[test]
    fn agrees_with_finite_differences() {
        let layout = BatchLayout::new(&[70, 0, 1, 9]);
        let of = |columns: usize, seed: usize| {
            Array2::from_shape_fn((80, columns), |(i, j)| ((i * 31 + j * 17 + seed * 13) % 29) as f32 / 15.0 - 1.0)
        };
        let (queries, keys, values) = (of(12, 1), of(6, 2), of(6, 3));
        for window in [None, Some(5)] {
            let span = Span { kv_heads: 2, head_dim: 3, window, scale: 0.8 };
            let forward = |queries: &Array2<f32>, keys: &Array2<f32>, values: &Array2<f32>| {
                let sequences: Vec<_> = (0..layout.sequences())
                    .map(|sequence| layout.rows(sequence))
                    .map(|rows| Attended {
                        length: rows.len(),
                        keys: keys.slice(s![rows.clone(), ..]),
                        values: values.slice(s![rows, ..]),
                    })
                    .collect();
                let mut output = Array2::zeros(queries.dim());
                attention(queries.view(), &sequences, span, output.view_mut());
                output
            };
            let backward = |which: usize, x: [&Array2<f32>; 3], gradient: &mut Array2<f32>| {
                let found = attention_backward(x, &layout, span, gradient);
                let mut found = Vec::from(found);
                *gradient = found.swap_remove(which);
            };
            check_backward(&queries, |x| forward(x, &keys, &values), |x, g| backward(0, [x, &keys, &values], g));
            check_backward(&keys, |x| forward(&queries, x, &values), |x, g| backward(1, [&queries, x, &values], g));
            check_backward(&values, |x| forward(&queries, &keys, x), |x, g| backward(2, [&queries, &keys, x], g));
        }
    }
}
