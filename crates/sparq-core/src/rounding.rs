use crate::Grid;
use ndarray::Array2;
use sparq_coding::CodeLengths;
use std::fmt;

/// Finds the grid of one group of weights.
pub trait GridFit: fmt::Debug + Sync {
    /// The largest code.
    fn max_code(&self) -> u8;

    /// Scale and zero point for `values`. `kept[i] == false` says that weight `i` is (or is expected to be) removed
    /// and need not be represented; an empty `kept` means that all stay.
    fn fit(&self, values: &[f32], kept: &[bool]) -> Grid;
}

/// How the sweep rounds a kept weight.
#[derive(Debug, Clone, Copy)]
pub enum Rounding<'a> {
    /// Not at all.
    None,
    /// Grids known beforehand (static groups).
    Static {
        /// Scale and zero point of each group, `[out, groups]`.
        grids: &'a Array2<Grid>,
        /// Input channels in a group; the last one may be short.
        group_size: usize,
        /// The largest code.
        max_code: u8,
    },
    /// Grids fitted when the sweep reaches the first column of a group.
    Dynamic {
        /// Finds the grid.
        fit: &'a dyn GridFit,
        /// Input channels in a group; the last one may be short.
        group_size: usize,
        /// Fit on the values as they stood when the block began, as the reference implementations do. Only for
        /// reproducing them.
        stale: bool,
    },
    /// Codes without a width, in steps of columns. Errors come out in squared steps, and a bit costs `price` of them.
    Steps {
        /// Factor of each output channel, `[out]`.
        rows: &'a [f32],
        /// Step of each input channel, `[in]`, in their own order.
        columns: &'a [f32],
        /// How long codes are, by which columns.
        lengths: Option<&'a CodeLengths>,
        /// What a bit costs.
        price: f32,
    },
}

impl Rounding<'_> {
    pub(crate) fn groups(&self, width: usize) -> usize {
        match self {
            Self::None | Self::Steps { .. } => 0,
            Self::Static { grids, .. } => grids.ncols(),
            Self::Dynamic { .. } => width.div_ceil(self.group_size()),
        }
    }

    /// Input channels that share a grid; at least 1.
    pub(crate) fn group_size(&self) -> usize {
        match self {
            Self::None | Self::Steps { .. } => 1,
            Self::Static { group_size, .. } | Self::Dynamic { group_size, .. } => (*group_size).max(1),
        }
    }

    pub(crate) fn max_code(&self) -> u8 {
        match self {
            Self::None | Self::Steps { .. } => 0,
            Self::Static { max_code, .. } => *max_code,
            Self::Dynamic { fit, .. } => fit.max_code(),
        }
    }
}
