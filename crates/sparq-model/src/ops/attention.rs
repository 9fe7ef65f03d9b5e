use super::{exp, lanes, wide};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use sparq_linalg::gemm_sequential;

/// Query rows one task handles. Its scores, `[TILE, keys]`, stay in the second-level cache up to some thousand keys.
pub(super) const TILE: usize = 64;

/// What the queries of one sequence attend to.
#[derive(Debug)]
pub(crate) struct Attended<'a> {
    /// Number of query rows of this sequence, which follow those of the sequence before.
    pub(crate) length: usize,
    /// `[earlier positions + length, kv_heads * head_dim]`.
    pub(crate) keys: ArrayView2<'a, f32>,
    /// As `keys`.
    pub(crate) values: ArrayView2<'a, f32>,
}

/// Span and the range of attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// How many of the latest positions (itself included) a query sees.
    pub(crate) window: Option<usize>,
    /// Factor on the scores.
    pub(crate) scale: f32,
}

/// One task: some query rows of one sequence, in the heads that share one key head.
struct Tile<'q, 'k, 'o> {
    /// `[rows, group * head_dim]`, as is `output`.
    queries: ArrayView2<'q, f32>,
    /// `[keys, head_dim]`: only those some query of the tile may see.
    keys: ArrayView2<'k, f32>,
    values: ArrayView2<'k, f32>,
    /// Index into `keys` of the first query's own position.
    position: usize,
    output: ArrayViewMut2<'o, f32>,
}

/// Causal grouped-query attention over concatenated sequences.
///
/// `queries` is `[tokens, heads * head_dim]`, as is `output`, which is overwritten. Each task takes a few query rows of
/// one sequence and one key head: never do more scores exist than those of one tile per thread.
pub(crate) fn attention(
    queries: ArrayView2<'_, f32>,
    sequences: &[Attended<'_>],
    span: Span,
    output: ArrayViewMut2<'_, f32>,
) {
    let group_width = queries.ncols() / span.kv_heads;
    let mut tiles = Vec::new();
    let mut rest = output;
    let mut row = 0;
    for sequence in sequences {
        let start = sequence.keys.nrows() - sequence.length;
        for first in (0..sequence.length).step_by(TILE) {
            let rows = TILE.min(sequence.length - first);
            let position = start + first;
            let oldest = span.window.map_or(0, |window| (position + 1).saturating_sub(window));
            let seen = oldest..position + rows;
            let (mut columns_left, after) = rest.split_at(Axis(0), rows);
            rest = after;
            for head in 0..span.kv_heads {
                let (output, after) = columns_left.split_at(Axis(1), group_width);
                columns_left = after;
                let columns = head * span.head_dim..(head + 1) * span.head_dim;
                tiles.push(Tile {
                    queries: queries.slice_move(s![row..row + rows, head * group_width..(head + 1) * group_width]),
                    keys: sequence.keys.slice_move(s![seen.clone(), columns.clone()]),
                    values: sequence.values.slice_move(s![seen.clone(), columns]),
                    position: position - oldest,
                    output,
                });
            }
            row += rows;
        }
    }
    tiles.into_par_iter().for_each_init(Vec::new, |scratch, tile| tile.run(span, scratch));
}

impl Tile<'_, '_, '_> {
    fn run(mut self, span: Span, scratch: &mut Vec<f32>) {
        let (rows, keys) = (self.queries.nrows(), self.keys.nrows());
        let group = self.queries.ncols() / span.head_dim;
        let needed = rows.max(group) * keys;
        if scratch.len() < needed {
            scratch.resize(needed, 0.0);
        }
        if rows == 1 {
            // Decoding: the heads of the group stand in for the rows of a tile, so that keys are read once.
            let by_head = (group, span.head_dim);
            let Ok(queries) = self.queries.to_shape(by_head) else { return };
            let mut output = Array2::zeros(by_head);
            attend(queries.view(), self.keys, self.values, span, |_| self.position, scratch, output.view_mut());
            for (to, from) in self.output.iter_mut().zip(&output) {
                *to = *from;
            }
            return;
        }
        for head in 0..group {
            let columns = s![.., head * span.head_dim..(head + 1) * span.head_dim];
            let position = |row| self.position + row;
            let output = self.output.slice_mut(columns);
            attend(self.queries.slice(columns), self.keys, self.values, span, position, scratch, output);
        }
    }
}

