use crate::{Fallback, Granularity, Mask, QuantScheme};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, Zip};

/// Scale and zero point of one group.
///
/// # Examples
/// ```
/// let grid = sparq_core::Grid { scale: 0.5, zero: 8 };
/// assert_eq!(grid.encode(1.3, 15), 11);
/// assert_eq!(grid.decode(11), 1.5);
/// assert_eq!(grid.decode(grid.encode(0.0, 15)), 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Step between neighbouring values; positive.
    pub scale: f32,
    /// The code that means 0.0.
    pub zero: u8,
}

/// Several grids side by side, one in each lane of a vector.
///
/// # Examples
/// ```
/// use sparq_core::{GridLanes, Grid};
/// let grids = [0.5, 0.4].map(|scale| Grid { scale, zero: 8 });
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
    pub fn new(grids: &[Grid; N], max_code: u8) -> Self {
        let (scales, zeros) = (grids.map(|grid| grid.scale), grids.map(|grid| f32::from(grid.zero)));
        Self { scales, zeros, max_code: f32::from(max_code) }
    }

    /// What each lane's value becomes on its grid, and its code: [`Grid::round`] and [`Grid::encode`].
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        clippy::needless_range_loop,
        reason = "to be compiled to vectors, those of the caller"
    )]
    pub(crate) fn nearest(&self, values: &[f32; N]) -> ([f32; N], [f32; N]) {
        let (mut rounded, mut codes) = ([0.0; N], [0.0; N]);
        for lane in 0..N {
            codes[lane] = nearest(values[lane], self.scales[lane], self.zeros[lane], self.max_code);
            rounded[lane] = value_of(codes[lane], self.scales[lane], self.zeros[lane]);
        }
        (rounded, codes)
    }

    /// The code that means 0.0 in a lane.
    #[inline]
    pub(crate) fn zero(&self, lane: usize) -> f32 {
        self.zeros[lane]
    }

    /// What `value` becomes on each: [`Grid::round`].
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

impl Grid {
    /// The nearest code to `value`, in `0..=max_code`; halves go to the even step.
    #[inline]
    pub fn encode(self, value: f32, max_code: u8) -> u8 {
        self.nearest(value, max_code) as u8
    }

    /// What `value` becomes by way of its code: [`decode`](Self::decode) of [`encode`](Self::encode).
    ///
    /// ```
    /// let grid = sparq_core::Grid { scale: 0.5, zero: 8 };
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
        value_of(code.into(), self.scale, self.zero.into())
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
    value_of(nearest(value, scale, zero, max_code), scale, zero)
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "part of `GridLanes::round`")]
fn value_of(code: f32, scale: f32, zero: f32) -> f32 {
    scale * (code - zero) + 0.0
}

/// The integer form of a quantized layer. It travels as such to the file; the dense weight is derived from it.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Bits, Grid, QuantScheme, Quantized};
/// let q = Quantized {
///     scheme: QuantScheme::new(Bits::B4),
///     codes: array![[8, 15, 0]],
///     grids: array![[Grid { scale: 0.5, zero: 8 }]],
/// };
/// assert_eq!(q.dequantize(), array![[0.0, 3.5, -4.0]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// The grid.
    pub scheme: QuantScheme,
    /// Unsigned codes, `[out, in]`, each `0..=max_code`.
    pub codes: Array2<u8>,
    /// Scale and zero point of each group, `[out, groups]`. Scales are positive and already rounded to the scheme's
    /// storage type. Per-tensor schemes repeat the one grid.
    pub grids: Array2<Grid>,
}

impl Quantized {
    /// What of this grid is worth a line in the report: scales at the ends of their type's range, and groups of which
    /// `mask` keeps nothing.
    ///
    /// ```
    /// use ndarray::array;
    /// use sparq_core::{Bits, Fallback, Grid, Mask, QuantScheme, Quantized};
    /// let layer = Quantized {
    ///     scheme: QuantScheme::new(Bits::B4).group(1)?,
    ///     codes: array![[15, 8]],
    ///     grids: array![[Grid { scale: 65504.0, zero: 8 }, Grid { scale: 1.0, zero: 8 }]],
    /// };
    /// let mask = Mask::new(array![[true, false]]);
    /// let remarks = layer.remarks(Some(&mask));
    /// assert_eq!(remarks, [Fallback::ClampedScales { count: 1 }, Fallback::EmptyGroups { count: 1 }]);
    /// # Ok::<(), sparq_core::CompressError>(())
    /// ```
    pub fn remarks(&self, mask: Option<&Mask>) -> Vec<Fallback> {
        let (least, most) = self.scheme.scale_type.range();
        let is_clamped = |grid: &&Grid| grid.scale <= least || grid.scale >= most;
        let (clamped, empty) = if self.scheme.granularity == Granularity::Tensor {
            // One scale, repeated for every row.
            let is_empty = mask.is_some_and(|mask| !mask.view().is_empty() && mask.kept() == 0);
            (self.grids.iter().take(1).filter(is_clamped).count(), usize::from(is_empty))
        } else {
            (self.grids.iter().filter(is_clamped).count(), mask.map_or(0, |mask| self.empty_groups(mask)))
        };
        let mut remarks = Vec::new();
        if clamped > 0 {
            remarks.push(Fallback::ClampedScales { count: clamped });
        }
        if empty > 0 {
            remarks.push(Fallback::EmptyGroups { count: empty });
        }
        remarks
    }

