//! A block of columns, swept for bands of rows that lie side by side in the lanes of vectors.

use crate::{Grid, GridLanes, Rounding, Selection, Stepped, stepped};
use ndarray::Array2;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a band.
const ROWS: usize = 16;

/// One value for each row of a band.
type Lanes<T> = [T; ROWS];

/// One block of columns and the plugs.
pub(crate) struct Block<'a> {
    /// The first of its columns.
    pub(crate) first: usize,
    /// `U[j, j]` of all columns.
    pub(crate) diagonal: &'a [f32],
    /// Rows of `U` inside the block; none if only the diagonal is known.
    pub(crate) upper: Vec<&'a [f32]>,
    /// Input channel of each column.
    pub(crate) channel_of: &'a [usize],
    /// Group of each column of the block.
    pub(crate) group_of: Vec<usize>,
    pub(crate) selection: &'a Selection<'a>,
    pub(crate) rounding: &'a Rounding<'a>,
}

/// What a sweep changes, row-major.
pub(crate) struct Matrices<'a> {
    pub(crate) weight: &'a mut Array2<f32>,
    pub(crate) kept: &'a mut Array2<bool>,
    pub(crate) codes: &'a mut Array2<i16>,
    pub(crate) grids: &'a mut Array2<Grid>,
}

/// Some rows of everything.
struct Band<'a> {
    /// Index of the first row.
    first: usize,
    /// How many; the lanes behind them mean nothing.
    rows: usize,
    weight: &'a mut [f32],
    kept: &'a mut [bool],
    codes: &'a mut [i16],
    grids: &'a mut [Grid],
    errors: &'a mut [f32],
}

impl Band<'_> {
    /// Groups of a row.
    fn groups(&self) -> usize {
        self.grids.len() / self.rows.max(1)
    }
}

/// The block's part of a band, column by column.
struct Columns {
    weight: Vec<Lanes<f32>>,
    kept: Vec<Lanes<bool>>,
    codes: Vec<Lanes<i16>>,
    errors: Vec<Lanes<f32>>,
}

impl Block<'_> {
    /// Sweeps the block and leaves its errors, for the columns behind it, in `errors` from column `at` on.
    pub(crate) fn sweep(&self, matrices: Matrices<'_>, errors: &mut Array2<f32>, at: usize) {
        let panel = errors.ncols();
        let Matrices { weight, kept, codes, grids } = matrices;
        let bands =
            bands_of(weight).zip(bands_of(kept)).zip(bands_of(codes)).zip(bands_of(grids)).zip(bands_of(errors));
        bands.enumerate().for_each(|(band, ((((weight, kept), codes), grids), errors))| {
            let rows = errors.len() / panel.max(1);
            pulp::Arch::new().dispatch(Sweep {
                block: self,
                place: (panel, at),
                band: Band { first: band * ROWS, rows, weight, kept, codes, grids, errors },
            });
        });
    }
}

/// The sweep of one band, to be compiled to vectors.
struct Sweep<'a, 'b> {
    block: &'a Block<'a>,
    /// Columns of the errors, and which of them is the first of the block.
    place: (usize, usize),
    band: Band<'b>,
}

