use crate::{Clip, GridFinder, Quantizer};
use ndarray::ArrayView2;
use sparq_core::{
    CompressError, CompressedLayer, Granularity, Hessian, LayerCompressor, LayerProblem, Mask, QuantScheme, Result,
    SolveReport, Statistics,
};
use sparq_obs::{ColumnOrder, Damping, GridFit, InverseFactor, Rounding, Selection, Sweep};
use std::borrow::Cow;
use std::sync::Arc;

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
/// | [`damping`](Self::damping) | 0.01 | added to the diagonal of H, times its mean | 0 to 1000 |
/// | [`act_order`](Self::act_order) | off | visit the most active channels first, with static groups | |
///
/// Grids of groups are fitted when the sweep reaches them, on values that hold all earlier corrections. Per-channel,
/// per-tensor and act-order grids are fitted beforehand ("static", so that act-order changes nothing on disk): on the
/// dense weight, or, when pruning goes along, on what a first sweep without rounding leaves.
/// Cost: `2/3 · in³ + out · in²` multiply-adds; memory: two `[in, in]` matrices of `f64` while factoring;
/// with act-order two of `f32` more.
///
/// # Errors
/// [`CompressError::MissingStatistics`] without a Hessian. A Hessian that cannot be factored is no error: see
/// [`SolveReport::fallbacks`].
///
/// # Examples
/// ```
/// use ndarray::{Array2, array};
/// use sparq_core::{Bits, Hessian, LayerCompressor, LayerProblem, QuantScheme};
/// use sparq_quant::{Gptq, Rtn};
/// let weight = array![[0.3_f32, 0.3, 1.5, 0.3]];
/// // All channels carry the same signal: what counts is the sum of the weights.
/// let hessian = Hessian::Full { matrix: Array2::ones((4, 4)), tokens: 8 };
/// let problem = LayerProblem::new("demo", weight.view(), &hessian)?;
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
    damping: Damping,
    act_order: bool,
    block_columns: usize,
    reference_compat: bool,
}

impl Gptq {
    /// Rounds to this grid.
    pub fn new(scheme: QuantScheme) -> Self {
        Self {
            finder: GridFinder::new(scheme, Clip::MinMax),
            damping: Damping::default(),
            act_order: false,
            block_columns: 128,
            reference_compat: false,
        }
    }

    /// Finds ranges in this way.
    pub fn clip(mut self, clip: Clip) -> Self {
        self.finder = self.finder.clip(clip);
        self
    }

    /// With this damping.
    pub fn damping(mut self, damping: Damping) -> Self {
        self.damping = damping;
        self
    }

