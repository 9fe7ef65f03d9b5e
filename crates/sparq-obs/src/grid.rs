use ndarray::Array2;
use std::fmt;

/// Scale and zero point of one group.
///
/// # Examples
/// ```
/// let grid = sparq_obs::GroupParameters { scale: 0.5, zero: 8 };
/// assert_eq!(grid.encode(1.3, 15), 11);
/// assert_eq!(grid.decode(11), 1.5);
/// assert_eq!(grid.decode(grid.encode(0.0, 15)), 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupParameters {
    /// Step between neighbouring values; positive.
    pub scale: f32,
    /// The code that means 0.0.
    pub zero: u8,
}

/// Several grids side by side, one in each lane of a vector.
///
/// # Examples
/// ```
/// use sparq_obs::{GridLanes, GroupParameters};
/// let grids = [0.5, 0.4].map(|scale| GroupParameters { scale, zero: 8 });
/// assert_eq!(GridLanes::new(&grids, 15).round(1.3), grids.map(|grid| grid.round(1.3, 15)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridLanes<const N: usize> {
    scales: [f32; N],
    zeros: [f32; N],
    max_code: f32,
}

impl<const N: usize> GridLanes<N> {
    /// These grids, all with codes in `0..=max_code`.
    pub fn new(grids: &[GroupParameters; N], max_code: u8) -> Self {
        let (scales, zeros) = (grids.map(|grid| grid.scale), grids.map(|grid| f32::from(grid.zero)));
        Self { scales, zeros, max_code: f32::from(max_code) }
    }

    /// What `value` becomes on each: [`GroupParameters::round`].
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        clippy::needless_range_loop,
        reason = "to be compiled to vectors, those of the caller"
    )]
    pub fn round(&self, value: f32) -> [f32; N] {
        let mut rounded = [0.0; N];
        for lane in 0..N {
            rounded[lane] = round(value, self.scales[lane], self.zeros[lane], self.max_code);
        }
        rounded
    }
}

/// Adding and subtracting 1.5 · 2^23 rounds an `f32` of magnitude below 2^22 to the nearest whole number, halves to
/// even, in two instructions that vectorise on every x86-64 (`round_ties_even` is a library call without SSE4.1).
const ROUNDER: f32 = 12_582_912.0;

impl GroupParameters {
    /// The nearest code to `value`, in `0..=max_code`; halves go to the even step.
    #[inline]
    pub fn encode(self, value: f32, max_code: u8) -> u8 {
        self.nearest(value, max_code) as u8
    }

    /// What `value` becomes by way of its code: [`decode`](Self::decode) of [`encode`](Self::encode).
    ///
    /// ```
    /// let grid = sparq_obs::GroupParameters { scale: 0.5, zero: 8 };
    /// assert_eq!(grid.round(1.3, 15), grid.decode(grid.encode(1.3, 15)));
    /// ```
    #[inline]
    pub fn round(self, value: f32, max_code: u8) -> f32 {
        round(value, self.scale, f32::from(self.zero), f32::from(max_code))
    }

    /// The nearest code as a whole number.
    #[inline]
    fn nearest(self, value: f32, max_code: u8) -> f32 {
        nearest(value, self.scale, f32::from(self.zero), f32::from(max_code))
    }

    /// The value of a code.
    #[inline]
    pub fn decode(self, code: u8) -> f32 {
        self.scale * (f32::from(code) - f32::from(self.zero)) + 0.0
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "part of `GridLanes::round`")]
fn nearest(value: f32, scale: f32, zero: f32, max_code: f32) -> f32 {
    // Not `clamp`, whose check of its bounds keeps lanes from being computed side by side.
    let steps = (value / scale).max(-zero - 1.0).min(max_code - zero + 1.0);
    let steps = (steps + ROUNDER) - ROUNDER;
    (steps + zero).max(0.0).min(max_code)
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "part of `GridLanes::round`")]
fn round(value: f32, scale: f32, zero: f32, max_code: f32) -> f32 {
    scale * (nearest(value, scale, zero, max_code) - zero) + 0.0
}

/// Finds the grid of one group of weights.
pub trait GridFit: fmt::Debug + Sync {
    /// The largest code.
    fn max_code(&self) -> u8;

    /// Scale and zero point for `values`. `kept[i] == false` says that weight `i` is (or is expected to be) removed
    /// and need not be represented; an empty `kept` means that all stay.
    fn fit(&self, values: &[f32], kept: &[bool]) -> GroupParameters;
}

/// How the sweep rounds a kept weight.
#[derive(Debug, Clone, Copy)]
pub enum Rounding<'a> {
    /// Not at all.
    None,
    /// Grids known beforehand (static groups).
    Static {
        /// Scale and zero point of each group, `[out, groups]`.
        parameters: &'a Array2<GroupParameters>,
        /// Group of each column in the order of the sweep, `[in]`.
        group_of: &'a [usize],
        /// The largest code.
        max_code: u8,
    },
    /// Grids fitted when the sweep reaches the first column of a group.
    Dynamic {
        /// Finds the grid.
        fit: &'a dyn GridFit,
        /// Columns in a group; the last one may be short.
        group_size: usize,
        /// Fit on the values as they stood when the block began, as the reference implementations do. Only for
        /// reproducing them.
        stale: bool,
    },
}

impl Rounding<'_> {
    pub(crate) fn groups(&self, width: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Static { parameters, .. } => parameters.ncols(),
            Self::Dynamic { group_size, .. } => width.div_ceil((*group_size).max(1)),
        }
    }

    pub(crate) fn max_code(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Static { max_code, .. } => *max_code,
            Self::Dynamic { fit, .. } => fit.max_code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encode_is_the_nearest_code(value in -100.0_f32..100.0, scale in 0.01_f32..10.0, zero in 0_u8..=15) {
            let grid = GroupParameters { scale, zero };
            let code = grid.encode(value, 15);
            let expected = ((value / scale).round_ties_even() + f32::from(zero)).clamp(0.0, 15.0) as u8;
            prop_assert_eq!(code, expected);
        }

        #[test]
        fn any_bits_give_a_code_in_range(bits: u32, scale in 1e-30_f32..1e30, zero in 0_u8..=255) {
            let grid = GroupParameters { scale, zero };
            prop_assert!(grid.encode(f32::from_bits(bits), 7) <= 7);
            prop_assert_eq!(grid.decode(zero).to_bits(), 0);
        }
    }
}
