use crate::{CompressError, Grid, Result};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bits per code, 2 to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Bits(u8);

impl Bits {
    /// Two bits.
    pub const B2: Bits = Bits(2);
    /// Three bits.
    pub const B3: Bits = Bits(3);
    /// Four bits.
    pub const B4: Bits = Bits(4);
    /// Eight bits.
    pub const B8: Bits = Bits(8);

    /// # Errors
    /// [`CompressError::Setting`] outside 2..=8.
    pub fn new(bits: u8) -> Result<Self> {
        if (2..=8).contains(&bits) {
            Ok(Self(bits))
        } else {
            Err(CompressError::Setting {
                name: "bits",
                value: bits.to_string(),
                expected: "2 to 8 bits per weight".into(),
            })
        }
    }

    /// The number of bits.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Number of codes, `2^bits`.
    pub fn levels(self) -> u32 {
        1 << self.0
    }

    /// The largest code, `2^bits - 1`. Codes are unsigned: `0..=max_code`.
    pub fn max_code(self) -> u8 {
        ((1_u16 << self.0) - 1) as u8
    }

    /// The zero point of a symmetric grid, `2^(bits-1)`.
    pub fn midpoint(self) -> u8 {
        1 << (self.0 - 1)
    }
}

impl TryFrom<u8> for Bits {
    type Error = CompressError;
    fn try_from(bits: u8) -> Result<Self> {
        Self::new(bits)
    }
}

impl From<Bits> for u8 {
    fn from(bits: Bits) -> Self {
        bits.0
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many weights share one scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Granularity {
    /// The whole matrix.
    Tensor,
    /// One output channel (a row).
    Channel,
    /// This many consecutive input channels of a row; the last group of a row may be short.
    Group(usize),
}

impl Granularity {
    /// Number of groups in a row of `width` input channels.
    pub fn groups(self, width: usize) -> usize {
        width.div_ceil(self.size(width)).max(1)
    }

    /// Input channels in a full group of a row of `width` channels; at least 1.
    pub fn size(self, width: usize) -> usize {
        match self {
            Self::Tensor | Self::Channel => width,
            Self::Group(size) => size.min(width),
        }
        .max(1)
    }
}

impl fmt::Display for Granularity {
    /// The size of a group, `channel` or `tensor`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor => f.write_str("tensor"),
            Self::Channel => f.write_str("channel"),
            Self::Group(size) => size.fmt(f),
        }
    }
}

impl FromStr for Granularity {
    type Err = CompressError;

    fn from_str(text: &str) -> Result<Self> {
        let expected = "a number of input channels, channel (which others write as -1) or tensor";
        match text {
            "tensor" => Ok(Self::Tensor),
            "channel" => Ok(Self::Channel),
            size => match size.parse() {
                Ok(size) if size > 0 => Ok(Self::Group(size)),
                _ => Err(CompressError::Setting { name: "group size", value: size.into(), expected: expected.into() }),
            },
        }
    }
}

/// The number type scales are stored in. A scale is rounded to it **before** codes are chosen, so that the file gives
/// back exactly what the solver saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ScaleType {
    /// IEEE half precision, 16 bits.
    #[default]
    F16,
    /// bfloat16, 16 bits.
    Bf16,
    /// Single precision, 32 bits: nothing is rounded.
    F32,
    /// 6 bits, times a half that [16 groups](ScaleType::SHARED_BY) of a row share, as in ggml's `Q3_K`.
    #[serde(rename = "6bit")]
    SixBit,
    /// 8 bits, times a half that 16 groups of a row share, as in ggml's `Q6_K`.
    #[serde(rename = "8bit")]
    EightBit,
}

impl ScaleType {
    /// Groups whose scales are whole multiples of one factor, of the types that have such.
    pub const SHARED_BY: usize = 16;

