use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sparq_core::{Granularity, Grid, GridFit, GridLanes, Mask, QuantScheme};

/// How the range of a group is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Clip {
    /// Smallest to largest weight.
    #[default]
    MinMax,
    /// The shrunken range, of 80 from the full one down to 21 % of it, with the smallest squared rounding error.
    Mse,
}

/// Steps of the clip search and their spacing: the reference's `grid = 100`, `maxshrink = 0.8`.
const SHRINK_STEPS: usize = 80;
const SHRINK_GRID: f32 = 100.0;
/// Steps looked at at a time; divides their number.
const LANES: usize = 8;
/// Exponent of the error in the reference's clip search.
const REFERENCE_NORM: f32 = 2.4;

/// Finds grids according to a [`QuantScheme`] and a [`Clip`].
///
/// # Examples
/// ```
/// use sparq_core::{Bits, GridFit, QuantScheme, ScaleType};
/// use sparq_quant::{Clip, GridFinder};
/// let scheme = QuantScheme::new(Bits::B4).scale_type(ScaleType::F32);
/// let grid = GridFinder::new(scheme, Clip::MinMax).fit(&[0.5, 1.5], &[]);
/// assert_eq!((grid.scale, grid.zero), (0.2, 8)); // no negative weight: mirrored all the same
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridFinder {
    scheme: QuantScheme,
    clip: Clip,
    reference_compat: bool,
}

impl GridFinder {
    /// A finder for this scheme.
    pub fn new(scheme: QuantScheme, clip: Clip) -> Self {
        Self { scheme, clip, reference_compat: false }
    }

    /// Finds ranges in this way.
    pub fn clip(mut self, clip: Clip) -> Self {
        self.clip = clip;
        self
    }

    /// Reproduces the reference quantizer: a symmetric group without negative weights gets half the scale it needs, an
    /// empty group spans ±1, and the clip search weighs errors by their power 2.4.
    pub fn reference_compat(mut self, on: bool) -> Self {
        self.reference_compat = on;
        self
    }

    /// The scheme.
    pub fn scheme(&self) -> QuantScheme {
        self.scheme
    }

    /// Grids of every group of `weight`, `[out, groups]`; a per-tensor scheme repeats one. Weights that `mask` removes
    /// need not be represented.
    pub fn fit_all(&self, weight: ArrayView2<'_, f32>, mask: Option<&Mask>) -> Array2<Grid> {
        let (rows, width) = weight.dim();
        let weight = weight.as_standard_layout();
        let kept = mask.map(|mask| mask.view().as_standard_layout().into_owned());
        let values = weight.as_slice().unwrap_or_default();
        let stays = kept.as_ref().and_then(|kept| kept.as_slice()).unwrap_or_default();
        if self.scheme.granularity == Granularity::Tensor {
            return Array2::from_elem((rows, 1), self.fit(values, stays));
        }
        let (size, groups) = (self.scheme.granularity.size(width), self.scheme.granularity.groups(width));
        let mut grids = Array2::from_elem((rows, groups), Grid { scale: 1.0, zero: 0 });
        let per_row = grids.as_slice_mut().unwrap_or_default().par_chunks_mut(groups).enumerate();
        per_row.for_each(|(row, grids)| {
            for (group, grids) in grids.iter_mut().enumerate() {
                let columns = group * size..width.min((group + 1) * size);
                let within = row * width + columns.start..row * width + columns.end;
                *grids = self.fit(&values[within.clone()], stays.get(within).unwrap_or_default());
            }
            if self.scheme.scale_type.largest_multiple().is_some() {
                self.scheme.scale_type.round_row(grids);
            }
        });
        grids
    }

    /// Scale and zero point for the range `low..=high`, which contains 0.
    fn grid(&self, low: f32, high: f32) -> Grid {
        let bits = self.scheme.bits;
        let steps = f32::from(bits.max_code());
        if low == 0.0 && high == 0.0 {
            let scale = if self.reference_compat { 2.0 / steps } else { 1.0 };
            let zero = if self.scheme.symmetric || !self.reference_compat {
                bits.midpoint()
            } else {
                rounded_zero(-1.0, scale)
            };
            return Grid { scale, zero };
        }
        if self.scheme.symmetric {
            let reach = high.max(-low);
            let low = if self.reference_compat && low >= 0.0 { 0.0 } else { -reach };
            // Halves first: the difference of two huge weights must not overflow.
            let scale = self.scheme.scale_type.round((reach / steps) - (low / steps));
            return Grid { scale, zero: bits.midpoint() };
        }
        let scale = self.scheme.scale_type.round((high / steps) - (low / steps));
        Grid { scale, zero: rounded_zero(low, scale).min(bits.max_code()) }
    }