    fn empty_groups(&self, mask: &Mask) -> usize {
        let size = self.group_size();
        let groups = |row: ArrayView1<'_, bool>| {
            row.axis_chunks_iter(Axis(0), size).filter(|group| group.iter().all(|kept| !kept)).count()
        };
        mask.view().outer_iter().map(groups).sum()
    }

    /// `scale · (code - zero)` for every weight, `[out, in]`. Exact zeros are `+0.0`.
    pub fn dequantize(&self) -> Array2<f32> {
        let (size, mut weight) = (self.group_size(), Array2::zeros(self.codes.dim()));
        let rows = weight.outer_iter_mut().zip(self.codes.outer_iter()).zip(self.grids.outer_iter());
        for ((mut row, codes), grids) in rows {
            let groups = row.axis_chunks_iter_mut(Axis(0), size).zip(codes.axis_chunks_iter(Axis(0), size)).zip(grids);
            for ((mut values, codes), grid) in groups {
                Zip::from(&mut values).and(codes).for_each(|value, &code| *value = grid.decode(code));
            }
        }
        weight
    }

    /// Which weights are not exactly zero, `[out, in]`.
    pub fn nonzero(&self) -> Mask {
        let size = self.group_size();
        let stays = |(row, column): (usize, usize)| self.codes[[row, column]] != self.grids[[row, column / size]].zero;
        Mask::new(Array2::from_shape_fn(self.codes.dim(), stays))
    }

    /// Input channels that share a grid; at least 1.
    pub fn group_size(&self) -> usize {
        self.scheme.granularity.size(self.codes.ncols())
    }

    /// Steps from zero, `code - zero`, `[out, in]`: what a coded file holds.
    pub fn steps(&self) -> Array2<i16> {
        let size = self.group_size();
        Array2::from_shape_fn(self.codes.dim(), |(row, column)| {
            i16::from(self.codes[[row, column]]) - i16::from(self.grids[[row, column / size]].zero)
        })
    }

    /// Bits that the layer takes in a coded file: codes with their tables, scales and zero points.
    pub fn coded_bits(&self) -> u64 {
        let (rows, width) = self.codes.dim();
        let fixed = self.scheme.stored_bits_per_weight(rows, width) - f64::from(self.scheme.bits.get());
        crate::stepped::coded_bits(self.steps().view()) + (fixed * (rows * width) as f64).round() as u64
    }

    /// Grids from scales and zero points as files store them, both `[out, groups]`; none if their shapes differ.
    ///
    /// ```
    /// use ndarray::array;
    /// use sparq_core::{Grid, Quantized};
    /// let grids = Quantized::grids_of(array![[0.5]].view(), array![[8]].view());
    /// assert_eq!(grids, Some(array![[Grid { scale: 0.5, zero: 8 }]]));
    /// ```
    pub fn grids_of(scales: ArrayView2<'_, f32>, zeros: ArrayView2<'_, u8>) -> Option<Array2<Grid>> {
        let grid = |&scale: &f32, &zero: &u8| Grid { scale, zero };
        (scales.dim() == zeros.dim()).then(|| Zip::from(scales).and(zeros).map_collect(grid))
    }

    /// The scales, `[out, groups]`, as files store them.
    pub fn scales(&self) -> Array2<f32> {
        self.grids.mapv(|grid| grid.scale)
    }

    /// The zero points as unsigned codes, `[out, groups]`, as files store them.
    pub fn zeros(&self) -> Array2<u8> {
        self.grids.mapv(|grid| grid.zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bits;
    use ndarray::array;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encode_is_the_nearest_code(value in -100.0_f32..100.0, scale in 0.01_f32..10.0, zero in 0_u8..=15) {
            let grid = Grid { scale, zero };
            let code = grid.encode(value, 15);
            let expected = ((value / scale).round_ties_even() + f32::from(zero)).clamp(0.0, 15.0) as u8;
            prop_assert_eq!(code, expected);
        }

        #[test]
        fn any_bits_give_a_code_in_range(bits: u32, scale in 1e-30_f32..1e30, zero in 0_u8..=255) {
            let grid = Grid { scale, zero };
            prop_assert!(grid.encode(f32::from_bits(bits), 7) <= 7);
            prop_assert_eq!(grid.decode(zero).to_bits(), 0);
        }
    }

    #[test]
    fn a_short_last_group_has_a_grid_of_its_own() {
        let quantized = Quantized {
            scheme: QuantScheme::new(Bits::B2).group(2).expect("valid"),
            codes: array![[0, 3, 2], [2, 1, 1]],
            grids: array![
                [Grid { scale: 1.0, zero: 2 }, Grid { scale: 4.0, zero: 1 }],
                [Grid { scale: 0.5, zero: 2 }, Grid { scale: 1.0, zero: 1 }]
            ],
        };
        assert_eq!(quantized.dequantize(), array![[-2.0, 1.0, 4.0], [0.0, -0.5, 0.0]]);
        assert_eq!(quantized.nonzero(), Mask::from_nonzero(quantized.dequantize().view()));
        assert_eq!(quantized.scales(), array![[1.0, 4.0], [0.5, 1.0]]);
        assert_eq!(quantized.zeros(), array![[2, 1], [2, 1]]);
    }
}
