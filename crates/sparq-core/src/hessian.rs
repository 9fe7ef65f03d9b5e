use crate::{CompressError, Result, Summand, message};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a method needs to know about a layer's inputs. Ordered: each kind includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Statistics {
    /// Nothing: weights alone.
    Nothing,
    /// The sum of squares of every input channel (the diagonal of the Hessian).
    ChannelNorms,
    /// The whole matrix `XᵀX`.
    Hessian,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no statistics",
            Self::ChannelNorms => "input channel norms",
            Self::Hessian => "a Hessian",
        })
    }
}

/// What calibration has summed up about the inputs of one layer.
///
/// The scale of the sums is of no consequence: a positive factor on `XᵀX` changes no mask and no code, since damping is
/// relative to the mean diagonal.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Hessian {
    /// Nothing was collected.
    None,
    /// `Σ x²` for each input channel, `[in]`.
    Diagonal {
        /// The sums.
        sums: Array1<f32>,
        /// Tokens they were taken over.
        tokens: u64,
    },
    /// `Σ x xᵀ`, `[in, in]`, symmetric, both triangles filled.
    Full {
        /// The matrix.
        matrix: Array2<f32>,
        /// Tokens it was taken over.
        tokens: u64,
    },
}

impl Hessian {
    /// Which kind of statistics this is.
    pub fn statistics(&self) -> Statistics {
        match self {
            Self::None => Statistics::Nothing,
            Self::Diagonal { .. } => Statistics::ChannelNorms,
            Self::Full { .. } => Statistics::Hessian,
        }
    }

    /// Tokens the statistics were taken over.
    pub fn tokens(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Diagonal { tokens, .. } | Self::Full { tokens, .. } => *tokens,
        }
    }

    /// `Σ x²` for each input channel, if known.
    pub fn diagonal(&self) -> Option<Array1<f32>> {
        match self {
            Self::None => None,
            Self::Diagonal { sums, .. } => Some(sums.clone()),
            Self::Full { matrix, .. } => Some(matrix.diag().to_owned()),
        }
    }

    /// `[in, in]` of the whole matrix, known or not.
    pub(crate) fn shape(&self) -> Option<(usize, usize)> {
        match self {
            Self::None => None,
            Self::Diagonal { sums, .. } => Some((sums.len(), sums.len())),
            Self::Full { matrix, .. } => Some(matrix.dim()),
        }
    }
}

/// Sums `x xᵀ` (or its diagonal) over the inputs of one layer, batch after batch.
///
/// Sums are `f32` and unnormalised: `H = XᵀX` over all tokens. The order of batches matters in the last bits, the
/// number of threads does not. Layers that read the same input (q/k/v; gate/up) share one accumulator.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::Statistics;
/// let mut accumulator = sparq_core::HessianAccumulator::new(2, Statistics::ChannelNorms)?;
/// accumulator.add(array![[1.0_f32, 2.0], [3.0, 0.0]].view())?;
/// let hessian = accumulator.finish();
/// assert_eq!(hessian.diagonal(), Some(array![10.0, 4.0]));
/// assert_eq!(hessian.tokens(), 2);
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HessianAccumulator {
    sums: Hessian,
    skipped: u64,
    in_bf16: bool,
}

impl HessianAccumulator {
    /// An empty sum over `width` input channels, collecting what `statistics` asks for.
    ///
    /// # Errors
    /// [`CompressError::Setting`] if a `[width, width]` matrix cannot be addressed.
    pub fn new(width: usize, statistics: Statistics) -> Result<Self> {
        let sums = match statistics {
            Statistics::Nothing => Hessian::None,
            Statistics::ChannelNorms => Hessian::Diagonal { sums: Array1::zeros(width), tokens: 0 },
            _ => {
                if width
                    .checked_mul(width)
                    .and_then(|count| count.checked_mul(4))
                    .is_none_or(|bytes| bytes > isize::MAX as usize)
                {
                    return Err(CompressError::Setting {
                        name: "input channels",
                        value: width.to_string(),
                        expected: "a width whose Hessian fits in memory".into(),
                    });
                }
                Hessian::Full { matrix: Array2::zeros((width, width)), tokens: 0 }
            }
        };
        Ok(Self { sums, skipped: 0, in_bf16: false })
    }

    /// Whether inputs are rounded to bfloat16 before they are multiplied ([`sparq_linalg::syrk_lower_bf16`]), as they are in
    /// the products of a model that runs in it. By default they are not; sums of squares alone never are.
    #[must_use]
    pub fn in_bf16(self, in_bf16: bool) -> Self {
        Self { in_bf16, ..self }
    }

    /// Goes on in `f32` from sums that were [finished](Self::finish); `skipped` tokens were left out of them. The result is
    /// bit-identical to one uninterrupted accumulation.
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use sparq_core::Statistics;
    /// use sparq_core::HessianAccumulator;
    /// let mut accumulator = HessianAccumulator::new(2, Statistics::Hessian)?;
    /// accumulator.add(array![[1.0_f32, 2.0]].view())?;
    /// let first = accumulator.finish();
    /// let mut accumulator = HessianAccumulator::resume(first, 0);
    /// accumulator.add(array![[3.0_f32, 0.0]].view())?;
    /// assert_eq!(accumulator.finish().diagonal(), Some(array![10.0, 4.0]));
    /// # Ok::<(), sparq_core::CompressError>(())
    /// ```
    pub fn resume(sums: Hessian, skipped: u64) -> Self {
        Self { sums, skipped, in_bf16: false }
    }