    /// The rounding error of `values` on each of these grids.
    fn errors<const N: usize>(&self, grids: &[Grid; N], values: &[f32]) -> [f32; N] {
        let grids = GridLanes::new(grids, self.max_code());
        pulp::Arch::new().dispatch(RoundingErrors { grids, values, power_of_reference: self.reference_compat })
    }
}

/// Sums of squared rounding errors. A sum waits for each of its terms, so those of several grids go side by side; each keeps
/// its order.
struct RoundingErrors<'a, const N: usize> {
    grids: GridLanes<N>,
    values: &'a [f32],
    power_of_reference: bool,
}

impl<const N: usize> pulp::NullaryFnOnce for RoundingErrors<'_, N> {
    type Output = [f32; N];

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        clippy::needless_range_loop,
        reason = "to be compiled to vectors, those dispatched to"
    )]
    fn call(self) -> [f32; N] {
        let mut sums = [0.0; N];
        for &value in self.values {
            let rounded = self.grids.round(value);
            for lane in 0..N {
                let difference = (value - rounded[lane]).abs();
                sums[lane] +=
                    if self.power_of_reference { difference.powf(REFERENCE_NORM) } else { difference * difference };
            }
        }
        sums
    }
}

fn rounded_zero(low: f32, scale: f32) -> u8 {
    (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8
}

impl GridFit for GridFinder {
    fn max_code(&self) -> u8 {
        self.scheme.bits.max_code()
    }

    fn fit(&self, values: &[f32], kept: &[bool]) -> Grid {
        let stays = |(index, value): (usize, &f32)| (kept.get(index) != Some(&false)).then_some(*value);
        let stay = values.iter().enumerate().filter_map(stays);
        let (low, high) = stay.clone().fold((0.0_f32, 0.0_f32), |(low, high), value| (low.min(value), high.max(value)));
        let full = self.grid(low, high);
        if self.clip == Clip::MinMax {
            return full;
        }
        let values: Vec<f32> = stay.collect();
        let (mut best, mut least) = (full, f32::INFINITY);
        for first in (0..SHRINK_STEPS).step_by(LANES) {
            let grids = std::array::from_fn::<_, LANES, _>(|lane| {
                let share = 1.0 - (first + lane) as f32 / SHRINK_GRID;
                self.grid(share * low, share * high)
            });
            for (grid, error) in grids.into_iter().zip(self.errors(&grids, &values)) {
                if error < least {
                    (best, least) = (grid, error);
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;
    use sparq_core::{Bits, ScaleType};

    fn scheme(bits: u8, symmetric: bool) -> QuantScheme {
        let scheme = QuantScheme::new(Bits::new(bits).expect("valid")).scale_type(ScaleType::F32);
        if symmetric { scheme } else { scheme.asymmetric() }
    }

    proptest! {
        #[test]
        fn every_value_is_within_a_step(
            values in proptest::collection::vec(-50.0_f32..50.0, 1..40), bits in 2_u8..=8, symmetric: bool,
        ) {
            let finder = GridFinder::new(scheme(bits, symmetric), Clip::MinMax);
            let grid = finder.fit(&values, &[]);
            prop_assert!(grid.scale > 0.0 && grid.zero <= finder.max_code());
            for value in values {
                let error = (value - grid.decode(grid.encode(value, finder.max_code()))).abs();
                // A symmetric grid reaches one half-step less far on the positive side than the largest magnitude,
                // and the asymmetric zero point is rounded by up to half a step.
                prop_assert!(error <= grid.scale * 1.001, "{} off by {} of {}", value, error, grid.scale);
            }
        }

        #[test]
        fn clipping_never_raises_the_squared_error(values in proptest::collection::vec(-5.0_f32..5.0, 1..40), symmetric: bool) {
            let error = |clip| {
                let finder = GridFinder::new(scheme(3, symmetric), clip);
                finder.errors(&[finder.fit(&values, &[])], &values)[0]
            };
            prop_assert!(error(Clip::Mse) <= error(Clip::MinMax) * 1.000_01);
        }

        #[test]
        fn the_clip_search_finds_what_looking_at_one_range_after_the_other_finds(
            values in proptest::collection::vec(-5.0_f32..5.0, 1..80), bits in 2_u8..=8, symmetric: bool, compat: bool,
        ) {
            let finder = GridFinder::new(scheme(bits, symmetric), Clip::Mse).reference_compat(compat);
            let low = values.iter().copied().fold(0.0, f32::min);
            let high = values.iter().copied().fold(0.0, f32::max);
            let (mut best, mut least) = (finder.grid(low, high), f32::INFINITY);
            for step in 0..80 {
                let share = 1.0 - step as f32 / 100.0;
                let grid = finder.grid(share * low, share * high);
                let rounded = |value: f32| grid.decode(grid.encode(value, finder.max_code()));
                let power = |difference: f32| if compat { difference.powf(2.4) } else { difference * difference };
                let error = values.iter().fold(0.0, |sum, &value| sum + power((value - rounded(value)).abs()));
                if error < least {
                    (best, least) = (grid, error);
                }
            }
            prop_assert_eq!(finder.fit(&values, &[]), best);
        }

        #[test]
        fn extreme_values_give_usable_grids(bits in proptest::collection::vec(any::<u32>(), 0..20), symmetric: bool, mse: bool) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| value.is_finite()).collect();
            let finder = GridFinder::new(
                scheme(4, symmetric).scale_type(ScaleType::F16), if mse { Clip::Mse } else { Clip::MinMax });
            let grid = finder.fit(&values, &[]);
            prop_assert!(grid.scale.is_finite() && grid.scale > 0.0 && grid.zero <= 15);
        }
    }

    #[test]
    fn grids_span_the_range_of_their_group() {
        let weight = array![[1.0_f32, -0.5, 3.0, -1.5, 0.25], [-2.0, 0.75, 0.5, 8.0, -1.0]];
        let mask = Mask::new(array![[true, true, true, false, true], [true, true, true, false, true]]);
        let check = |scheme: QuantScheme, mask, expected: &[[(f32, u8); 3]]| {
            let grids = GridFinder::new(scheme, Clip::MinMax).fit_all(weight.view(), mask);
            for (grids, expected) in grids.rows().into_iter().zip(expected) {
                for (grid, (range, zero)) in grids.iter().zip(expected) {
                    assert!((grid.scale * 15.0 - range).abs() < 1e-5 && grid.zero == *zero, "{grid:?} {range} {zero}");
                }
            }
            grids.ncols()
        };
        let grouped = scheme(4, false).group(2).expect("valid");
        let all = [[(1.5, 5), (4.5, 5), (0.25, 0)], [(2.75, 11), (8.0, 0), (1.0, 15)]];
        assert_eq!(check(grouped, None, &all), 3);
        let kept = [[(1.5, 5), (3.0, 0), (0.25, 0)], [(2.75, 11), (0.5, 0), (1.0, 15)]];
        assert_eq!(check(grouped, Some(&mask), &kept), 3);
        let symmetric = scheme(4, true);
        let all = [[(2.0, 8), (6.0, 8), (0.5, 8)], [(4.0, 8), (16.0, 8), (2.0, 8)]];
        assert_eq!(check(symmetric.group(2).expect("valid"), None, &all), 3);
        assert_eq!(check(symmetric.granularity(Granularity::Channel), None, &[[(6.0, 8); 3], [(16.0, 8); 3]]), 1);
        assert_eq!(check(symmetric.granularity(Granularity::Tensor), None, &[[(16.0, 8); 3]; 2]), 1);
    }

    #[test]
    fn a_group_of_zeros_has_a_grid_with_zero_on_it() {
        let zeros = |symmetric, compat, clip| {
            let finder = GridFinder::new(scheme(4, symmetric), clip).reference_compat(compat);
            finder.fit(&[0.0; 3], &[])
        };
        for clip in [Clip::MinMax, Clip::Mse] {
            assert_eq!(zeros(true, false, clip), Grid { scale: 1.0, zero: 8 });
            assert_eq!(zeros(false, false, clip), Grid { scale: 1.0, zero: 8 });
            // The reference takes the range from -1 to 1.
            assert_eq!(zeros(true, true, clip), Grid { scale: 2.0 / 15.0, zero: 8 });
            assert_eq!(zeros(false, true, clip), Grid { scale: 2.0 / 15.0, zero: 7 });
        }
    }

    #[test]
    fn weights_whose_errors_overflow_keep_their_range() {
        let [full, found] =
            [Clip::MinMax, Clip::Mse].map(|clip| GridFinder::new(scheme(2, true), clip).fit(&[1e30, -9e29, 5e29], &[]));
        assert_eq!(found, full);
    }

    #[test]
    fn removed_weights_do_not_stretch_the_range() {
        let finder = GridFinder::new(scheme(4, true), Clip::MinMax);
        assert_eq!(finder.fit(&[100.0, 1.5, -1.0], &[false, true, true]).scale, 0.2);
        assert_eq!(finder.fit(&[100.0], &[false]).scale, 1.0);
    }

    #[test]
    fn the_reference_halves_one_sided_groups_and_we_do_not() {
        let ours = GridFinder::new(scheme(4, true), Clip::MinMax);
        assert_eq!(ours.fit(&[0.0, 1.5], &[]).scale, 0.2);
        assert_eq!(ours.reference_compat(true).fit(&[0.0, 1.5], &[]).scale, 0.1);
    }
}
