use crate::band::{Block, Matrices};
use crate::{ColumnOrder, CompressError, Grid, InverseFactor, Mask, Result, Rounding, Selection};
use ndarray::{Array2, ArrayView2, s};
use std::borrow::Cow;
use std::ops::Range;

/// Columns whose updates are gathered before they reach the rest of the matrix as one product ("lazy batch"), the
/// value of the reference implementations.
const BLOCK_COLUMNS: usize = 128;
/// Columns whose updates are gathered a second time: what lies far behind is read and written seldom.
const PANEL_COLUMNS: usize = 512;

/// The column loop.
///
/// For column `j`, with `w'` what the plugs make of `w`:
///
/// ```text
/// e           = (w[:, j] - w'[:, j]) / U[j, j]
/// w[:, j+1:] -= e · U[j, j+1:]
/// ```
///
/// so every error, of removing and of rounding alike, is compensated by the columns still to come (Frantar & Alistarh
/// 2023, arXiv:2301.00774; Frantar et al. 2022, arXiv:2210.17323). Errors reach columns inside the current block at
/// once and the columns behind it as matrix products, those far behind for several blocks together. Blocks never cut a pattern in two, and a group only if it is
/// larger than a block: then its grid is fitted where it begins, on values that every column before it has updated.
///
/// Cost: `out · in²` multiply-adds; memory: codes and mask (3 bytes a weight) beside the weight. Same bits for any
/// number of threads. See the [crate example](crate).
#[derive(Debug, Clone, Copy)]
pub struct ColumnSweep<'a> {
    factor: &'a InverseFactor,
    block_columns: usize,
}

/// What a sweep leaves. Input channels are in their own order.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// The new weight, `[out, in]`.
    pub weight: Array2<f32>,
    /// What was kept; none under [`Selection::All`].
    pub mask: Option<Mask>,
    /// Codes, `[out, in]`, signed under [`Rounding::Steps`]; empty under [`Rounding::None`].
    pub codes: Array2<i16>,
    /// Grids, `[out, groups]`; empty under [`Rounding::None`].
    pub grids: Array2<Grid>,
}

impl<'a> ColumnSweep<'a> {
    /// A sweep over the columns of `factor`.
    pub fn new(factor: &'a InverseFactor) -> Self {
        Self { factor, block_columns: BLOCK_COLUMNS }
    }

    /// Gathers updates over this many columns (at least 1). [`Selection::PerBlock`] rules choose inside such a block,
    /// so for them it changes the result.
    pub fn block_columns(mut self, columns: usize) -> Self {
        self.block_columns = columns.max(1);
        self
    }

    /// Sweeps `weight`, `[out, in]`. Columns are visited in the order of the factor; everything that goes in and comes out
    /// has its input channels in their own order.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the factor, a fixed mask or static grids do not fit the weight;
    /// [`CompressError::Indivisible`] if a [`RowRule`](crate::RowRule)'s columns do not divide the width;
    /// [`CompressError::Conflict`] for act-order with a [`RowRule`](crate::RowRule) or with grids that are fitted while
    /// the sweep goes on, both of which need neighbouring channels.
    pub fn run(&self, weight: Array2<f32>, selection: &Selection<'_>, rounding: &Rounding<'_>) -> Result<Swept> {
        self.check(&weight, selection, rounding)?;
        let Some(order) = self.factor.order() else { return Ok(self.run_in_order(weight, selection, rounding)) };
        let permuted = match selection {
            Selection::Fixed(mask) => Selection::Fixed(Cow::Owned(Mask::new(order.permute_columns(mask.view())))),
            other => other.clone(),
        };
        let swept = self.run_in_order(order.permute_columns(weight.view()), &permuted, rounding);
        Ok(Swept {
            weight: order.restore_columns(swept.weight.view()),
            mask: swept.mask.map(|mask| Mask::new(order.restore_columns(mask.view()))),
            codes: if swept.codes.is_empty() { swept.codes } else { order.restore_columns(swept.codes.view()) },
            grids: swept.grids,
        })
    }

