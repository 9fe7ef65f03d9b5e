use ndarray::{ArrayView2, ArrayViewMut2};
use sparq_core::Mask;
use std::fmt;
use std::ops::Range;

/// Which weights the sweep keeps.
#[derive(Debug, Clone, Copy)]
pub enum Selection<'a> {
    /// All of them: the sweep only rounds.
    All,
    /// A mask from elsewhere. Removed weights still receive the compensation of earlier columns and pass it on.
    Fixed(&'a Mask),
    /// Chosen across all rows for one block of columns, when the sweep reaches it.
    PerBlock(&'a dyn BlockRule),
    /// Chosen inside each row for every few columns, when the sweep reaches them.
    PerRow(&'a dyn RowRule),
}

/// Chooses what stays across all rows of a block of columns.
pub trait BlockRule: fmt::Debug + Sync {
    /// Writes into `kept` (all `true` on entry, `[out, block]`) which of `values` (`[out, block]`, as updated so far)
    /// stay. `diagonal` is `U[j, j]` of the block's columns; `columns` says where the block stands in the sweep.
    fn select(
        &self,
        columns: Range<usize>,
        values: ArrayView2<'_, f32>,
        diagonal: &[f32],
        kept: ArrayViewMut2<'_, bool>,
    );
}

/// Chooses what stays among a few consecutive weights of one row.
pub trait RowRule: fmt::Debug + Sync {
    /// How many columns are chosen at a time.
    fn columns(&self) -> usize;

    /// Writes into `kept` (all `true` on entry) which of `values` stay; `diagonal` is `U[j, j]` of their columns.
    fn select(&self, values: &[f32], diagonal: &[f32], kept: &mut [bool]);
}
