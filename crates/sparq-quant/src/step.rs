use crate::size_search::SizeSearch;
use ndarray::{ArrayView2, Axis, CowArray, Ix2};
use sparq_coding::CodeLengths;
use sparq_core::{
    Codes, ColumnSweep, CompressError, CompressedLayer, LayerCompressor, LayerProblem, Mask, Quantizer, Result,
    Rounded, Rounding, Selection, Statistics, StepDescent, Stepped,
};
use std::borrow::Cow;

/// What a bit costs in squared steps: `ln 2 / 6`, the slope at which an error of a twelfth of a squared step falls to a
/// quarter with one bit more.
pub(crate) const PRICE: f64 = 0.1155;
/// Solutions of a sample of rows by which the size of steps is found, at most.
const TRIES: usize = 6;
/// The sample is this part of the rows, but at least so many.
const SAMPLED_SHARE: usize = 16;
const SAMPLED_ROWS: usize = 48;
/// By how much of the rate the whole may miss it before it is solved once more.
const MOST_MISSED: f64 = 0.02;
/// The share of the rate that codes get at least, however much tables and factors take.
const LEAST_ENTROPY: f64 = 0.25;

/// Rounds to codes without a width, at a given rate: so many bits a weight once the codes are entropy-coded.
///
/// The step of column `j` is `c · U[j, j]`, with `U` the upper factor of the inverse Hessian: water-filling, which gives
/// each column as many bits as its inputs call for. Codes are chosen in one column sweep, as in [`Gptq`](crate::Gptq), by
/// their error and by their length, and improved by [descent](Self::descent). `c` is such that the coded layer has the rate; it
/// is found on a sample of the rows. How sparse a layer becomes is an outcome.
///
/// Cost: that of [`Gptq`](crate::Gptq) and its descent, and about a third more for the sample.
///
/// # Errors
/// [`CompressError::MissingStatistics`] without a Hessian.
///
/// # Examples
/// ```
/// use ndarray::Array2;
/// use sparq_core::{Codes, Curvature, LayerCompressor, LayerProblem};
/// use sparq_quant::Step;
/// let weight = Array2::from_shape_fn((256, 128), |(row, column)| ((row * 37 + column * 11) % 64) as f32 / 64.0 - 0.5);
/// let curvature = Curvature::of_inputs(Array2::eye(128).view())?;
/// let layer = Step::new(3.0)?.compress(&LayerProblem::new("demo", weight.view(), &curvature)?)?;
/// let bits = layer.codes.map_or(0, |codes| codes.coded_bits()) as f64 / weight.len() as f64;
/// assert!((bits - 3.0).abs() < 0.05, "{bits}");
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// Steps: WaterSIC (arXiv:2603.04956). Lengths in the choice of codes: CERWU (arXiv:2505.18758), after the rate-distortion
/// optimized quantization of video coders.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    rate: f64,
    price: f64,
    descent: usize,
}

impl Step {
    /// The lowest and the highest rate, in bits a weight.
    pub const RATES: std::ops::RangeInclusive<f64> = 0.1..=12.0;

    /// At this many bits a weight.
    ///
    /// # Errors
    /// [`CompressError::Setting`] outside of [`RATES`](Self::RATES).
    pub fn new(rate: f64) -> Result<Self> {
        if Self::RATES.contains(&rate) {
            return Ok(Self { rate, price: PRICE, descent: 0 });
        }
        let expected = format!("{} to {} bits a weight", Self::RATES.start(), Self::RATES.end()).into();
        Err(CompressError::Setting { name: "rate", value: rate.to_string(), expected })
    }

    /// Improves factors, steps and codes in so many rounds of [`StepDescent`]. The default is 0.
    #[must_use]
    pub fn descent(self, rounds: usize) -> Self {
        Self { descent: rounds, ..self }
    }

    /// With another price of a bit, in squared steps; 0 rounds to nearest.
    #[must_use]
    pub fn price(self, price: f64) -> Self {
        Self { price, ..self }
    }
}

impl LayerCompressor for Step {
    fn name(&self) -> Cow<'static, str> {
        format!("steps at {} bits", self.rate).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        Ok(self.quantize(problem, &Selection::All)?.into_layer())
    }
}