    /// The sweep, over a weight and a mask whose columns are in the order of the factor.
    fn run_in_order(&self, weight: Array2<f32>, selection: &Selection<'_>, rounding: &Rounding<'_>) -> Swept {
        // Rows are swept as slices; a permuted or transposed matrix is laid out row by row first.
        let mut weight = if weight.is_standard_layout() { weight } else { weight.as_standard_layout().into_owned() };
        let (rows, width) = weight.dim();
        let mut kept = match selection {
            Selection::Fixed(mask) => mask.view().as_standard_layout().into_owned(),
            _ => Array2::from_elem((rows, width), true),
        };
        let rounds = !matches!(rounding, Rounding::None);
        let mut codes = Array2::<i16>::zeros(if rounds { (rows, width) } else { (rows, 1) });
        let mut grids = match rounding {
            Rounding::Static { grids, .. } => grids.as_standard_layout().into_owned(),
            _ => Array2::from_elem((rows, rounding.groups(width).max(1)), Grid { scale: 1.0, zero: 0 }),
        };
        let channel_of = channels_of(width, self.factor.order());
        let group_size = rounding.group_size();
        if rows > 0 && width > 0 {
            for blocks in panels(self.blocks(width, selection, rounding), rounding) {
                let (first, end) = (blocks[0].start, blocks[blocks.len() - 1].end);
                let mut errors = Array2::<f32>::zeros((rows, end - first));
                for columns in blocks {
                    if let Selection::PerBlock(rule) = selection {
                        rule.select(
                            columns.clone(),
                            weight.slice(s![.., columns.clone()]),
                            &self.factor.diagonal()[columns.clone()],
                            kept.slice_mut(s![.., columns.clone()]),
                        );
                    }
                    let group_of = channel_of[columns.clone()].iter().map(|channel| channel / group_size).collect();
                    let block = Block {
                        first: columns.start,
                        diagonal: self.factor.diagonal(),
                        upper: self.factor.rows_of_block(columns.clone()),
                        channel_of: &channel_of,
                        group_of,
                        selection,
                        rounding,
                    };
                    let matrices =
                        Matrices { weight: &mut weight, kept: &mut kept, codes: &mut codes, grids: &mut grids };
                    block.sweep(matrices, &mut errors, columns.start - first);
                    let of_block = errors.slice(s![.., columns.start - first..columns.end - first]);
                    self.spread(of_block, columns.clone(), columns.end..end, &mut weight);
                }
                self.spread(errors.view(), first..end, end..width, &mut weight);
            }
        }
        let mask = (!matches!(selection, Selection::All)).then(|| Mask::new(kept));
        if !rounds {
            // Scratch space, so that rows can be walked through together.
            (codes, grids) = (Array2::zeros((0, 0)), Array2::from_shape_fn((0, 0), |_| Grid { scale: 1.0, zero: 0 }));
        }
        Swept { weight, mask, codes, grids }
    }

    /// Compensates the errors of columns `from` in columns `to`.
    fn spread(&self, errors: ArrayView2<'_, f32>, from: Range<usize>, to: Range<usize>, weight: &mut Array2<f32>) {
        if let Some(spread) = self.factor.piece(from, to.clone()).filter(|_| !to.is_empty()) {
            sparq_linalg::gemm(-1.0, errors, spread, 1.0, weight.slice_mut(s![.., to]));
        }
    }