/// Softmax attention of `queries`, `[rows, head_dim]`, where row `r` sees keys up to `position(r)`.
fn attend(
    queries: ArrayView2<'_, f32>,
    keys: ArrayView2<'_, f32>,
    values: ArrayView2<'_, f32>,
    span: Span,
    position: impl Fn(usize) -> usize,
    scratch: &mut [f32],
    mut output: ArrayViewMut2<'_, f32>,
) {
    let (rows, width) = (queries.nrows(), keys.nrows());
    let scores = &mut scratch[..rows * width];
    let mut sums = [0.0_f32; TILE];
    let mut many_sums = Vec::new(); // more than TILE rows only for a group of more than TILE heads
    let sums = if rows <= TILE {
        &mut sums[..rows]
    } else {
        many_sums.resize(rows, 0.0);
        &mut many_sums[..]
    };
    weigh(queries, keys, span, position, scores, sums);
    let Ok(weights) = ArrayView2::from_shape((rows, width), &*scores) else { return };
    gemm_sequential(1.0, weights, values, 0.0, output.view_mut());
    wide(
        #[inline(always)]
        || {
            for (mut row, sum) in output.rows_mut().into_iter().zip(sums) {
                let scale = 1.0 / *sum;
                for value in row.as_slice_mut().unwrap_or(&mut []) {
                    *value *= scale;
                }
            }
        },
    );
}

/// The weights with which queries, `[rows, head_dim]`, take the values of keys, `[keys, head_dim]`, where row `r` sees keys
/// up to `position(r)`: `weights`, `[rows, keys]`, are to be divided by the row's sum.
pub(super) fn weigh(
    queries: ArrayView2<'_, f32>,
    keys: ArrayView2<'_, f32>,
    span: Span,
    position: impl Fn(usize) -> usize,
    weights: &mut [f32],
    sums: &mut [f32],
) {
    let width = keys.nrows();
    let Ok(scores) = ArrayViewMut2::from_shape((queries.nrows(), width), &mut *weights) else { return };
    gemm_sequential(span.scale, queries, keys.t(), 0.0, scores);
    wide(
        #[inline(always)]
        || {
            for (row, (scores, sum)) in weights.chunks_exact_mut(width).zip(sums.iter_mut()).enumerate() {
                let end = position(row) + 1;
                let begin = span.window.map_or(0, |window| end.saturating_sub(window));
                scores[..begin].fill(0.0);
                scores[end..].fill(0.0);
                let seen = &mut scores[begin..end];
                let largest = lanes::max(seen);
                *sum = lanes::map_and_sum(seen, |score| exp(score - largest));
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pseudo_random(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
        let mut state = seed.wrapping_mul(2654435761).wrapping_add(12345);
        Array2::from_shape_fn((rows, columns), |_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    }

    fn slow(q: &Array2<f32>, k: &Array2<f32>, v: &Array2<f32>, span: Span) -> Array2<f32> {
        let start = k.nrows() - q.nrows();
        let group = q.ncols() / span.head_dim / span.kv_heads;
        Array2::from_shape_fn(q.dim(), |(i, column)| {
            let (head, component) = (column / span.head_dim, column % span.head_dim);
            let kv = head / group * span.head_dim;
            let at = start + i;
            let begin = span.window.map_or(0, |w| (at + 1).saturating_sub(w));
            let score = |j: usize| -> f64 {
                (0..span.head_dim)
                    .map(|c| f64::from(q[[i, head * span.head_dim + c]]) * f64::from(k[[j, kv + c]]))
                    .sum::<f64>()
                    * f64::from(span.scale)
            };
            let weights: Vec<f64> = (begin..=at).map(|j| score(j).exp()).collect();
            let total: f64 = weights.iter().sum();
            let sum: f64 =
                weights.iter().zip(begin..).map(|(w, j)| w / total * f64::from(v[[j, kv + component]])).sum();
            sum as f32
        })
    }

    #[test]
    fn agrees_with_a_plain_loop() {
        for (lengths, starts, window) in [
            (vec![150, 1, 0, 64, 65], vec![0, 0, 0, 0, 0], None),
            (vec![150, 70], vec![0, 0], Some(20)),
            (vec![1, 1, 3], vec![100, 0, 70], None),
            (vec![1, 5], vec![100, 80], Some(7)),
        ] {
            let span = Span { kv_heads: 2, head_dim: 8, window, scale: 1.7 };
            let total: usize = lengths.iter().sum();
            let queries = pseudo_random(total, 2 * 3 * 8, 1);
            let context: Vec<_> = lengths
                .iter()
                .zip(&starts)
                .map(|(length, start)| (pseudo_random(length + start, 16, 2), pseudo_random(length + start, 16, 3)))
                .collect();
            let sequences: Vec<_> = lengths
                .iter()
                .zip(&context)
                .map(|(length, (keys, values))| Attended { length: *length, keys: keys.view(), values: values.view() })
                .collect();
            let mut got = Array2::from_elem(queries.dim(), f32::NAN);
            attention(queries.view(), &sequences, span, got.view_mut());
            let mut row = 0;
            for (length, (keys, values)) in lengths.iter().zip(&context) {
                let rows = s![row..row + length, ..];
                let expected = slow(&queries.slice(rows).to_owned(), keys, values, span);
                for (g, e) in got.slice(rows).iter().zip(&expected) {
                    assert!((g - e).abs() < 2e-6, "{g} {e}");
                }
                row += length;
            }
        }
    }
}
