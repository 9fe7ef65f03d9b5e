use crate::{Clip, GridFinder};
use ndarray::{Array2, ArrayView2};
use sparq_core::{
    Codes, ColumnSweep, CompressError, CompressedLayer, Granularity, Grid, GridFit, LayerCompressor, LayerProblem,
    QuantScheme, Quantized, Quantizer, Result, Rounded, Rounding, Selection, Statistics,
};
use std::borrow::Cow;

/// GPTQ: quantizes `W` column by column, pushing each column's rounding error onto the columns not yet quantized.
///
/// For column `j`, with `U` the upper factor of the inverse Hessian (`H⁻¹ = UᵀU`):
///
/// ```text
/// e           = (w[:, j] - q(w[:, j])) / U[j, j]
/// w[:, j+1:] -= e · U[j, j+1:]
/// ```
///
/// | parameter | default | meaning | range |
/// |---|---|---|---|
/// | scheme | – | bits, granularity, symmetric or not, storage type of scales | |
/// | [`clip`](Self::clip) | min-max | how a group's range is found | |
///
/// Damping and act-order belong to the problem's [`Curvature`](sparq_core::Curvature). Grids of groups are fitted when the
/// sweep reaches them, on values that hold all earlier corrections. Per-channel, per-tensor and act-order grids are fitted
/// beforehand ("static": act-order changes nothing on disk), and so are grids whose scales have a factor in common. They are
/// fitted on the dense weight, or, where weights are removed, on what a first sweep without rounding leaves.
///
/// Cost: `2/3 · in³ + out · in²` multiply-adds.
///
/// # Errors
/// [`CompressError::MissingStatistics`] without a Hessian. A Hessian that cannot be factored is no error: see
/// [`SolveReport::fallbacks`](sparq_core::SolveReport::fallbacks).
///
/// # Examples
/// ```
/// use ndarray::{Array2, array};
/// use sparq_core::{Bits, Curvature, Hessian, LayerCompressor, LayerProblem, QuantScheme};
/// use sparq_quant::{Gptq, Rtn};
/// let weight = array![[0.3_f32, 0.3, 1.5, 0.3]];
/// // All channels carry the same signal: what counts is the sum of the weights.
/// let hessian = Hessian::Full { matrix: Array2::ones((4, 4)), tokens: 8 };
/// let curvature = Curvature::new(hessian);
/// let problem = LayerProblem::new("demo", weight.view(), &curvature)?;
/// let scheme = QuantScheme::new(Bits::B2);
/// let off = |layer: sparq_core::CompressedLayer| (layer.weight.sum() - weight.sum()).abs();
/// assert!(off(Gptq::new(scheme).compress(&problem)?) < off(Rtn::new(scheme).compress(&problem)?));
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// Frantar et al. 2022, arXiv:2210.17323.
#[derive(Debug, Clone, PartialEq)]
pub struct Gptq {
    finder: GridFinder,
    block_columns: usize,
    reference_compat: bool,
}

impl Gptq {
    /// Rounds to this grid.
    pub fn new(scheme: QuantScheme) -> Self {
        Self { finder: GridFinder::new(scheme, Clip::MinMax), block_columns: 128, reference_compat: false }
    }

    /// Finds ranges in this way.
    pub fn clip(mut self, clip: Clip) -> Self {
        self.finder = self.finder.clip(clip);
        self
    }

    /// Gathers updates over this many columns (at least 1).
    pub fn block_columns(mut self, columns: usize) -> Self {
        self.block_columns = columns.max(1);
        self
    }

    /// Reproduces the reference implementation, quirks included: stale group grids, half the scale for one-sided
    /// symmetric groups, inactive channels set to zero. Meant with [`ScaleType::F32`](sparq_core::ScaleType::F32).
    pub fn reference_compat(mut self, on: bool) -> Self {
        self.reference_compat = on;
        self.finder = self.finder.reference_compat(on);
        self
    }

    /// Grids that are fitted before the sweep: on the weight, or, where weights are removed, on what a first sweep without
    /// rounding leaves, for what stays has then taken over a part of what went.
    fn static_grids(
        &self,
        problem: &LayerProblem<'_>,
        weight: ArrayView2<'_, f32>,
        selection: &Selection<'_>,
        sweep: &ColumnSweep<'_>,
    ) -> Result<Array2<Grid>> {
        if self.reference_compat || matches!(selection, Selection::All) {
            // The reference fits grids of whole rows before it clears inactive channels, those of groups after.
            let is_grouped = matches!(self.finder.scheme().granularity, Granularity::Group(_));
            let fitted = if self.reference_compat && !is_grouped { problem.weight() } else { weight };
            return Ok(self.finder.fit_all(fitted, None));
        }
        let pruned = sweep.run(weight.to_owned(), selection, &Rounding::None)?;
        Ok(self.finder.fit_all(pruned.weight.view(), pruned.mask.as_ref()))
    }
}

impl LayerCompressor for Gptq {
    fn name(&self) -> Cow<'static, str> {
        format!("gptq {} bit", self.finder.scheme().bits).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn is_by_row(&self) -> bool {
        self.finder.scheme().granularity != Granularity::Tensor
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        Ok(self.quantize(problem, &Selection::All)?.into_layer())
    }
}

impl Quantizer for Gptq {
    fn quantize(&self, problem: &LayerProblem<'_>, selection: &Selection<'_>) -> Result<Rounded> {
        problem.require(Statistics::Hessian, "GPTQ")?;
        if let Selection::Fixed(mask) = selection {
            CompressError::check_shape(problem.name(), "mask", mask.dim(), problem.weight().dim())?;
        }
        let (weight, cleared) = if self.reference_compat {
            sparq_core::reference::clear_dead_channels(problem)
        } else {
            (problem.weight().to_owned(), None)
        };
        let curvature = cleared.as_ref().unwrap_or(problem.curvature());
        let scheme = self.finder.scheme();
        let group_size = scheme.granularity.size(weight.ncols());
        let sweep = ColumnSweep::new(curvature.factor()).block_columns(self.block_columns);
        let is_static = curvature.is_act_order()
            || !matches!(scheme.granularity, Granularity::Group(_))
            || scheme.scale_type.largest_multiple().is_some();
        let grids = is_static.then(|| self.static_grids(problem, weight.view(), selection, &sweep)).transpose()?;
        let rounding = match &grids {
            Some(grids) => Rounding::Static { grids, group_size, max_code: self.finder.max_code() },
            None => Rounding::Dynamic { fit: &self.finder, group_size, stale: self.reference_compat },
        };
        let swept = sweep.run(weight, selection, &rounding)?;
        let quantized = Quantized { scheme, codes: swept.codes.mapv(|code| code as u8), grids: swept.grids };
        let mut report = curvature.report();
        report.fallbacks.extend(quantized.remarks(swept.mask.as_ref()));
        Ok(Rounded { codes: Codes::Grid(quantized), mask: swept.mask, report })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rtn;
    use sparq_core::Bits;

    #[test]
    fn rows_can_be_solved_apart_unless_they_share_a_grid() {
        for (granularity, apart) in
            [(Granularity::Tensor, false), (Granularity::Channel, true), (Granularity::Group(32), true)]
        {
            let scheme = QuantScheme::new(Bits::B4).granularity(granularity);
            assert_eq!(Gptq::new(scheme).is_by_row(), apart, "{granularity}");
            assert_eq!(Rtn::new(scheme).is_by_row(), apart, "{granularity}");
        }
    }
}
