use crate::{CompressError, Mask, QuantScheme, Quantized, Result};
use half::bf16;
use ndarray::{Array2, ArrayView2, Axis, Zip};
use serde::{Deserialize, Serialize};
use sparq_coding::CodeLengths;

/// The largest magnitude of a code.
const MOST: f32 = 32_767.0;
/// Bits in which a row's factor and a column's step are stored.
const FACTOR_BITS: usize = 16;

/// The integer form of a layer whose codes have no fixed width: `rows[i] · (columns[j] · code)`.
///
/// Every input channel has a step, every output channel a factor on it. Codes are signed, 0 is the weight 0. A file holds
/// them entropy-coded (docs/coding.md), so that a code that occurs often takes few bits.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::Stepped;
/// let layer = Stepped { codes: array![[2, 0], [-1, 1]], rows: vec![1.0, 0.5], columns: vec![0.25, 4.0] };
/// assert_eq!(layer.dequantize(), array![[0.5, 0.0], [-0.125, 2.0]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Stepped {
    /// Signed codes, `[out, in]`.
    pub codes: Array2<i16>,
    /// Factor of each output channel, `[out]`; bfloat16.
    pub rows: Vec<f32>,
    /// Step of each input channel, `[in]`; positive bfloat16.
    pub columns: Vec<f32>,
}

impl Stepped {
    /// The value of every weight, `[out, in]`. Zeros are `+0.0`.
    pub fn dequantize(&self) -> Array2<f32> {
        let mut weight = Array2::zeros(self.codes.dim());
        for ((mut values, codes), factor) in weight.outer_iter_mut().zip(self.codes.outer_iter()).zip(&self.rows) {
            Zip::from(&mut values)
                .and(codes)
                .and(&ndarray::aview1(&self.columns))
                .for_each(|value, &code, &step| *value = decode(code, *factor, step));
        }
        weight
    }

    /// Which weights are not exactly zero, `[out, in]`.
    pub fn nonzero(&self) -> Mask {
        Mask::new(self.codes.mapv(|code| code != 0))
    }

    /// The next number that a file can hold as a factor or a step; a step is positive and stays so.
    pub fn storable(value: f32) -> f32 {
        bf16::from_f32(value).to_f32().clamp(bf16::MIN_POSITIVE.to_f32(), bf16::MAX.to_f32())
    }

    /// The code for a weight of `x` steps in a column: the nearest one, or one that is cheaper by its length, where a bit costs
    /// `price` squared steps.
    pub fn choose(x: f32, price: f32, lengths: Option<&CodeLengths>, column: usize) -> i16 {
        lengths.map_or_else(|| nearest(x), |lengths| choose(x, price, lengths.of_column(column)))
    }

    /// How long its codes are when they are coded.
    ///
    /// # Errors
    /// [`CompressError::Setting`] for a matrix that is too large to be coded.
    pub fn code_lengths(&self) -> Result<CodeLengths> {
        classified(self.codes.view(), CodeLengths::new).map_err(|error| CompressError::Setting {
            name: "shape",
            value: format!("{:?}", self.codes.dim()),
            expected: error.to_string().into(),
        })
    }

    /// Bits a weight of the entropy of its codes alone.
    pub fn entropy(&self) -> f64 {
        let bits = classified(self.codes.view(), |codes, _, classes| sparq_coding::entropy_bits(codes, classes));
        bits.unwrap_or(0.0) / (self.codes.len() as f64).max(1.0)
    }

    /// Bits a weight, about, that a layer of this shape takes beyond the [entropy](Self::entropy) of its codes.
    pub fn overhead((rows, width): (usize, usize)) -> f64 {
        let bits = sparq_coding::overhead_bits((rows, width)) + (FACTOR_BITS * (rows + width)) as u64;
        bits as f64 / ((rows * width) as f64).max(1.0)
    }

    /// Bits that the layer takes in a coded file: codes with their tables, factors and steps.
    pub fn coded_bits(&self) -> u64 {
        coded_bits(self.codes.view()) + (FACTOR_BITS * (self.rows.len() + self.columns.len())) as u64
    }
}

/// The value of a code.
#[inline]
pub(crate) fn decode(code: i16, row: f32, column: f32) -> f32 {
    row * (column * f32::from(code)) + 0.0
}