impl pulp::NullaryFnOnce for Sweep<'_, '_> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "to be compiled to vectors, those dispatched to")]
    fn call(self) {
        let Self { block, place: (panel, at), mut band } = self;
        let columns = block.group_of.len();
        let width = block.channel_of.len();
        let within = block.first..block.first + columns;
        if let Rounding::Dynamic { group_size, stale: true, .. } = block.rounding {
            for start in within.clone().filter(|column| column.is_multiple_of(*group_size)) {
                block.fit(&mut band, None, start..width.min(start + group_size), width);
            }
        }
        let mut swept = Columns {
            weight: to_lanes(band.weight, width, &within, 0.0),
            kept: to_lanes(band.kept, width, &within, true),
            codes: vec![[0; ROWS]; columns],
            errors: vec![[0.0; ROWS]; columns],
        };
        let mut grids: Option<(usize, GridLanes<ROWS>)> = None;
        let mut decided = match block.selection {
            Selection::PerRow(_) => block.first,
            _ => width,
        };
        for offset in 0..columns {
            let column = block.first + offset;
            if let Selection::PerRow(rule) = block.selection
                && column == decided
            {
                decided += rule.columns();
                block.select(&mut swept, offset..decided - block.first, band.rows);
            }
            let group = block.group_of[offset];
            if let Rounding::Dynamic { group_size, stale: false, .. } = block.rounding
                && column.is_multiple_of(*group_size)
            {
                block.fit(&mut band, Some((&swept, decided)), column..width.min(column + group_size), width);
            }
            if let Rounding::Static { .. } | Rounding::Dynamic { .. } = block.rounding
                && grids.is_none_or(|(current, _)| current != group)
            {
                grids = Some((group, block.lanes_of_group(&band, group)));
            }
            let value = swept.weight[offset];
            let of_group = grids.as_ref().map(|(_, lanes)| lanes);
            let (replaced, codes) = block.round(&value, &swept.kept[offset], column, of_group, band.first);
            let mut error = [0.0; ROWS];
            let diagonal = block.diagonal[column];
            for lane in 0..ROWS {
                error[lane] = (value[lane] - replaced[lane]) / diagonal;
            }
            swept.weight[offset] = replaced;
            swept.codes[offset] = codes;
            swept.errors[offset] = error;
            if let Some(spread) = block.upper.get(offset) {
                let rest = swept.weight[offset + 1..].iter_mut().zip(&spread[offset + 1..]);
                for (values, &spread) in rest {
                    // A copy, which nothing else can refer to, stays in registers.
                    let mut lanes = *values;
                    for lane in 0..ROWS {
                        lanes[lane] -= error[lane] * spread;
                    }
                    *values = lanes;
                }
            }
        }
        from_lanes(&swept.weight, band.weight, width, &within);
        from_lanes(&swept.kept, band.kept, width, &within);
        from_lanes(&swept.errors, band.errors, panel, &(at..at + columns));
        if !matches!(block.rounding, Rounding::None) {
            from_lanes(&swept.codes, band.codes, width, &within);
        }
    }
}

