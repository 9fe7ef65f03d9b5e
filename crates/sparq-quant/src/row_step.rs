use crate::size_search::SizeSearch;
use crate::step::{PRICE, Step};
use ndarray::{Array2, Zip};
use sparq_core::{Codes, CompressedLayer, LayerCompressor, LayerProblem, Result, SolveReport, Statistics, Stepped};
use std::borrow::Cow;

/// Tries by which the size of steps is found, at most.
const TRIES: usize = 8;

/// Rounds to codes without a width at a given rate, as [`Step`] does, for a matrix whose inputs are not known: an embedding.
///
/// Every row has a step in proportion to its root mean square. Codes are chosen by their error and their length.
///
/// # Examples
/// ```
/// use ndarray::Array2;
/// use sparq_core::{LayerCompressor, LayerProblem};
/// use sparq_quant::RowStep;
/// let weight = Array2::from_shape_fn((500, 64), |(row, column)| ((row * 37 + column * 11) % 64) as f32 / 64.0 - 0.5);
/// let layer = RowStep::new(5.0)?.compress(&LayerProblem::uncalibrated("embedding", weight.view())?)?;
/// let bits = layer.codes.map_or(0, |codes| codes.coded_bits()) as f64 / weight.len() as f64;
/// assert!((bits - 5.0).abs() < 0.1, "{bits}");
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowStep {
    rate: f64,
}

impl RowStep {
    /// At this many bits a weight.
    ///
    /// # Errors
    /// Those of [`Step::new`].
    pub fn new(rate: f64) -> Result<Self> {
        Step::new(rate).map(|_| Self { rate })
    }
}

impl LayerCompressor for RowStep {
    fn name(&self) -> Cow<'static, str> {
        format!("steps of rows at {} bits", self.rate).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Nothing
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        let weight = problem.weight();
        let (rows, width) = weight.dim();
        let root_mean_square = |row: ndarray::ArrayView1<'_, f32>| {
            let squares: f64 = row.iter().map(|&value| f64::from(value).powi(2)).sum();
            Stepped::storable((squares / width.max(1) as f64).sqrt() as f32)
        };
        let factors: Vec<f32> = weight.outer_iter().map(root_mean_square).collect();
        let mut search = SizeSearch::new(self.rate);
        let mut size = search.start(1.0);
        let mut lengths = None;
        let mut stepped = Stepped { codes: Array2::zeros((rows, width)), rows: factors, columns: vec![1.0; width] };
        for _ in 0..TRIES {
            let step = Stepped::storable(size as f32);
            stepped.columns.fill(step);
            let Stepped { codes, rows, .. } = &mut stepped;
            Zip::from(codes.rows_mut()).and(weight.rows()).and(&ndarray::aview1(rows)).par_for_each(
                |mut codes, weight, &factor| {
                    for (column, (code, &value)) in codes.iter_mut().zip(weight).enumerate() {
                        *code = Stepped::choose(value / (factor * step), PRICE as f32, lengths.as_ref(), column);
                    }
                },
            );
            let bits = stepped.coded_bits() as f64 / weight.len().max(1) as f64;
            // The first codes were chosen without their lengths.
            if (search.is_met(bits) && lengths.is_some()) || weight.is_empty() {
                break;
            }
            lengths = Some(stepped.code_lengths()?);
            size = search.next(size, bits);
        }
        let codes = Codes::Steps(stepped);
        Ok(CompressedLayer {
            weight: codes.dequantize(),
            mask: None,
            codes: Some(codes),
            report: SolveReport::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_own_size_and_the_rate_is_met() {
        // Bell-shaped: sums of four remainders.
        let part = |at: usize, turn: u32| {
            (at as u32).wrapping_mul(2_654_435_761).rotate_left(7 * turn).wrapping_mul(40_503) as f32 / u32::MAX as f32
        };
        let value = |at: usize| (0..4).map(|turn| part(at, turn)).sum::<f32>() - 2.0;
        let weight =
            Array2::from_shape_fn((128, 256), |(row, column)| value(row * 256 + column + 1) * (row + 1) as f32);
        for rate in [3.0, 5.0] {
            let problem = LayerProblem::uncalibrated("embedding", weight.view()).expect("valid");
            let layer = RowStep::new(rate).expect("valid").compress(&problem).expect("solved");
            let Some(Codes::Steps(stepped)) = layer.codes else { panic!("codes without a width") };
            for (row, factor) in weight.rows().into_iter().zip(&stepped.rows) {
                let size = (row.iter().map(|value| value * value).sum::<f32>() / 256.0).sqrt();
                assert!((factor / size - 1.0).abs() < 0.01, "{factor} {size}");
            }
            let bits = stepped.coded_bits() as f64 / weight.len() as f64;
            assert!((bits / rate - 1.0).abs() < 0.01, "{bits} {rate}");
        }
    }
}
