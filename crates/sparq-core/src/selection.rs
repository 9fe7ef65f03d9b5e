use crate::Mask;
use ndarray::{ArrayView2, ArrayViewMut2};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Which weights stay: chosen beforehand, or by a rule while the column sweep goes on.
#[derive(Debug, Clone)]
pub enum Selection<'a> {
    /// All of them.
    All,
    /// A mask from elsewhere. Removed weights still receive the compensation of earlier columns and pass it on.
    Fixed(Cow<'a, Mask>),
    /// Chosen across all rows for one block of columns, when the sweep reaches it.
    PerBlock(&'a dyn BlockRule),
    /// Chosen inside each row for every few columns, when the sweep reaches them.
    PerRow(&'a dyn RowRule),
}

impl<'a> Selection<'a> {
    /// What `mask` keeps; everything without one.
    pub fn of_mask(mask: Option<&'a Mask>) -> Self {
        mask.map_or(Self::All, |mask| Self::Fixed(Cow::Borrowed(mask)))
    }
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