    /// Adds the inputs `x`, `[tokens, in]`. Tokens with a NaN or an infinity among their inputs are left out and
    /// counted: one of them would make every sum useless.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the width differs.
    pub fn add(&mut self, x: ArrayView2<'_, f32>) -> Result<()> {
        let check = |width| CompressError::check_shape("calibration", "inputs", x.dim(), (x.nrows(), width));
        match &self.sums {
            Hessian::Diagonal { sums, .. } => check(sums.len())?,
            Hessian::Full { matrix, .. } => check(matrix.nrows())?,
            _ => return Ok(()),
        }
        let finite = finite_rows(x);
        if finite.len() < x.nrows() {
            self.skipped += (x.nrows() - finite.len()) as u64;
            return self.add(x.select(Axis(0), &finite).view());
        }
        match &mut self.sums {
            Hessian::Diagonal { sums, tokens } => {
                for row in x.axis_iter(Axis(0)) {
                    ndarray::Zip::from(&mut *sums).and(row).for_each(|sum, value| *sum += value * value);
                }
                *tokens += x.nrows() as u64;
            }
            Hessian::Full { matrix, tokens } => {
                let add = if self.in_bf16 { sparq_linalg::syrk_lower_bf16 } else { sparq_linalg::syrk_lower };
                add(1.0, x, matrix.view_mut());
                *tokens += x.nrows() as u64;
            }
            _ => {}
        }
        Ok(())
    }

    /// Tokens left out because their inputs were not finite.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The sums, with both triangles filled.
    pub fn finish(self) -> Hessian {
        let mut sums = self.sums;
        if let Hessian::Full { matrix, .. } = &mut sums {
            sparq_linalg::mirror_lower(matrix.view_mut());
        }
        sums
    }
}

impl Summand for HessianAccumulator {
    fn join(&mut self, later: &Self) {
        match (&mut self.sums, &later.sums) {
            (Hessian::Diagonal { sums, tokens }, Hessian::Diagonal { sums: later, tokens: more }) => {
                *sums += later;
                *tokens += more;
            }
            (Hessian::Full { matrix, tokens }, Hessian::Full { matrix: later, tokens: more }) => {
                sparq_linalg::add(matrix.view_mut(), later.view());
                *tokens += more;
            }
            _ => {}
        }
        self.skipped += later.skipped;
    }

    /// Of a matrix the lower triangle.
    fn write(&self, message: &mut Vec<u8>) {
        message::put_count(message, self.skipped);
        message::put_count(message, self.sums.tokens());
        match &self.sums {
            Hessian::Diagonal { sums, .. } => message::put(message, sums),
            Hessian::Full { matrix, .. } => {
                let rows = matrix.outer_iter().enumerate();
                rows.for_each(|(row, values)| message::put(message, values.iter().take(row + 1)));
            }
            Hessian::None => {}
        }
    }

    fn read(&mut self, message: &mut &[u8]) -> Result<()> {
        self.skipped = message::take_count(message)?;
        let count = message::take_count(message)?;
        match &mut self.sums {
            Hessian::Diagonal { sums, tokens } => {
                *tokens = count;
                message::take(message, sums)
            }
            Hessian::Full { matrix, tokens } => {
                *tokens = count;
                let mut rows = matrix.outer_iter_mut().enumerate();
                rows.try_for_each(|(row, mut values)| message::take(message, values.iter_mut().take(row + 1)))
            }
            Hessian::None => Ok(()),
        }
    }
}

/// Rows without NaN and infinity, in order.
pub(crate) fn finite_rows(x: ArrayView2<'_, f32>) -> Vec<usize> {
    // Without an early end the compiler takes several values at a time.
    let is_finite = |row: ArrayView1<'_, f32>| row.iter().fold(true, |so_far, value| so_far & value.is_finite());
    (0..x.nrows()).into_par_iter().filter(|&row| is_finite(x.row(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn sums_that_are_finished_in_between_are_the_same() {
        let batch =
            |at: usize| Array2::from_shape_fn((5, 3), |(row, column)| ((at * 15 + row * 3 + column) as f32).sin());
        for statistics in [Statistics::Nothing, Statistics::ChannelNorms, Statistics::Hessian] {
            let mut through = HessianAccumulator::new(3, statistics).expect("small");
            let mut resumed = through.clone();
            for at in 0..3 {
                through.add(batch(at).view()).expect("fits");
                resumed.add(batch(at).view()).expect("fits");
                let skipped = resumed.skipped();
                resumed = HessianAccumulator::resume(resumed.finish(), skipped);
            }
            assert_eq!(through.finish(), resumed.finish());
        }
    }

    #[test]
    fn inputs_are_rounded_to_bfloat16_if_that_is_asked_for() {
        let x = array![[1.001_f32, 2.0]];
        for (in_bf16, expected) in [(true, 1.0), (false, 1.001_f32 * 1.001)] {
            let mut sums = HessianAccumulator::new(2, Statistics::Hessian).expect("small").in_bf16(in_bf16);
            sums.add(x.view()).expect("fits");
            assert_eq!(sums.finish().diagonal(), Some(array![expected, 4.0]));
        }
    }

    #[test]
    fn tokens_that_are_not_finite_are_left_out_and_counted() {
        let x = array![[1.0_f32, 2.0], [f32::NAN, 1.0], [3.0, 4.0], [f32::INFINITY, 0.0]];
        for statistics in [Statistics::ChannelNorms, Statistics::Hessian] {
            let mut with = HessianAccumulator::new(2, statistics).expect("small");
            with.add(x.view()).expect("fits");
            let mut without = HessianAccumulator::new(2, statistics).expect("small");
            without.add(array![[1.0_f32, 2.0], [3.0, 4.0]].view()).expect("fits");
            assert_eq!((with.skipped(), without.skipped()), (2, 0));
            assert_eq!(with.finish(), without.finish());
        }
    }
}