impl Quantizer for Step {
    fn quantize(&self, problem: &LayerProblem<'_>, selection: &Selection<'_>) -> Result<Rounded> {
        problem.require(Statistics::Hessian, "steps")?;
        let (weight, curvature) = (problem.weight(), problem.curvature());
        if let Selection::Fixed(mask) = selection {
            CompressError::check_shape(problem.name(), "mask", mask.dim(), weight.dim())?;
        }
        let deviations = curvature.factor().conditional_deviations();
        // What is left for codes once tables, factors and steps are paid for.
        let entropy = (self.rate - Stepped::overhead(weight.dim())).max(self.rate * LEAST_ENTROPY);
        let mut search = SizeSearch::new(entropy);
        let mut size = search.start(deviation(weight, &deviations));

        // The size is found on some of the rows, which are alike, codes and their lengths with it.
        let sample = Sample::new(weight, selection);
        let mut lengths = None;
        for _ in 0..TRIES {
            let (stepped, _) =
                self.solve(problem, sample.weight.view(), &sample.selection, &deviations, size, lengths.as_ref())?;
            let found = stepped.entropy();
            let is_met = search.is_met(found) && lengths.is_some();
            lengths = Some(stepped.code_lengths()?);
            if is_met || stepped.codes.is_empty() {
                break;
            }
            size = search.next(size, found);
        }
        let (mut stepped, mut mask) = self.solve(problem, weight, selection, &deviations, size, lengths.as_ref())?;
        let found = stepped.entropy();
        if (found / entropy - 1.0).abs() > MOST_MISSED {
            size = search.next(size, found);
            lengths = Some(stepped.code_lengths()?);
            (stepped, mask) = self.solve(problem, weight, selection, &deviations, size, lengths.as_ref())?;
        }
        Ok(Rounded { codes: Codes::Steps(stepped), mask, report: curvature.report() })
    }
}

impl Step {
    /// Codes of `weight`, some rows of the problem or all, with steps of this size: one sweep, then descent.
    fn solve(
        &self,
        problem: &LayerProblem<'_>,
        weight: ArrayView2<'_, f32>,
        selection: &Selection<'_>,
        deviations: &[f32],
        size: f64,
        lengths: Option<&CodeLengths>,
    ) -> Result<(Stepped, Option<Mask>)> {
        let curvature = problem.curvature();
        let rows = vec![1.0; weight.nrows()];
        let columns: Vec<f32> =
            deviations.iter().map(|&deviation| Stepped::storable((size * f64::from(deviation)) as f32)).collect();
        let rounding = Rounding::Steps { rows: &rows, columns: &columns, lengths, price: self.price as f32 };
        let swept = ColumnSweep::new(curvature.factor()).run(weight.to_owned(), selection, &rounding)?;
        let mut stepped = Stepped { codes: swept.codes, rows, columns };
        if self.descent > 0 {
            // An error of one step costs the square of the size.
            let price = self.price * size * size;
            StepDescent::new(self.descent).run(weight, swept.mask.as_ref(), &mut stepped, curvature, price)?;
        }
        Ok((stepped, swept.mask))
    }
}

/// The root mean square of a weight in units of what its column's steps are proportional to.
fn deviation(weight: ArrayView2<'_, f32>, deviations: &[f32]) -> f64 {
    let of_row = |row: ndarray::ArrayView1<'_, f32>| {
        row.iter().zip(deviations).map(|(&w, &u)| f64::from(w / u).powi(2)).sum::<f64>()
    };
    (weight.outer_iter().map(of_row).sum::<f64>() / (weight.len() as f64).max(1.0)).sqrt()
}

/// Some rows of a weight, evenly spread, and what is selected of them.
struct Sample<'a> {
    weight: CowArray<'a, f32, Ix2>,
    selection: Selection<'a>,
}

impl<'a> Sample<'a> {
    fn new(weight: ArrayView2<'a, f32>, selection: &'a Selection<'a>) -> Self {
        let rows = weight.nrows();
        let wanted = (rows / SAMPLED_SHARE).max(SAMPLED_ROWS);
        if rows < 2 * wanted {
            return Self { weight: weight.into(), selection: selection.clone() };
        }
        let chosen: Vec<usize> = (0..wanted).map(|index| index * rows / wanted).collect();
        let selection = match selection {
            Selection::Fixed(mask) => Selection::Fixed(Cow::Owned(Mask::new(mask.view().select(Axis(0), &chosen)))),
            other => other.clone(),
        };
        Self { weight: weight.select(Axis(0), &chosen).into(), selection }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clip, Gptq};
    use ndarray::Array2;
    use rand::{RngExt, SeedableRng};
    use sparq_core::{Bits, Curvature, Hessian, QuantScheme, Solver, relative_output_error};