    /// Rounds a positive scale to this type, never to zero or infinity. Among the subnormal halves, which are coarse, it
    /// rounds up: a scale that is a little too large costs resolution, one that is too small cuts off the largest weights.
    /// Types whose scales have a factor in common round [rows](Self::round_row) alone; here they leave scales as they are.
    ///
    /// ```
    /// use sparq_core::ScaleType;
    /// assert_eq!(ScaleType::F16.round(0.1), 0.099975586);
    /// assert_eq!(ScaleType::F16.round(1e-5), 168.0 * 2f32.powi(-24));
    /// assert_eq!(ScaleType::F16.round(1e-30), 2f32.powi(-24));
    /// assert_eq!(ScaleType::F16.round(1e30), 65504.0);
    /// ```
    pub fn round(self, scale: f32) -> f32 {
        let (least, most) = self.range();
        let scale = scale.clamp(least, most);
        match self {
            Self::F16 if scale < f16::MIN_POSITIVE.to_f32() => (scale / least).ceil() * least,
            Self::F16 => f16::from_f32(scale).to_f32(),
            Self::Bf16 => bf16::from_f32(scale).to_f32(),
            Self::F32 | Self::SixBit | Self::EightBit => scale,
        }
    }

    /// The largest multiple of the factor that scales have in common; none for types without one.
    pub fn largest_multiple(self) -> Option<u8> {
        match self {
            Self::F16 | Self::Bf16 | Self::F32 => None,
            Self::SixBit => Some(31),
            Self::EightBit => Some(127),
        }
    }

    /// Rounds the positive scales of a row's groups to this type. Where 16 of them have a factor in common, it is such that
    /// the largest scale is its largest multiple.
    ///
    /// ```
    /// use sparq_core::{Grid, ScaleType};
    /// let mut grids = [3.1, 1.04].map(|scale| Grid { scale, zero: 4 });
    /// ScaleType::SixBit.round_row(&mut grids);
    /// assert_eq!(grids.map(|grid| grid.scale), [31.0 * 0.099975586, 10.0 * 0.099975586]);
    /// ```
    pub fn round_row(self, grids: &mut [Grid]) {
        for grids in grids.chunks_mut(Self::SHARED_BY) {
            let shared = self.largest_multiple().map(|most| {
                let largest = grids.iter().map(|grid| grid.scale).fold(0.0, f32::max);
                (Self::F16.round(largest / f32::from(most)), most)
            });
            for Grid { scale, .. } in grids {
                *scale =
                    shared.map_or_else(|| self.round(*scale), |(factor, most)| nearest_multiple(*scale, factor, most));
            }
        }
    }

    /// Rounds a scale that is to take the place of one of `beside`, the scales of a row in this type, whose factor stays.
    pub(crate) fn round_beside(self, scale: f32, beside: &[Grid], at: usize) -> f32 {
        let Some(most) = self.largest_multiple() else { return self.round(scale) };
        let sharing = beside.chunks(Self::SHARED_BY).nth(at / Self::SHARED_BY).unwrap_or_default();
        self.factored(sharing).map_or(scale, |(factor, _)| nearest_multiple(scale, factor, most))
    }

    /// The factor that the scales of up to 16 grids have in common, and which multiple of it each is. None if no factor in half
    /// precision gives these scales exactly, or the type has no such factor.
    ///
    /// ```
    /// use sparq_core::{Grid, ScaleType};
    /// let grids = [7.5, 2.5].map(|scale| Grid { scale, zero: 4 });
    /// assert_eq!(ScaleType::SixBit.factored(&grids), Some((0.25, vec![30, 10])));
    /// assert_eq!(ScaleType::F16.factored(&grids), None);
    /// ```
    pub fn factored(self, grids: &[Grid]) -> Option<(f32, Vec<u8>)> {
        let largest = grids.iter().map(|grid| grid.scale).fold(0.0, f32::max);
        (1..=self.largest_multiple()?).rev().find_map(|most| {
            let factor = Self::F16.round(largest / f32::from(most));
            let multiple = |&Grid { scale, .. }: &Grid| {
                let multiple = (scale / factor).round_ties_even();
                (multiple >= 1.0 && multiple <= f32::from(most) && multiple * factor == scale).then_some(multiple as u8)
            };
            Some((factor, grids.iter().map(multiple).collect::<Option<Vec<u8>>>()?))
        })
    }