    /// Visits channels by falling diagonal of the Hessian, with grids fitted beforehand.
    pub fn act_order(mut self, on: bool) -> Self {
        self.act_order = on;
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

    /// Quantizes while `selection` chooses what stays: pruning and rounding in one pass.
    ///
    /// # Errors
    /// As [`LayerCompressor::compress`]; [`CompressError::Conflict`] for act-order with a pattern, whose groups must be
    /// visited in their own order.
    pub fn compress_while(&self, problem: &LayerProblem<'_>, selection: &Selection<'_>) -> Result<CompressedLayer> {
        problem.require(Statistics::Hessian, "GPTQ")?;
        if self.act_order && matches!(selection, Selection::PerRow(_)) {
            return Err(CompressError::Conflict {
                first: "act-order".into(),
                second: "an N:M pattern".into(),
                reason: "a pattern chooses among neighbouring channels; use one or the other, or prune first".into(),
            });
        }
        let (weight, hessian) = if self.reference_compat {
            sparq_obs::reference::clear_dead_channels(problem)
        } else {
            (problem.weight().to_owned(), Cow::Borrowed(problem.hessian()))
        };
        let (rows, width) = weight.dim();
        let scheme = self.finder.scheme();
        let size = scheme.granularity.size(width);
        let grouped = matches!(scheme.granularity, Granularity::Group(_));
        if let Selection::Fixed(mask) = selection {
            CompressError::check_shape(problem.name(), "mask", mask.dim(), (rows, width))?;
        }
        let order = self.act_order.then(|| ColumnOrder::by_activation(hessian.diagonal().unwrap_or_default().view()));
        // A factor of the statistics as they came serves all that share them; one of a changed matrix is for this layer.
        let factored = match (&order, &hessian) {
            (None, Cow::Borrowed(_)) => InverseFactor::of(problem, self.damping),
            (None, Cow::Owned(hessian)) => Arc::new(InverseFactor::factorize(hessian, width, self.damping)),
            (Some(order), hessian) => {
                Arc::new(InverseFactor::factorize(&permuted(hessian, order), width, self.damping))
            }
        };
        let ordered = |weight: ArrayView2<'_, f32>| {
            order.as_ref().map_or_else(|| weight.to_owned(), |order| order.permute_columns(weight))
        };
        let mask = match (selection, &order) {
            (Selection::Fixed(mask), Some(order)) => Some(Mask::new(order.permute_columns(mask.view()))),
            _ => None,
        };
        let selection = mask.as_ref().map_or(*selection, Selection::Fixed);

        let sweep = Sweep::new(&factored.factor).block_columns(self.block_columns);
        let restored = |matrix: ArrayView2<'_, f32>| {
            order.as_ref().map_or_else(|| matrix.to_owned(), |order| order.restore_columns(matrix))
        };
        let parameters = if self.act_order || !grouped {
            Some(if !self.reference_compat && !matches!(selection, Selection::All) {
                // What stays has grown by the compensation for what went: fit on that.
                let pruned = sweep.run(ordered(weight.view()), &selection, &Rounding::None)?;
                let kept = pruned.mask.map(|mask| match &order {
                    Some(order) => Mask::new(order.restore_columns(mask.view())),
                    None => mask,
                });
                self.finder.fit_all(restored(pruned.weight.view()).view(), kept.as_ref())
            } else {
                // The reference fits grids of whole rows before it clears inactive channels, those of groups after.
                self.finder.fit_all(if grouped { weight.view() } else { problem.weight() }, None)
            })
        } else {
            None
        };
        let columns: Vec<usize> = order.as_ref().map_or_else(|| (0..width).collect(), |order| order.columns().to_vec());
        let group_of: Vec<usize> = columns.iter().map(|column| column / size).collect();
        let rounding = match &parameters {
            Some(parameters) => Rounding::Static { parameters, group_of: &group_of, max_code: self.finder.max_code() },
            None => Rounding::Dynamic { fit: &self.finder, group_size: size, stale: self.reference_compat },
        };
        let mut swept = sweep.run(ordered(weight.view()), &selection, &rounding)?;
        if let Some(order) = &order {
            swept.mask = swept.mask.map(|mask| Mask::new(order.restore_columns(mask.view())));
            swept.grid = swept.grid.map(|(codes, grids)| (order.restore_columns(codes.view()), grids));
        }
        let quantized = swept.grid.map(|(codes, grids)| self.finder.quantized(codes, &grids));
        let mut report = SolveReport { damping: Some(factored.damping), fallbacks: factored.fallbacks.clone() };
        report.fallbacks.extend(quantized.iter().flat_map(|quantized| quantized.remarks(swept.mask.as_ref())));
        let weight = quantized.as_ref().map_or(swept.weight, sparq_core::Quantized::dequantize);
        Ok(CompressedLayer { weight, mask: swept.mask, quantized, report })
    }
}

fn permuted(hessian: &Hessian, order: &ColumnOrder) -> Hessian {
    match hessian {
        Hessian::Full { matrix, tokens } => {
            Hessian::Full { matrix: order.permute_both(matrix.view()), tokens: *tokens }
        }
        other => other.clone(),
    }
}

impl LayerCompressor for Gptq {
    fn name(&self) -> Cow<'static, str> {
        let order = if self.act_order { " act-order" } else { "" };
        format!("gptq {} bit{order}", self.finder.scheme().bits).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        self.compress_while(problem, &Selection::All)
    }
}

impl Quantizer for Gptq {
    fn scheme(&self) -> QuantScheme {
        self.finder.scheme()
    }

    fn compress_within(&self, problem: &LayerProblem<'_>, mask: Option<&Mask>) -> Result<CompressedLayer> {
        self.compress_while(problem, &mask.map_or(Selection::All, Selection::Fixed))
    }
}