impl Block<'_> {
    /// What the weights of a column become, and their codes.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of `Sweep::call`")]
    fn round(
        &self,
        values: &Lanes<f32>,
        kept: &Lanes<bool>,
        column: usize,
        grids: Option<&GridLanes<ROWS>>,
        first_row: usize,
    ) -> (Lanes<f32>, Lanes<i16>) {
        let (mut replaced, mut codes) = ([0.0; ROWS], [0; ROWS]);
        match (self.rounding, grids) {
            (Rounding::Steps { rows, columns, lengths, price }, _) => {
                let channel = self.channel_of[column];
                let step = columns[channel];
                for (lane, factor) in rows[first_row..].iter().take(ROWS).enumerate().filter(|(lane, _)| kept[*lane]) {
                    codes[lane] = Stepped::choose(values[lane] / (factor * step), *price, *lengths, channel);
                    replaced[lane] = stepped::decode(codes[lane], *factor, step);
                }
            }
            (Rounding::Static { .. } | Rounding::Dynamic { .. }, Some(grids)) => {
                let (rounded, nearest) = grids.nearest(values);
                for lane in 0..ROWS {
                    replaced[lane] = if kept[lane] { rounded[lane] } else { 0.0 };
                    codes[lane] = if kept[lane] { nearest[lane] } else { grids.zero(lane) } as i16;
                }
            }
            _ => {
                for lane in 0..ROWS {
                    replaced[lane] = if kept[lane] { values[lane] } else { 0.0 };
                }
            }
        }
        (replaced, codes)
    }

    /// Lets the rule choose among some columns of the block, row by row.
    fn select(&self, swept: &mut Columns, columns: Range<usize>, rows: usize) {
        let Selection::PerRow(rule) = self.selection else { return };
        let diagonal = &self.diagonal[self.first + columns.start..self.first + columns.end];
        for lane in 0..rows {
            let values = lane_of(&swept.weight[columns.clone()], lane);
            let mut kept = lane_of(&swept.kept[columns.clone()], lane);
            rule.select(&values, diagonal, &mut kept);
            for (lanes, kept) in swept.kept[columns.clone()].iter_mut().zip(kept) {
                lanes[lane] = kept;
            }
        }
    }

    /// Fits the grid of the group with these `columns`, row by row, to the weights as they are: `swept` inside the block.
    /// Columns from `decided` on are expected to be kept as the rule would choose now. Without `swept` all count as kept.
    fn fit(&self, band: &mut Band<'_>, swept: Option<(&Columns, usize)>, columns: Range<usize>, width: usize) {
        let Rounding::Dynamic { fit, group_size, .. } = self.rounding else { return };
        let groups = band.groups();
        let inside = columns.start - self.first..columns.end.min(self.first + self.group_of.len()) - self.first;
        for lane in 0..band.rows {
            let of_row = lane * width + columns.start..lane * width + columns.end;
            let mut values = band.weight[of_row.clone()].to_vec();
            let mut expected = Vec::new();
            if let Some((swept, decided)) = swept {
                let swept_values = lane_of(&swept.weight[inside.clone()], lane);
                values[..inside.len()].copy_from_slice(&swept_values);
                if !matches!(self.selection, Selection::All) {
                    expected = band.kept[of_row].to_vec();
                    expected[..inside.len()].copy_from_slice(&lane_of(&swept.kept[inside.clone()], lane));
                }
                self.expect(&values, &mut expected, columns.clone(), decided);
            }
            band.grids[lane * groups + columns.start / group_size] = fit.fit(&values, &expected);
        }
    }

    /// Sets what the rule would keep now of what is not decided.
    fn expect(&self, values: &[f32], expected: &mut [bool], columns: Range<usize>, decided: usize) {
        let Selection::PerRow(rule) = self.selection else { return };
        let mut from = decided.max(columns.start);
        while from + rule.columns() <= columns.end {
            let next = from - columns.start..from - columns.start + rule.columns();
            let here = &mut expected[next.clone()];
            here.fill(true);
            rule.select(&values[next], &self.diagonal[from..from + rule.columns()], here);
            from += rule.columns();
        }
    }

    /// The grids of a group, row by row.
    fn lanes_of_group(&self, band: &Band<'_>, group: usize) -> GridLanes<ROWS> {
        let groups = band.groups();
        let grid = |lane| band.grids.get(lane * groups + group).copied().unwrap_or(Grid { scale: 1.0, zero: 0 });
        GridLanes::new(&std::array::from_fn(grid), self.rounding.max_code())
    }
}

/// Bands of the rows of a matrix.
fn bands_of<T: Send>(matrix: &mut Array2<T>) -> rayon::slice::ChunksMut<'_, T> {
    let width = matrix.ncols().max(1);
    matrix.as_slice_mut().unwrap_or_default().par_chunks_mut(width * ROWS)
}

/// One lane of some columns.
fn lane_of<T: Copy>(columns: &[Lanes<T>], lane: usize) -> Vec<T> {
    columns.iter().map(|lanes| lanes[lane]).collect()
}

/// Columns `within` of rows of this `width`, row by row, as lanes; `rest` where there is no row.
#[inline(always)]
#[allow(clippy::inline_always, reason = "part of `Sweep::call`")]
fn to_lanes<T: Copy>(rows: &[T], width: usize, within: &Range<usize>, rest: T) -> Vec<Lanes<T>> {
    let mut columns = vec![[rest; ROWS]; within.len()];
    for (lane, row) in rows.chunks_exact(width).enumerate() {
        for (lanes, value) in columns.iter_mut().zip(&row[within.clone()]) {
            lanes[lane] = *value;
        }
    }
    columns
}

/// Puts lanes back to where [`to_lanes`] has them from.
#[inline(always)]
#[allow(clippy::inline_always, reason = "part of `Sweep::call`")]
fn from_lanes<T: Copy>(columns: &[Lanes<T>], rows: &mut [T], width: usize, within: &Range<usize>) {
    for (lane, row) in rows.chunks_exact_mut(width).enumerate() {
        for (lanes, value) in columns.iter().zip(&mut row[within.clone()]) {
            *value = lanes[lane];
        }
    }
}