/// Bits that a matrix of codes takes in a coded file, its tables and checksums among them.
pub(crate) fn coded_bits(codes: ArrayView2<'_, i16>) -> u64 {
    classified(codes, sparq_coding::coded_size).map_or(0, |bytes| 8 * bytes as u64)
}

/// Gives `work` the codes row by row, their shape, and the classes of their columns.
fn classified<T>(
    codes: ArrayView2<'_, i16>,
    work: impl FnOnce(&[i16], (usize, usize), &[u8]) -> sparq_coding::Result<T>,
) -> sparq_coding::Result<T> {
    let (shape, codes) = (codes.dim(), codes.as_standard_layout());
    let codes = codes.as_slice().unwrap_or_default();
    work(codes, shape, &sparq_coding::classes(codes, shape)?)
}

/// The code for a weight of `x` steps: the nearest one, the next one towards zero, or zero, whichever costs least in
/// `(x - code)² + price · bits`.
#[inline]
pub(crate) fn choose(x: f32, price: f32, lengths: sparq_coding::ColumnLengths<'_>) -> i16 {
    let nearest = nearest(x);
    if nearest == 0 || price == 0.0 {
        return nearest;
    }
    let cost = |code: i16| (x - f32::from(code)).powi(2) + price * lengths.bits(code.into());
    let (mut best, mut least) = (nearest, cost(nearest));
    for code in [nearest - nearest.signum(), 0] {
        let cost = cost(code);
        if cost < least {
            (best, least) = (code, cost);
        }
    }
    best
}

/// The nearest code to a weight of `x` steps.
#[inline]
pub(crate) fn nearest(x: f32) -> i16 {
    x.round_ties_even().clamp(-MOST, MOST) as i16
}

/// What form a layer's codes have, known before it is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CodeLayout {
    /// Codes of fixed width on this grid.
    Grid(QuantScheme),
    /// Codes without a width: [`Stepped`].
    Steps,
}

/// The integer form of a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Codes {
    /// Codes of fixed width on the grids of groups.
    Grid(Quantized),
    /// Codes without a width in steps of columns.
    Steps(Stepped),
}

impl Codes {
    /// The value of every weight, `[out, in]`.
    pub fn dequantize(&self) -> Array2<f32> {
        match self {
            Self::Grid(quantized) => quantized.dequantize(),
            Self::Steps(stepped) => stepped.dequantize(),
        }
    }

    /// Which weights are not exactly zero, `[out, in]`.
    pub fn nonzero(&self) -> Mask {
        match self {
            Self::Grid(quantized) => quantized.nonzero(),
            Self::Steps(stepped) => stepped.nonzero(),
        }
    }

    /// Bits that the layer takes with codes of fixed width, scales and zero points among them; none if codes have no width.
    pub fn fixed_bits(&self) -> Option<f64> {
        self.grid().map(|Quantized { scheme, codes, .. }| {
            let (rows, width) = codes.dim();
            scheme.stored_bits_per_weight(rows, width) * (rows * width) as f64
        })
    }

    /// Bits that the layer takes in a coded file.
    pub fn coded_bits(&self) -> u64 {
        match self {
            Self::Grid(quantized) => quantized.coded_bits(),
            Self::Steps(stepped) => stepped.coded_bits(),
        }
    }

    /// The same codes with their scales multiplied by `rows`, `[out, groups]` or, for all groups of a row alike, `[out, 1]`,
    /// and the steps of columns, where there are any, by `columns`, `[in]`; rounded to the type they are stored in.
    ///
    /// # Panics
    /// In debug builds if the shapes do not fit.
    #[must_use]
    pub fn rescaled(&self, rows: ArrayView2<'_, f32>, columns: &[f32]) -> Self {
        let mut codes = self.clone();
        match &mut codes {
            Self::Grid(Quantized { scheme, grids, .. }) => {
                for (mut grids, factors) in grids.outer_iter_mut().zip(rows.outer_iter()) {
                    debug_assert!(factors.len() == 1 || factors.len() == grids.len());
                    grids.iter_mut().zip(factors.iter().cycle()).for_each(|(grid, factor)| grid.scale *= factor);
                    scheme.scale_type.round_row(grids.as_slice_mut().unwrap_or_default());
                }
            }
            Self::Steps(Stepped { rows: of_rows, columns: of_columns, .. }) => {
                let both = of_rows.iter_mut().zip(rows.column(0)).chain(of_columns.iter_mut().zip(columns));
                both.for_each(|(value, factor)| *value = Stepped::storable(*value * factor));
            }
        }
        codes
    }