    fn random(rows: usize, width: usize, seed: u64) -> Array2<f32> {
        let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        // A sum of uniform values is nearly normal.
        Array2::from_shape_simple_fn((rows, width), || (0..6).map(|_| generator.random_range(-1.0_f32..1.0)).sum())
    }

    /// Inputs whose channels are correlated and differ in size.
    fn curvature(width: usize) -> Curvature {
        let mixed = random(4 * width, width, 1).dot(&random(width, width, 2));
        let sizes = Array2::from_shape_fn((1, width), |(_, column)| ((column % 17) as f32 - 8.0).exp2().sqrt());
        Curvature::of_inputs((&mixed * &sizes).view()).expect("a Hessian")
    }

    fn error(weight: &Array2<f32>, layer: &CompressedLayer, hessian: &Hessian) -> f64 {
        relative_output_error(weight.view(), layer.weight.view(), hessian)
    }

    fn bits(layer: &CompressedLayer) -> f64 {
        layer.codes.as_ref().expect("codes").coded_bits() as f64 / layer.weight.len() as f64
    }

    #[test]
    fn at_equal_coded_bits_water_filling_beats_grids() {
        let (weight, curvature) = (random(256, 192, 3), curvature(192).act_order(true));
        let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("a problem");
        for width in [Bits::B2, Bits::B3, Bits::B4] {
            let scheme = QuantScheme::new(width).group(64).expect("valid");
            let grid = Solver::new().quantize(Gptq::new(scheme).clip(Clip::Mse)).descent(3).compress(&problem);
            let grid = grid.expect("solved");
            let step = Step::new(bits(&grid)).expect("in range").descent(3).compress(&problem);
            let step = step.expect("solved");
            assert!((bits(&step) / bits(&grid) - 1.0).abs() < 0.02, "{} {}", bits(&step), bits(&grid));
            let [step, grid] = [&step, &grid].map(|layer| error(&weight, layer, problem.hessian()));
            assert!(step < 0.75 * grid, "{width}: {step} {grid}");
        }
    }

    #[test]
    fn what_is_removed_stays_zero_and_the_rate_is_met_all_the_same() {
        let (weight, curvature) = (random(300, 128, 3), curvature(128));
        let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("a problem");
        let mask = Mask::new(Array2::from_shape_fn(weight.dim(), |(row, column)| (row + column) % 4 < 2));
        for rate in [1.5, 3.0] {
            let step = Step::new(rate).expect("in range").descent(2);
            let layer = step.quantize(&problem, &Selection::of_mask(Some(&mask))).expect("solved").into_layer();
            assert!(layer.weight.iter().zip(mask.view()).all(|(value, kept)| *kept || *value == 0.0));
            assert!((bits(&layer) / rate - 1.0).abs() < 0.04, "{} for {rate}", bits(&layer));
        }
    }

    #[test]
    fn fewer_bits_leave_more_zeros() {
        let (weight, curvature) = (random(256, 128, 3), curvature(128));
        let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("a problem");
        let zeros = |rate: f64| {
            let layer = Step::new(rate).expect("in range").compress(&problem).expect("solved");
            layer.weight.iter().filter(|value| **value == 0.0).count() as f64 / weight.len() as f64
        };
        let [one, two, four] = [1.0, 2.0, 4.0].map(zeros);
        assert!(one > two && two > 0.3 && four < two - 0.2, "{one} {two} {four}");
    }

    #[test]
    fn descent_lowers_the_error_and_a_price_leaves_more_zeros() {
        let (weight, curvature) = (random(256, 128, 3), curvature(128));
        let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("a problem");
        let solved = |step: Step| {
            let layer = step.compress(&problem).expect("solved");
            let zeros = layer.weight.iter().filter(|value| **value == 0.0).count();
            (error(&weight, &layer, problem.hessian()), zeros)
        };
        let step = Step::new(2.0).expect("in range");
        let (plain, free, improved) = (solved(step), solved(step.price(0.0)), solved(step.descent(3)));
        assert!(improved.0 < 0.97 * plain.0, "{improved:?} {plain:?}");
        assert!(plain.1 > free.1 + free.1 / 50, "{plain:?} {free:?}");
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        for rate in [0.0, 13.0, f64::NAN] {
            assert!(matches!(Step::new(rate), Err(CompressError::Setting { name: "rate", .. })));
        }
    }
}
