use ndarray::Array2;
use sparq_core::{
    Codes, ColumnSweep, CompressError, CompressedLayer, LayerCompressor, LayerProblem, Quantizer, Result, Rounded,
    Rounding, Selection, Statistics, StepDescent, Stepped,
};
use crate::size_search::SizeSearch;
use std::borrow::Cow;

/// What a bit costs in squared steps where codes are fine: half of `ln 2 / 6`, the slope at which an error of a twelfth of a
/// squared step falls to a quarter with one bit more, counted once for each of the two places that choose codes.
pub(crate) const PRICE: f64 = 0.1155;
/// Sweeps by which the size of steps is found, at most.
const SWEEPS: usize = 4;

/// Rounds to codes without a width, at a given rate: so many bits a weight once the codes are entropy-coded.
///
/// The step of column `j` is `c · U[j, j]`, with `U` the upper factor of the inverse Hessian: water-filling, which gives
/// each column as many bits as its inputs call for. Codes are chosen in one column sweep, as in [`Gptq`](crate::Gptq), by
/// their error and by their length; `c` is such that the coded layer has the rate. How sparse a layer becomes is an outcome.
///
/// Cost: that of [`Gptq`](crate::Gptq) with up to four sweeps.
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
            return Ok(Self { rate, price: PRICE });
        }
        let expected = format!("{} to {} bits a weight", Self::RATES.start(), Self::RATES.end()).into();
        Err(CompressError::Setting { name: "rate", value: rate.to_string(), expected })
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
        let (rows, width) = weight.dim();
        let deviations = curvature.factor().conditional_deviations();
        let sweep = ColumnSweep::new(curvature.factor());
        let factors = vec![1.0; rows];
        let at = |size: f64| -> Vec<f32> {
            deviations.iter().map(|&u| Stepped::storable((size * f64::from(u)) as f32)).collect()
        };
        let bits_of = |stepped: &Stepped| stepped.coded_bits() as f64 / weight.len().max(1) as f64;

        // Without feedback codes spread about as they do in the sweep: a start.
        let plain = |size: f64| {
            let columns = at(size);
            let code = |(row, column): (usize, usize)| {
                let weight = (weight[[row, column]] / columns[column]).round_ties_even();
                weight.clamp(-32_767.0, 32_767.0) as i16
            };
            Stepped { codes: Array2::from_shape_fn((rows, width), code), rows: factors.clone(), columns }
        };
        let mean_square = weight
            .outer_iter()
            .map(|row| row.iter().zip(&deviations).map(|(&w, &u)| f64::from(w / u).powi(2)).sum::<f64>())
            .sum::<f64>()
            / weight.len().max(1) as f64;
        let mut search = SizeSearch::new(self.rate);
        let mut size = search.start(mean_square.sqrt());
        for _ in 0..2 {
            size = search.next(size, bits_of(&plain(size)));
        }
        let mut lengths = plain(size).code_lengths()?;
        search = SizeSearch::new(self.rate);
        let mut swept = None;
        for _ in 0..SWEEPS {
            let columns = at(size);
            let rounding = Rounding::Steps {
                rows: &factors,
                columns: &columns,
                lengths: Some(&lengths),
                price: self.price as f32,
            };
            let found = sweep.run(weight.to_owned(), selection, &rounding)?;
            let stepped = Stepped { codes: found.codes, rows: factors.clone(), columns };
            let bits = bits_of(&stepped);
            lengths = stepped.code_lengths()?;
            swept = Some((stepped, found.mask));
            if search.is_met(bits) || weight.is_empty() {
                break;
            }
            size = search.next(size, bits);
        }
        let (stepped, mask) = swept.unwrap_or_else(|| (plain(size), None));
        Ok(Rounded { codes: Codes::Steps(stepped), mask, report: curvature.report() })
    }

    fn descend(&self, problem: &LayerProblem<'_>, rounded: &mut Rounded, rounds: usize) -> Result<()> {
        let Rounded { codes: Codes::Steps(stepped), mask, .. } = rounded else { return Ok(()) };
        let deviations = problem.curvature().factor().conditional_deviations();
        // The steps are about `c` times these, and a sweep's error is `c²` for one squared step.
        let logs = stepped.columns.iter().zip(&deviations).map(|(&step, &u)| f64::from(step / u).ln());
        let size = (logs.sum::<f64>() / deviations.len().max(1) as f64).exp();
        let price = self.price * size * size;
        StepDescent::new(rounds).run(problem.weight(), mask.as_ref(), stepped, problem.curvature(), price)
    }
}