    /// Which form this is.
    pub fn layout(&self) -> CodeLayout {
        match self {
            Self::Grid(quantized) => CodeLayout::Grid(quantized.scheme),
            Self::Steps(_) => CodeLayout::Steps,
        }
    }

    /// Codes of fixed width, if these are.
    pub fn grid(&self) -> Option<&Quantized> {
        match self {
            Self::Grid(quantized) => Some(quantized),
            Self::Steps(_) => None,
        }
    }

    /// `parts` one below the other; none unless they are all on grids of one scheme: steps belong to one layer alone.
    pub fn stacked(parts: &[&Self]) -> Option<Self> {
        let grids: Option<Vec<&Quantized>> = parts.iter().map(|part| part.grid()).collect();
        let grids = grids?;
        let scheme = grids.first().map(|first| first.scheme).filter(|s| grids.iter().all(|it| it.scheme == *s))?;
        let codes: Vec<_> = grids.iter().map(|part| part.codes.view()).collect();
        let of_groups: Vec<_> = grids.iter().map(|part| part.grids.view()).collect();
        Some(Self::Grid(Quantized {
            scheme,
            codes: ndarray::concatenate(Axis(0), &codes).ok()?,
            grids: ndarray::concatenate(Axis(0), &of_groups).ok()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lengths(codes: &Array2<i16>) -> CodeLengths {
        let (rows, columns) = codes.dim();
        let layer = Stepped { codes: codes.clone(), rows: vec![1.0; rows], columns: vec![1.0; columns] };
        layer.code_lengths().expect("small enough")
    }

    proptest! {
        #[test]
        fn a_code_is_the_cheapest_of_the_three(x in -40.0_f32..40.0, price in 0.0_f32..3.0) {
            let codes = Array2::from_shape_fn((64, 8), |(row, column)| ((row * 7 + column * 3) % 9) as i16 - 4);
            let lengths = lengths(&codes);
            let lengths = lengths.of_column(0);
            let chosen = choose(x, price, lengths);
            let cost = |code: i16| (x - f32::from(code)).powi(2) + price * lengths.bits(code.into());
            for code in [nearest(x), 0, nearest(x) - nearest(x).signum()] {
                prop_assert!(cost(chosen) <= cost(code) + 1e-5);
            }
            prop_assert_eq!(choose(x, 0.0, lengths), nearest(x));
        }
    }

    #[test]
    fn a_dearer_bit_gives_smaller_codes() {
        let codes = Array2::from_shape_fn((256, 4), |(row, _)| if row % 4 == 0 { (row / 64) as i16 } else { 0 });
        let lengths = lengths(&codes);
        let of = |price| choose(1.4, price, lengths.of_column(1));
        assert_eq!((of(0.0), of(10.0)), (1, 0));
    }

    #[test]
    fn what_is_stored_is_a_positive_bfloat16() {
        for value in [0.0_f32, -3.0, 1e-45, 0.1, 1.0, f32::INFINITY] {
            let stored = Stepped::storable(value);
            assert!(stored > 0.0 && stored.is_finite() && bf16::from_f32(stored).to_f32() == stored, "{value}");
        }
        assert_eq!(Stepped::storable(1.0), 1.0);
    }

    #[test]
    fn a_coded_matrix_is_smaller_than_one_of_fixed_width() {
        let codes = Array2::from_shape_fn((512, 64), |(row, column)| i16::from((row * 31 + column * 17) % 10 == 0));
        let layer = Stepped { rows: vec![1.0; 512], columns: vec![1.0; 64], codes };
        let bits = layer.coded_bits() as f64 / (512.0 * 64.0);
        let sides = 16.0 * (512.0 + 64.0) / (512.0 * 64.0);
        assert!((bits - sides - 0.469).abs() < 0.05, "{bits}");
    }
}