    fn check(&self, weight: &Array2<f32>, selection: &Selection<'_>, rounding: &Rounding<'_>) -> Result<()> {
        let (rows, width) = weight.dim();
        let shape = |what, got, expected| CompressError::check_shape("sweep", what, got, expected);
        let order = self.factor.width();
        shape("inverse factor", (order, order), (width, width))?;
        match selection {
            Selection::Fixed(mask) => shape("mask", mask.dim(), (rows, width))?,
            Selection::PerRow(rule) if rule.columns() == 0 || !width.is_multiple_of(rule.columns()) => {
                return Err(CompressError::Indivisible { layer: "sweep".to_owned(), width, of: rule.columns() });
            }
            _ => {}
        }
        if let Rounding::Dynamic { group_size: 0, .. } = rounding {
            let expected = "at least one column".into();
            return Err(CompressError::Setting { name: "group size", value: "0".to_owned(), expected });
        }
        if let Rounding::Static { grids, group_size, .. } = rounding {
            shape("static grids", grids.dim(), (rows, width.div_ceil((*group_size).max(1)).max(1)))?;
        }
        if let Rounding::Steps { rows: of_rows, columns, .. } = rounding {
            shape("factors of rows and steps of columns", (of_rows.len(), columns.len()), (rows, width))?;
        }
        let neighbours = match (selection, rounding) {
            (Selection::PerRow(_), _) => "an N:M pattern that is chosen along the sweep",
            (_, Rounding::Dynamic { .. }) => "grids that are fitted along the sweep",
            _ => return Ok(()),
        };
        match self.factor.order() {
            None => Ok(()),
            Some(_) => Err(CompressError::Conflict {
                first: "act-order".into(),
                second: neighbours.into(),
                reason:
                    "neighbouring channels are visited apart; choose the mask before the sweep, or leave act-order off"
                        .into(),
            }),
        }
    }

    /// Cuts the columns into blocks that hold whole groups and whole patterns (or lie inside one group).
    fn blocks(&self, width: usize, selection: &Selection<'_>, rounding: &Rounding<'_>) -> Vec<Range<usize>> {
        let pattern = match selection {
            Selection::PerRow(rule) => rule.columns().max(1),
            _ => 1,
        };
        let (group, stale) = match rounding {
            Rounding::Dynamic { group_size, stale, .. } => ((*group_size).clamp(1, width), *stale),
            _ => (1, false),
        };
        let of_patterns = (self.block_columns / pattern).max(1) * pattern;
        if stale {
            return cut(0..width, of_patterns);
        }
        if group > self.block_columns && group.is_multiple_of(pattern) {
            return cut(0..width, group).into_iter().flat_map(|columns| cut(columns, of_patterns)).collect();
        }
        let unit = least_common_multiple(group, pattern);
        cut(0..width, (self.block_columns / unit).max(1).saturating_mul(unit))
    }
}

/// Puts blocks together whose errors reach the columns behind them as one product. A group that is larger than a block is
/// fitted where it begins, so it lies in one panel; with stale grids every block is on its own.
fn panels(blocks: Vec<Range<usize>>, rounding: &Rounding<'_>) -> Vec<Vec<Range<usize>>> {
    let (group, is_stale) = match rounding {
        Rounding::Dynamic { group_size, stale, .. } => (*group_size, *stale),
        _ => (1, false),
    };
    let mut panels: Vec<Vec<Range<usize>>> = Vec::new();
    for block in blocks {
        match panels.last_mut() {
            Some(panel)
                if !is_stale
                    && (block.start - panel[0].start < PANEL_COLUMNS || !block.start.is_multiple_of(group)) =>
            {
                panel.push(block);
            }
            _ => panels.push(vec![block]),
        }
    }
    panels
}

/// The input channel of each column in the order of the sweep.
fn channels_of(width: usize, order: Option<&ColumnOrder>) -> Vec<usize> {
    order.map_or_else(|| (0..width).collect(), |order| order.columns().to_vec())
}

fn cut(columns: Range<usize>, length: usize) -> Vec<Range<usize>> {
    let end = columns.end;
    columns.step_by(length).map(|first| first..end.min(first.saturating_add(length))).collect()
}

