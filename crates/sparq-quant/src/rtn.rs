use crate::{Clip, GridFinder};
use ndarray::Array2;
use rayon::prelude::*;
use sparq_core::{
    Codes, CompressError, CompressedLayer, Granularity, GridFit, LayerCompressor, LayerProblem, QuantScheme, Quantized,
    Quantizer, Result, Rounded, Selection, SolveReport, Statistics,
};
use std::borrow::Cow;

/// Round to nearest: each weight goes to the closest code of its group's grid, on its own.
///
/// | parameter | default | meaning |
/// |---|---|---|
/// | scheme | – | bits, granularity, symmetric or not, storage type of scales |
/// | [`clip`](Self::clip) | min-max | how a group's range is found |
///
/// Needs no data and costs one pass over the weights.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Bits, LayerCompressor, LayerProblem, QuantScheme};
/// let weight = array![[0.0_f32, 1.0, 2.0, 3.0]];
/// let problem = LayerProblem::uncalibrated("demo", weight.view())?;
/// let layer = sparq_quant::Rtn::new(QuantScheme::new(Bits::B2).asymmetric()).compress(&problem)?;
/// assert_eq!(layer.weight, weight); // four levels are enough for four values
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Rtn {
    finder: GridFinder,
}

impl Rtn {
    /// Rounds to this grid.
    pub fn new(scheme: QuantScheme) -> Self {
        Self { finder: GridFinder::new(scheme, Clip::MinMax) }
    }

    /// Finds ranges in this way.
    pub fn clip(mut self, clip: Clip) -> Self {
        self.finder = self.finder.clip(clip);
        self
    }

    /// Finds grids as the reference implementation does, quirks included.
    pub fn reference_compat(mut self, on: bool) -> Self {
        self.finder = self.finder.reference_compat(on);
        self
    }
}

impl LayerCompressor for Rtn {
    fn name(&self) -> Cow<'static, str> {
        format!("rtn {} bit", self.finder.scheme().bits).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Nothing
    }

    fn is_by_row(&self) -> bool {
        self.finder.scheme().granularity != Granularity::Tensor
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        Ok(self.quantize(problem, &Selection::All)?.into_layer())
    }
}

impl Quantizer for Rtn {
    fn quantize(&self, problem: &LayerProblem<'_>, selection: &Selection<'_>) -> Result<Rounded> {
        let mask = match selection {
            Selection::All => None,
            Selection::Fixed(mask) => Some(&**mask),
            _ => {
                return Err(CompressError::Conflict {
                    first: self.name().into_owned(),
                    second: "a pruner that chooses along the column sweep".into(),
                    reason: "plain rounding has no sweep; use gptq, or choose the mask before".into(),
                });
            }
        };
        let weight = problem.weight();
        let (rows, width) = weight.dim();
        if let Some(mask) = mask {
            CompressError::check_shape(problem.name(), "mask", mask.dim(), (rows, width))?;
        }
        let grids = self.finder.fit_all(weight, mask);
        let (size, max_code) = (self.finder.scheme().granularity.size(width), self.finder.max_code());
        let mut codes = Array2::<u8>::zeros((rows, width));
        codes.as_slice_mut().unwrap_or_default().par_chunks_mut(width.max(1)).enumerate().for_each(|(row, codes)| {
            for (column, code) in codes.iter_mut().enumerate() {
                let grid = grids[[row, column / size]];
                let stays = mask.is_none_or(|mask| mask.view()[[row, column]]);
                *code = if stays { grid.encode(weight[[row, column]], max_code) } else { grid.zero };
            }
        });
        let quantized = Quantized { scheme: self.finder.scheme(), codes, grids };
        let report = SolveReport { damping: None, fallbacks: quantized.remarks(mask) };
        Ok(Rounded { codes: Codes::Grid(quantized), mask: mask.cloned(), report })
    }
}
