use ndarray::{Array2, Zip};
use sparq_core::{CompressedLayer, LayerCompressor, LayerProblem, Result, Statistics};
use sparq_obs::{CoordinateDescent, Damping, GroupParameters, Rounded};
use std::borrow::Cow;

/// A method whose scales and codes are improved afterwards by coordinate descent, against the weight it was given and on
/// the mask it left.
///
/// | parameter | default | meaning |
/// |---|---|---|
/// | method | – | solves first; what it leaves unquantized stays as it is |
/// | descent | – | rounds over scales and codes |
/// | [`damping`](Self::damping) | 0.01 | added to the diagonal of H, times its mean |
///
/// A scale for the whole matrix stays; codes move all the same.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Bits, Hessian, LayerCompressor, LayerProblem, QuantScheme};
/// use sparq_obs::{CoordinateDescent, relative_output_error};
/// use sparq_quant::{Descended, Rtn};
/// let weight = array![[0.9_f32, -0.35, 0.31, -0.17]];
/// let hessian = Hessian::Full { matrix: ndarray::Array2::ones((4, 4)) + ndarray::Array2::<f32>::eye(4), tokens: 8 };
/// let problem = LayerProblem::new("demo", weight.view(), &hessian)?;
/// let plain = Rtn::new(QuantScheme::new(Bits::B2));
/// let better = Descended::new(plain.clone(), CoordinateDescent::new(3)).compress(&problem)?;
/// let error = |layer: &sparq_core::CompressedLayer| relative_output_error(weight.view(), layer.weight.view(), &hessian);
/// assert!(error(&better) < error(&plain.compress(&problem)?));
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Descended<C> {
    compressor: C,
    descent: CoordinateDescent,
    damping: Damping,
}

impl<C: LayerCompressor> Descended<C> {
    /// Improves what `compressor` leaves.
    pub fn new(compressor: C, descent: CoordinateDescent) -> Self {
        Self { compressor, descent, damping: Damping::default() }
    }

    /// With this damping.
    pub fn damping(mut self, damping: Damping) -> Self {
        self.damping = damping;
        self
    }
}

impl<C: LayerCompressor> LayerCompressor for Descended<C> {
    fn name(&self) -> Cow<'static, str> {
        format!("{} descended", self.compressor.name()).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        problem.require(Statistics::Hessian, "coordinate descent")?;
        let mut layer = self.compressor.compress(problem)?;
        let Some(quantized) = &mut layer.quantized else { return Ok(layer) };
        let scheme = quantized.scheme;
        let mut parameters = Array2::from_elem(quantized.scales.dim(), GroupParameters { scale: 1.0, zero: 0 });
        Zip::from(&mut parameters)
            .and(&quantized.scales)
            .and(&quantized.zeros)
            .for_each(|grid, &scale, &zero| *grid = GroupParameters { scale, zero });
        let descent = match scheme.granularity {
            sparq_core::Granularity::Tensor => self.descent.scales(false),
            _ => self.descent,
        };
        let rounded = Rounded {
            codes: &mut quantized.codes,
            parameters: &mut parameters,
            group_size: scheme.granularity.size(problem.weight().ncols()),
            max_code: scheme.bits.max_code(),
        };
        let storable = |scale| scheme.scale_type.round(scale);
        descent.run(problem.weight(), layer.mask.as_ref(), rounded, problem.hessian(), self.damping, &storable)?;
        quantized.scales = parameters.mapv(|grid| grid.scale);
        layer.weight = quantized.dequantize();
        Ok(layer)
    }
}