    /// The smallest and the largest scale that [`round`](Self::round) gives.
    pub fn range(self) -> (f32, f32) {
        match self {
            Self::F16 => (f16::MIN_POSITIVE_SUBNORMAL.to_f32(), f16::MAX.to_f32()),
            Self::Bf16 => (bf16::MIN_POSITIVE.to_f32(), bf16::MAX.to_f32()),
            Self::F32 => (f32::MIN_POSITIVE, f32::MAX),
            Self::SixBit | Self::EightBit => {
                let (least, most) = Self::F16.range();
                (least, most * f32::from(self.largest_multiple().unwrap_or(1)))
            }
        }
    }

    /// Bits of storage, with the share of a factor that a scale has in common with others.
    pub fn bits(self) -> u32 {
        match self {
            Self::SixBit => 6 + 1,
            Self::EightBit => 8 + 1,
            Self::F16 | Self::Bf16 => 16,
            Self::F32 => 32,
        }
    }
}

/// The nearest multiple of a factor, from once to `most` times.
fn nearest_multiple(scale: f32, factor: f32, most: u8) -> f32 {
    (scale / factor).round_ties_even().clamp(1.0, f32::from(most)) * factor
}

/// The grid weights are rounded to.
///
/// Values are `scale · (code - zero)`, codes `0..=2^bits - 1`. A **symmetric** grid has `zero = 2^(bits-1)` and
/// `scale = max|w| / ((2^bits - 1) / 2)`, always mirrored, so `-max|w|` is met within half a step and `+max|w|` falls
/// one step short of it at most. An **asymmetric** grid spans `[min(w, 0), max(w, 0)]` and its zero point is a code, so
/// `0.0` is on every grid and a pruned weight stays exactly zero.
///
/// # Examples
/// ```
/// use sparq_core::{Bits, Granularity, QuantScheme};
/// let scheme = QuantScheme::new(Bits::B4).group(128)?.asymmetric();
/// assert_eq!(scheme.granularity, Granularity::Group(128));
/// assert_eq!(scheme.stored_bits_per_weight(4096, 4096), 4.0 + (16.0 + 4.0) / 128.0);
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QuantScheme {
    /// Bits per code.
    pub bits: Bits,
    /// Who shares a scale.
    pub granularity: Granularity,
    /// Whether the zero point is fixed in the middle.
    pub symmetric: bool,
    /// Storage type of scales.
    pub scale_type: ScaleType,
}

impl QuantScheme {
    /// Symmetric, one scale for each output channel, scales in `f16`.
    pub fn new(bits: Bits) -> Self {
        Self { bits, granularity: Granularity::Channel, symmetric: true, scale_type: ScaleType::F16 }
    }

    /// The grid of ggml's block types: groups of 32 with scales in `f16` (`Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0`); at 3 and 6
    /// bits, symmetric, groups of 16 with scales that have a factor in common (`Q3_K`, `Q6_K`).
    ///
    /// ```
    /// use sparq_core::{Bits, QuantScheme};
    /// let bits = |bits| QuantScheme::of_ggml(bits, true).stored_bits_per_weight(1, 256);
    /// assert_eq!([bits(Bits::B3), bits(Bits::B4), bits(Bits::new(6)?)], [3.4375, 4.5, 6.5625]);
    /// # Ok::<(), sparq_core::CompressError>(())
    /// ```
    pub fn of_ggml(bits: Bits, symmetric: bool) -> Self {
        let (group, scale_type) = match (bits.get(), symmetric) {
            (3, true) => (16, ScaleType::SixBit),
            (6, true) => (16, ScaleType::EightBit),
            _ => (32, ScaleType::F16),
        };
        Self { bits, granularity: Granularity::Group(group), symmetric, scale_type }
    }

    /// One scale for each `size` input channels of a row.
    ///
    /// # Errors
    /// [`CompressError::Setting`] if `size` is 0.
    pub fn group(mut self, size: usize) -> Result<Self> {
        if size == 0 {
            return Err(CompressError::Setting {
                name: "group size",
                value: "0".into(),
                expected: "at least 1".into(),
            });
        }
        self.granularity = Granularity::Group(size);
        Ok(self)
    }

