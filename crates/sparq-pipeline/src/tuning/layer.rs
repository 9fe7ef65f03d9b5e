use super::Frozen;
use super::adam::Adam;
use ndarray::{Array2, ArrayView2, Axis, Zip};
use sparq_core::{Codes, Quantized};
use sparq_model::LinearId;

/// A compressed layer whose codes and scales follow their gradients.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) block: usize,
    pub(super) id: LinearId,
    /// As solved.
    start: Frozen,
    /// Factors on the scales of groups, `[out, groups]`, or of rows where codes have no width.
    scales: Adam,
    groups: usize,
    /// Factors on the steps of columns, where columns have steps.
    columns: Option<Adam>,
    /// Codes of fixed width before they are rounded, as steps from zero, `[out, in]`.
    steps: Option<Adam>,
}

impl Layer {
    pub(super) fn new(block: usize, id: LinearId, start: Frozen) -> Self {
        let ones = |count| Adam::new(vec![1.0; count]);
        let (scales, groups, columns, steps) = match &start.codes {
            Codes::Grid(grid) => {
                let steps = grid.steps().iter().map(|step| f32::from(*step)).collect();
                (ones(grid.grids.len()), grid.grids.ncols(), None, Some(Adam::new(steps)))
            }
            Codes::Steps(stepped) => (ones(stepped.rows.len()), 1, Some(ones(stepped.columns.len())), None),
        };
        Self { block, id, start, scales, groups, columns, steps }
    }

    /// The layer as it is now: scales in the type they are stored in, codes rounded; what was removed stays zero.
    pub(super) fn codes(&self) -> Codes {
        let shape = (self.scales.values.len() / self.groups.max(1), self.groups);
        let scales = ArrayView2::from_shape(shape, &self.scales.values);
        let columns = self.columns.as_ref().map_or(&[][..], |columns| &columns.values);
        let mut codes =
            scales.map_or_else(|_| self.start.codes.clone(), |scales| self.start.codes.rescaled(scales, columns));
        if let (Codes::Grid(grid), Some(steps)) = (&mut codes, &self.steps) {
            self.round(grid, &steps.values);
        }
        codes
    }

    fn round(&self, Quantized { scheme, codes, grids }: &mut Quantized, steps: &[f32]) {
        let (most, width) = (f32::from(scheme.bits.max_code()), codes.ncols());
        let size = scheme.granularity.size(width);
        let kept = self.start.mask.as_ref().map(sparq_core::Mask::view);
        for ((row, mut codes), steps) in codes.outer_iter_mut().enumerate().zip(steps.chunks_exact(width.max(1))) {
            for (column, (code, step)) in codes.iter_mut().zip(steps).enumerate() {
                if kept.is_none_or(|kept| kept[[row, column]]) {
                    let zero = f32::from(grids[[row, column / size]].zero);
                    *code = (step.round_ties_even() + zero).clamp(0.0, most) as u8;
                }
            }
        }
    }

    /// The gradient at the weight joins those at what it is made of. With `w = scale · step`, a scale's is the sum of
    /// `weight · gradient` over all that it multiplies, divided by its factor; a step's is `scale · gradient`, as if rounding
    /// were not there (Bengio et al., arXiv 1308.3432, section 4).
    pub(super) fn add(&mut self, weight: ArrayView2<'_, f32>, gradient: &Array2<f32>) {
        let products = &weight * gradient;
        let size = weight.ncols().div_ceil(self.groups.max(1));
        let of_groups = products
            .outer_iter()
            .flat_map(|row| row.axis_chunks_iter(Axis(0), size).map(|group| group.sum()).collect::<Vec<_>>());
        accumulate(&mut self.scales, of_groups);
        if let Some(columns) = &mut self.columns {
            accumulate(columns, products.sum_axis(Axis(0)));
        }
        if let (Some(steps), Codes::Grid(grid)) = (&mut self.steps, &self.start.codes) {
            let sums = steps.gradient.chunks_exact_mut(weight.ncols().max(1));
            let factors = self.scales.values.chunks_exact(self.groups.max(1));
            for (((sums, gradient), grids), factors) in
                sums.zip(gradient.outer_iter()).zip(grid.grids.outer_iter()).zip(factors)
            {
                let groups =
                    sums.chunks_mut(size).zip(gradient.axis_chunks_iter(Axis(0), size)).zip(grids).zip(factors);
                for (((sums, gradient), grid), factor) in groups {
                    let scale = grid.scale * factor;
                    Zip::from(sums).and(gradient).for_each(|sum, gradient| *sum += scale * gradient);
                }
            }
        }
    }

    /// All that follows a gradient, each with its rate: that of scales, or that of codes.
    pub(super) fn parts(&mut self, of_scales: f32, of_codes: f32) -> impl Iterator<Item = (&mut Adam, f32)> {
        let scales = std::iter::once(&mut self.scales).chain(&mut self.columns).map(move |part| (part, of_scales));
        scales.chain(self.steps.as_mut().map(|part| (part, of_codes)))
    }
}

fn accumulate(factors: &mut Adam, products: impl IntoIterator<Item = f32>) {
    for ((sum, factor), product) in factors.gradient.iter_mut().zip(&factors.values).zip(products) {
        *sum += product / factor;
    }
}
