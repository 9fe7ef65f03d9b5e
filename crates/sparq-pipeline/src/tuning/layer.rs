use super::Frozen;
use super::adam::Adam;
use ndarray::{Array2, ArrayView2, Axis, Zip};
use rayon::prelude::*;
use sparq_core::{Codes, Quantized};
use sparq_model::LinearId;

/// How far from its code a step begins at most.
const MOST_OFF: f32 = 0.45;

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
    /// Of a layer whose weight was `dense`. A step begins at the dense weight, held within [`MOST_OFF`] of its code: a code whose
    /// weight lies near the next one moves first.
    pub(super) fn new(block: usize, id: LinearId, start: Frozen, dense: ArrayView2<'_, f32>) -> Self {
        let ones = |count| Adam::new(vec![1.0; count]);
        let (scales, groups, columns, steps) = match &start.codes {
            Codes::Grid(grid) => {
                let size = grid.group_size();
                let before = |((row, column), step): ((usize, usize), &i16)| {
                    let (step, scale) = (f32::from(*step), grid.grids[[row, column / size]].scale);
                    step + (dense[[row, column]] / scale - step).clamp(-MOST_OFF, MOST_OFF)
                };
                let steps = grid.steps().indexed_iter().map(before).collect();
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
        let (width, groups) = (weight.ncols().max(1), self.groups.max(1));
        let size = width.div_ceil(groups);
        let scales = self.scales.gradient.par_chunks_mut(groups).zip(self.scales.values.par_chunks(groups));
        scales.enumerate().for_each(|(row, (sums, factors))| {
            let products = &weight.row(row) * &gradient.row(row);
            add_relative(sums, factors, products.axis_chunks_iter(Axis(0), size).map(|group| group.sum()));
        });
        if let Some(columns) = &mut self.columns {
            add_relative(&mut columns.gradient, &columns.values, (&weight * gradient).sum_axis(Axis(0)));
        }
        if let (Some(steps), Codes::Grid(grid)) = (&mut self.steps, &self.start.codes) {
            let sums = steps.gradient.par_chunks_mut(width).zip(self.scales.values.par_chunks(groups));
            sums.enumerate().for_each(|(row, (sums, factors))| {
                let gradient = gradient.row(row);
                let groups = sums.chunks_mut(size).zip(gradient.axis_chunks_iter(Axis(0), size));
                for ((sums, gradient), (grid, factor)) in groups.zip(grid.grids.row(row).iter().zip(factors)) {
                    let scale = grid.scale * factor;
                    Zip::from(sums).and(gradient).for_each(|sum, gradient| *sum += scale * gradient);
                }
            });
        }
    }

    /// All that follows a gradient, each with its rate: that of scales, or that of codes.
    pub(super) fn parts(&mut self, of_scales: f32, of_codes: f32) -> impl Iterator<Item = (&mut Adam, f32)> {
        let scales = std::iter::once(&mut self.scales).chain(&mut self.columns).map(move |part| (part, of_scales));
        scales.chain(self.steps.as_mut().map(|part| (part, of_codes)))
    }
}

/// Adds to the gradient at each factor what the sum of weights times gradients, of all weights that it multiplies, says.
fn add_relative(sums: &mut [f32], factors: &[f32], products: impl IntoIterator<Item = f32>) {
    for ((sum, factor), product) in sums.iter_mut().zip(factors).zip(products) {
        *sum += product / factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use sparq_core::{Bits, Granularity, Grid, Mask, QuantScheme, Stepped};

    fn grid() -> (Frozen, Array2<f32>) {
        let scheme = QuantScheme::new(Bits::B3).granularity(Granularity::Group(2));
        let grids = Array2::from_shape_fn((2, 2), |(row, group)| Grid { scale: 0.5 + (row + group) as f32, zero: 4 });
        let codes = array![[0, 4, 7, 5], [3, 4, 6, 1]];
        let frozen = Frozen { codes: Codes::Grid(Quantized { scheme, codes, grids }), mask: None };
        // Near some codes, far from others.
        let dense = frozen.codes.dequantize() + array![[0.1, -0.3, 5.0, 0.2], [0.0, -9.0, 0.4, 0.6]];
        (frozen, dense)
    }

    #[test]
    fn it_begins_as_it_was_solved_and_a_code_nearer_to_the_next_moves_first() {
        let (frozen, dense) = grid();
        let mut layer = Layer::new(0, 0, frozen.clone(), dense.view());
        assert_eq!(layer.codes(), frozen.codes);
        let steps = layer.steps.as_mut().expect("of a grid");
        steps.values.iter_mut().for_each(|step| *step += 0.1);
        let moved = layer.codes();
        let Codes::Grid(moved) = moved else { panic!("still a grid") };
        // The largest code of three bits stays; 0.6 of a scale of 2.5 is not enough.
        assert_eq!(moved.codes, array![[0, 4, 7, 5], [3, 4, 6, 1]]);
        let steps = layer.steps.as_mut().expect("of a grid");
        steps.values.iter_mut().for_each(|step| *step += 0.3);
        let Codes::Grid(moved) = layer.codes() else { panic!("still a grid") };
        assert_eq!(moved.codes, array![[1, 4, 7, 6], [3, 4, 7, 2]]);
    }

    #[test]
    fn what_was_removed_stays_zero() {
        let (frozen, dense) = grid();
        let mask = Some(Mask::new(frozen.codes.dequantize().mapv(|value| value != 0.0)));
        let mut layer = Layer::new(0, 0, Frozen { mask, ..frozen }, dense.view());
        let zeros = |layer: &Layer| layer.codes().nonzero();
        let before = zeros(&layer);
        layer.steps.as_mut().expect("of a grid").values.iter_mut().for_each(|step| *step += 1.0);
        let kept = zeros(&layer);
        assert!(before.view().iter().zip(kept.view()).all(|(before, after)| *before || !after));
    }

    /// Of `Σ g · w` the gradients are the slopes: exactly for factors, and for codes over a whole step.
    #[test]
    fn gradients_are_slopes() {
        let gradient = array![[1.0, -2.0, 0.5, 3.0], [-1.5, 0.7, 2.0, -0.3]];
        let (frozen, dense) = grid();
        let stepped = Stepped {
            codes: array![[2, 0, -1, 5], [1, 1, -3, 0]],
            rows: vec![1.0, 2.0],
            columns: vec![0.5, 0.25, 1.0, 2.0],
        };
        let steps = Frozen { codes: Codes::Steps(stepped), mask: None };
        for frozen in [frozen, steps] {
            let mut layer = Layer::new(0, 0, frozen.clone(), dense.view());
            layer.add(layer.codes().dequantize().view(), &gradient);
            let parts = layer.parts(0.0, 1.0);
            let found: Vec<_> = parts.map(|(part, is_code)| (part.gradient.clone(), is_code == 1.0)).collect();
            for (index, (found, is_code)) in found.iter().enumerate() {
                for (at, found) in found.iter().enumerate() {
                    let mut moved = |change: f32| {
                        let value =
                            |layer: &mut Layer| layer.parts(0.0, 1.0).nth(index).map(|(part, _)| part.values[at]);
                        let before = value(&mut layer).expect("a part");
                        let set = |layer: &mut Layer, to: f32| {
                            layer.parts(0.0, 1.0).nth(index).expect("a part").0.values[at] = to;
                        };
                        set(&mut layer, before + change);
                        let loss = (layer.codes().dequantize() * &gradient).sum();
                        set(&mut layer, before);
                        loss
                    };
                    // Halves, which every type of scale holds; a code of 0 or 7 moves to the inside only.
                    let (more, less) = match (is_code, layer_code(&frozen, at)) {
                        (true, 7) => (0.0, -1.0),
                        (true, _) => (1.0, 0.0),
                        _ => (0.5, -0.5),
                    };
                    let slope = (moved(more) - moved(less)) / (more - less);
                    assert!((slope - found).abs() < 1e-3, "{index} {at}: {found} {slope}");
                }
            }
        }
    }

    fn layer_code(frozen: &Frozen, at: usize) -> u8 {
        frozen.codes.grid().and_then(|grid| grid.codes.iter().nth(at).copied()).unwrap_or(0)
    }
}