    /// With this granularity.
    pub fn granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// With a zero point for each group.
    pub fn asymmetric(mut self) -> Self {
        self.symmetric = false;
        self
    }

    /// With scales stored in `scale_type`.
    pub fn scale_type(mut self, scale_type: ScaleType) -> Self {
        self.scale_type = scale_type;
        self
    }

    /// Mean bits stored for each weight of an `[out, in]` layer: codes, scales, and zero points if asymmetric. Masks
    /// cost nothing, since a removed weight is a code that means 0.0.
    pub fn stored_bits_per_weight(&self, rows: usize, width: usize) -> f64 {
        if rows == 0 || width == 0 {
            return 0.0;
        }
        let parameters = match self.granularity {
            Granularity::Tensor => 1,
            _ => rows * self.granularity.groups(width),
        };
        let zero_bits = if self.symmetric { 0 } else { u32::from(self.bits.get()) };
        f64::from(self.bits.get())
            + parameters as f64 * f64::from(self.scale_type.bits() + zero_bits) / (rows * width) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_checked() {
        assert!(Bits::new(1).is_err() && Bits::new(9).is_err());
        assert_eq!((Bits::B8.max_code(), Bits::B8.midpoint()), (255, 128));
        assert_eq!(serde_json::from_str::<Bits>("3").ok(), Some(Bits::B3));
        assert!(serde_json::from_str::<Bits>("12").is_err());
    }

    #[test]
    fn small_scales_become_subnormal_halves_rounded_up() {
        let least = 2f32.powi(-24);
        for factor in [1.0f32, 1.2, 2.5, 33.1, 1023.7] {
            let rounded = ScaleType::F16.round(factor * least);
            assert_eq!(f16::from_f32(rounded).to_f32(), rounded, "a half holds it");
            assert_eq!(rounded, factor.ceil() * least);
        }
        assert_eq!(ScaleType::F16.round(least / 3.0), least);
        assert_eq!(ScaleType::F16.range().0, least);
    }

    #[test]
    fn scales_with_a_common_factor_are_its_multiples() {
        let grids = |scales: &[f32]| -> Vec<Grid> { scales.iter().map(|&scale| Grid { scale, zero: 4 }).collect() };
        for kind in [ScaleType::SixBit, ScaleType::EightBit] {
            let before: Vec<f32> = (0..40).map(|at| 1e-3 * (1.0 + (at * 7 % 19) as f32)).collect();
            let mut rounded = grids(&before);
            kind.round_row(&mut rounded);
            for (after, before) in rounded.chunks(16).zip(before.chunks(16)) {
                let (factor, multiples) = kind.factored(after).expect("rounded");
                let after: Vec<f32> = after.iter().map(|grid| grid.scale).collect();
                assert_eq!(multiples.iter().max(), kind.largest_multiple().as_ref());
                let again: Vec<f32> = multiples.iter().map(|&multiple| f32::from(multiple) * factor).collect();
                assert_eq!(again, after);
                let within = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.51 * factor;
                assert!(after.iter().zip(before).all(within), "{kind:?}");
            }
        }
        // Also where the largest has become smaller, and where the factor is among the smallest halves.
        assert_eq!(ScaleType::SixBit.factored(&grids(&[9.0 * 0.75, 4.0 * 0.75])).map(|found| found.1[0] % 9), Some(0));
        let mut tiny = grids(&[1e-9, 1e-12]);
        ScaleType::SixBit.round_row(&mut tiny);
        assert_eq!(ScaleType::SixBit.factored(&tiny), Some((2f32.powi(-24), vec![1, 1])));
        assert_eq!(ScaleType::SixBit.factored(&grids(&[1.0, 0.1234])), None);
    }

    #[test]
    fn a_short_last_group_counts() {
        assert_eq!(Granularity::Group(64).groups(172), 3);
        assert_eq!(Granularity::Group(64).groups(0), 1);
        assert_eq!(Granularity::Group(512).size(172), 172);
        for text in ["64", "channel", "tensor"] {
            assert_eq!(text.parse::<Granularity>().expect("valid").to_string(), text);
        }
        assert!("0".parse::<Granularity>().is_err() && "row".parse::<Granularity>().is_err());
    }
}