fn least_common_multiple(x: usize, y: usize) -> usize {
    let (mut a, mut b) = (x, y);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (x / a.max(1)).saturating_mul(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated_hessian, random};
    use crate::{BlockRule, Curvature, Damping, GridFit, Hessian, RowRule};
    use ndarray::{Array1, ArrayViewMut2, Axis};
    use proptest::prelude::*;

    fn curvature(width: usize, seed: u64, damping: f64) -> Curvature {
        Curvature::new(correlated_hessian(width, seed)).with_damping(Damping::new(damping).expect("valid"))
    }

    /// A grid that spans the largest magnitude.
    #[derive(Debug)]
    struct AbsMax;

    impl GridFit for AbsMax {
        fn max_code(&self) -> u8 {
            15
        }
        fn fit(&self, values: &[f32], kept: &[bool]) -> Grid {
            let stays = |index: usize| kept.get(index).copied().unwrap_or(true);
            let max =
                values.iter().enumerate().filter(|(i, _)| stays(*i)).fold(0.0_f32, |max, (_, v)| max.max(v.abs()));
            Grid { scale: if max > 0.0 { max / 7.0 } else { 1.0 }, zero: 8 }
        }
    }

    /// Keeps the larger half of each pair.
    #[derive(Debug)]
    struct OneOfTwo;

    impl RowRule for OneOfTwo {
        fn columns(&self) -> usize {
            2
        }
        fn select(&self, values: &[f32], diagonal: &[f32], kept: &mut [bool]) {
            let first = (values[0] / diagonal[0]).abs() >= (values[1] / diagonal[1]).abs();
            kept.copy_from_slice(&[first, !first]);
        }
    }

    /// Removes values below a bound.
    #[derive(Debug)]
    struct Below(f32);

    impl BlockRule for Below {
        fn select(&self, _: Range<usize>, values: ArrayView2<'_, f32>, _: &[f32], mut kept: ArrayViewMut2<'_, bool>) {
            kept.zip_mut_with(&values, |kept, value| *kept = value.abs() >= self.0);
        }
    }

    /// The textbook form: eliminates one column of the inverse Hessian at a time, in f64, without blocks.
    fn textbook(
        weight: &Array2<f32>,
        hessian: &Hessian,
        damping: f64,
        mask: Option<&Mask>,
        scale: Option<f64>,
    ) -> Array2<f64> {
        let Hessian::Full { matrix, .. } = hessian else { panic!("a full Hessian is needed") };
        let n = matrix.nrows();
        let mean = matrix.diag().iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
        let mut h = matrix.mapv(f64::from);
        for i in 0..n {
            h[[i, i]] += damping * mean;
        }
        let mut inverse = invert(&h);
        let mut w = weight.mapv(f64::from);
        for j in 0..n {
            for r in 0..w.nrows() {
                let kept = mask.is_none_or(|mask| mask.view()[[r, j]]);
                let new = match (kept, scale) {
                    (false, _) => 0.0,
                    (true, None) => w[[r, j]],
                    (true, Some(scale)) => scale * (w[[r, j]] / scale).round_ties_even().clamp(-8.0, 7.0),
                };
                let delta = (w[[r, j]] - new) / inverse[[j, j]];
                for k in j..n {
                    w[[r, k]] -= delta * inverse[[j, k]];
                }
                w[[r, j]] = new;
            }
            let pivot = inverse[[j, j]];
            let row: Array1<f64> = inverse.row(j).to_owned();
            for a in 0..n {
                for b in 0..n {
                    inverse[[a, b]] -= row[a] * row[b] / pivot;
                }
            }
        }
        w
    }

    fn invert(matrix: &Array2<f64>) -> Array2<f64> {
        let n = matrix.nrows();
        let (mut a, mut inverse) = (matrix.clone(), Array2::<f64>::eye(n));
        for i in 0..n {
            let pivot = a[[i, i]];
            a.row_mut(i).mapv_inplace(|v| v / pivot);
            inverse.row_mut(i).mapv_inplace(|v| v / pivot);
            for r in (0..n).filter(|&r| r != i) {
                let factor = a[[r, i]];
                let (row, inverse_row) = (a.row(i).to_owned(), inverse.row(i).to_owned());
                a.row_mut(r).scaled_add(-factor, &row);
                inverse.row_mut(r).scaled_add(-factor, &inverse_row);
            }
        }
        inverse
    }

    #[test]
    fn agrees_with_the_textbook_elimination() {
        let (weight, curvature) = (random(5, 150, 1), curvature(150, 2, 0.05));
        let mask = Mask::new(random(5, 150, 3).mapv(|value| value > 0.0));
        let sweep = ColumnSweep::new(curvature.factor());
        let swept = sweep.run(weight.clone(), &Selection::of_mask(Some(&mask)), &Rounding::None).expect("fits");
        let expected = textbook(&weight, curvature.hessian(), 0.05, Some(&mask), None);
        for (x, y) in swept.weight.iter().zip(&expected) {
            assert!((f64::from(*x) - y).abs() < 2e-3 * (1.0 + y.abs()), "{x} {y}");
        }
        let grids = Array2::from_elem((5, 1), Grid { scale: 0.25, zero: 8 });
        let rounding = Rounding::Static { grids: &grids, group_size: 150, max_code: 15 };
        let swept = sweep.run(weight.clone(), &Selection::All, &rounding).expect("fits");
        let expected = textbook(&weight, curvature.hessian(), 0.05, None, Some(0.25));
        let same = swept.weight.iter().zip(&expected).filter(|(x, y)| (f64::from(**x) - **y).abs() < 1e-6).count();
        assert!(same * 100 >= swept.weight.len() * 99, "{same} of {}", swept.weight.len());
    }

    #[test]
    fn act_order_is_the_sweep_of_the_permuted_problem() {
        let (rows, width, group) = (7, 40, 8);
        let (weight, plain) = (random(rows, width, 1), curvature(width, 2, 0.05));
        let diagonal = plain.hessian().diagonal().expect("known");
        let order = ColumnOrder::by_activation(diagonal.view());
        // The oracle: everything is permuted by hand, and each column has a grid of its own.
        let Hessian::Full { matrix, tokens } = plain.hessian().clone() else { unreachable!() };
        let permuted = plain.with_hessian(Hessian::Full { matrix: order.permute_both(matrix.view()), tokens });
        let mask = Mask::new(random(rows, width, 3).mapv(|value| value > -0.5));
        let grids = random(rows, width / group, 4).mapv(|value| Grid { scale: 0.2 + 0.05 * value, zero: 8 });
        let of_columns = Array2::from_shape_fn((rows, width), |(row, at)| grids[[row, order.columns()[at] / group]]);
        let by_hand = ColumnSweep::new(permuted.factor())
            .run(
                order.permute_columns(weight.view()),
                &Selection::Fixed(Cow::Owned(Mask::new(order.permute_columns(mask.view())))),
                &Rounding::Static { grids: &of_columns, group_size: 1, max_code: 15 },
            )
            .expect("fits");
        let ordered = curvature(width, 2, 0.05).act_order(true);
        let rounding = Rounding::Static { grids: &grids, group_size: group, max_code: 15 };
        let swept = ColumnSweep::new(ordered.factor()).run(weight.clone(), &Selection::of_mask(Some(&mask)), &rounding);
        let swept = swept.expect("fits");
        assert_eq!(swept.weight, order.restore_columns(by_hand.weight.view()));
        assert_eq!(swept.mask.as_ref(), Some(&mask));
        let in_place =
            ColumnSweep::new(plain.factor()).run(weight, &Selection::of_mask(Some(&mask)), &rounding).expect("fits");
        assert_ne!(swept.weight, in_place.weight, "the order matters");
    }

    #[test]
    fn equal_steps_are_one_grid_without_an_end() {
        let (rows, width) = (9, 70);
        let weight = random(rows, width, 1);
        for order in [false, true] {
            let curvature = curvature(width, 2, 0.05).act_order(order);
            let sweep = ColumnSweep::new(curvature.factor());
            let grids = Array2::from_elem((rows, 1), Grid { scale: 0.125, zero: 128 });
            let rounding = Rounding::Static { grids: &grids, group_size: width, max_code: 255 };
            let on_grid = sweep.run(weight.clone(), &Selection::All, &rounding).expect("fits");
            let (factors, columns) = (vec![0.25; rows], vec![0.5; width]);
            let rounding = Rounding::Steps { rows: &factors, columns: &columns, lengths: None, price: 0.0 };
            let in_steps = sweep.run(weight.clone(), &Selection::All, &rounding).expect("fits");
            assert_eq!(in_steps.weight, on_grid.weight);
            assert_eq!(in_steps.codes, on_grid.codes.mapv(|code| code - 128));
        }
    }

    #[test]
    fn each_channel_has_its_own_step_in_any_order() {
        let (weight, curvature) = (random(4, 40, 1), curvature(40, 2, 0.05).act_order(true));
        let columns: Vec<f32> = (0..40).map(|column| 0.125 * (1 + column % 3) as f32).collect();
        let rounding = Rounding::Steps { rows: &[1.0; 4], columns: &columns, lengths: None, price: 0.0 };
        let swept = ColumnSweep::new(curvature.factor()).run(weight, &Selection::All, &rounding).expect("fits");
        for ((place, value), code) in swept.weight.indexed_iter().zip(&swept.codes) {
            assert_eq!(*value, columns[place.1] * f32::from(*code));
        }
    }

    #[test]
    fn the_sweep_beats_plain_rounding_on_its_tokens() {
        let (weight, curvature) = (random(8, 64, 5), curvature(64, 6, 0.01));
        let rounding = Rounding::Dynamic { fit: &AbsMax, group_size: 16, stale: false };
        let error = |factor: &InverseFactor| {
            let swept = ColumnSweep::new(factor).run(weight.clone(), &Selection::All, &rounding).expect("fits");
            crate::relative_output_error(weight.view(), swept.weight.view(), curvature.hessian())
        };
        let (compensated, plain) = (error(curvature.factor()), error(&InverseFactor::identity(64, None)));
        assert!(compensated < 0.8 * plain, "{compensated} {plain}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn codes_masks_and_weights_agree(
            rows in 1_usize..40, pairs in 1_usize..90, group in 1_usize..200, block in 1_usize..140, which in 0_usize..4, stale: bool, seed in 0_u64..50,
        ) {
            let width = 2 * pairs;
            let (weight, curvature) = (random(rows, width, seed), curvature(width, seed + 1, 0.1));
            let mask = Mask::new(random(rows, width, seed + 2).mapv(|value| value > 0.0));
            let below = Below(0.4);
            let selection = [
                Selection::All, Selection::of_mask(Some(&mask)), Selection::PerBlock(&below), Selection::PerRow(&OneOfTwo),
            ];
            let selection = &selection[which];
            let rounding = Rounding::Dynamic { fit: &AbsMax, group_size: group, stale };
            let sweep = ColumnSweep::new(curvature.factor()).block_columns(block);
            let swept = sweep.run(weight.clone(), selection, &rounding).expect("fits");
            let (codes, grids) = (&swept.codes, &swept.grids);
            for ((row, column), &value) in swept.weight.indexed_iter() {
                let grid = grids[[row, column / group]];
                prop_assert!((0..=15).contains(&codes[[row, column]]));
                prop_assert_eq!(value.to_bits(), grid.decode(codes[[row, column]] as u8).to_bits());
                if swept.mask.as_ref().is_some_and(|mask| !mask.view()[[row, column]]) {
                    prop_assert_eq!(value.to_bits(), 0);
                }
            }
            if which == 3 {
                let mask = swept.mask.clone().expect("selected");
                for row in mask.view().axis_iter(Axis(0)) {
                    for pair in row.exact_chunks(2) {
                        prop_assert_eq!(pair.iter().filter(|kept| **kept).count(), 1);
                    }
                }
            }
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a thread pool");
            let again = pool.install(|| sweep.run(weight, selection, &rounding)).expect("fits");
            prop_assert_eq!(swept, again);
        }
    }

    #[test]
    fn blocks_hold_whole_groups_and_patterns_or_lie_inside_one_group() {
        #[derive(Debug)]
        struct Pattern(usize);
        impl RowRule for Pattern {
            fn columns(&self) -> usize {
                self.0
            }
            fn select(&self, _: &[f32], _: &[f32], _: &mut [bool]) {}
        }
        let factor = InverseFactor::identity(400, None);
        let ends = |pattern: usize, group_size: usize, stale: bool| -> Vec<usize> {
            let rule = Pattern(pattern);
            let rounding = Rounding::Dynamic { fit: &AbsMax, group_size, stale };
            let blocks = ColumnSweep::new(&factor).blocks(400, &Selection::PerRow(&rule), &rounding);
            assert!(blocks.windows(2).all(|pair| pair[0].end == pair[1].start), "{blocks:?}");
            blocks.iter().map(|columns| columns.end).collect()
        };
        let panels_of = |group_size, stale| {
            let rounding = Rounding::Dynamic { fit: &AbsMax, group_size, stale };
            let panels = panels((0..2400).step_by(100).map(|first| first..first + 100).collect(), &rounding);
            panels.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(panels_of(100, false), [6, 6, 6, 6], "no more blocks than it takes");
        assert_eq!(panels_of(800, false), [8, 8, 8], "a group is never cut");
        assert_eq!(panels_of(800, true), [1; 24]);
        assert_eq!(ends(4, 200, false), [128, 200, 328, 400], "groups larger than a block are cut inside");
        assert_eq!(ends(1, 128, false), [128, 256, 384, 400]);
        assert_eq!(ends(4, 48, false), [96, 192, 288, 384, 400], "two groups of 48");
        assert_eq!(ends(4, 6, false), [120, 240, 360, 400], "ten times what 4 and 6 have in common");
        assert_eq!(ends(16, 200, false), [400], "neither fits into the other");
        assert_eq!(ends(3, 200, true), [126, 252, 378, 400], "stale grids may be cut anywhere");
    }

    #[test]
    fn the_memory_layout_is_of_no_consequence() {
        let (weight, factor) = (random(5, 6, 1), InverseFactor::identity(6, None));
        let rounding = Rounding::Dynamic { fit: &AbsMax, group_size: 3, stale: false };
        let run = |weight| ColumnSweep::new(&factor).run(weight, &Selection::All, &rounding).expect("fits");
        let columns_first = weight.t().as_standard_layout().into_owned().reversed_axes();
        assert!(!columns_first.is_standard_layout());
        assert_eq!(run(columns_first), run(weight));
    }

    #[test]
    fn misfits_are_errors() {
        let factor = InverseFactor::identity(3, None);
        let sweep = ColumnSweep::new(&factor);
        let weight = Array2::zeros((2, 3));
        let small = Mask::all((2, 2));
        assert!(matches!(
            sweep.run(Array2::zeros((2, 4)), &Selection::All, &Rounding::None),
            Err(CompressError::Shape { what: "inverse factor", .. })
        ));
        assert!(sweep.run(weight.clone(), &Selection::of_mask(Some(&small)), &Rounding::None).is_err());
        assert!(matches!(
            sweep.run(weight.clone(), &Selection::PerRow(&OneOfTwo), &Rounding::None),
            Err(CompressError::Indivisible { width: 3, of: 2, .. })
        ));
        let empty = sweep.run(Array2::zeros((0, 3)), &Selection::All, &Rounding::None).expect("nothing to do");
        assert_eq!(empty.weight.dim(), (0, 3));
    }
}
