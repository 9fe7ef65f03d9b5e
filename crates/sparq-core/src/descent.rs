use crate::{CompressError, Curvature, Granularity, Grid, Mask, Quantized, Result};
use ndarray::{Array2, ArrayView1, ArrayView2, Zip, s};
use rayon::prelude::*;
use std::ops::Range;

/// Columns whose changes are gathered before they reach the rest of the gradient as one product.
pub(crate) const BLOCK_COLUMNS: usize = 128;
/// Rows one task works through: enough to share a block of `H` in cache.
const ROWS_PER_TASK: usize = 16;

/// Coordinate descent on a rounded weight: each scale and each code in turn is set to what is best given all others, for
///
/// ```text
/// tr((W - V) (H + λ·I) (W - V)ᵀ)     over V on the grids, zero where the mask removes
/// ```
///
/// A column sweep chooses every code once and knows only the columns before it. Descent knows all columns, and never makes
/// the objective worse. One round goes through the columns, a few groups at a time: it sets the scales of these groups, then
/// their codes, column by column, for all rows together. Zero points stay. A scale for the whole matrix stays too.
///
/// Cost: `out · in²` multiply-adds a round, as matrix products; memory: two copies of the weight and one of the Hessian. Same bits for any number of threads.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Bits, CoordinateDescent, Curvature, Grid, Hessian, QuantScheme, Quantized};
/// // Two channels that always agree: only the sum of their weights counts, and 2 · 0.4 is nearer to 1 · 1.0 than to 0.
/// let hessian = Hessian::Full { matrix: array![[1.0, 1.0], [1.0, 1.0]], tokens: 8 };
/// let scheme = QuantScheme::new(Bits::B2).asymmetric();
/// let mut quantized = Quantized { scheme, codes: array![[0, 0]], grids: array![[Grid { scale: 1.0, zero: 0 }]] };
/// CoordinateDescent::new(1).run(array![[0.4, 0.4]].view(), None, &mut quantized, &Curvature::new(hessian))?;
/// assert_eq!(quantized.codes, array![[1, 0]]);
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// On codes alone: QuantEase (Behdin et al. 2023, arXiv:2309.01885). Here scales move too, and a mask may hold zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoordinateDescent {
    rounds: usize,
}

impl CoordinateDescent {
    /// With this many rounds over scales and codes.
    pub fn new(rounds: usize) -> Self {
        Self { rounds }
    }

    /// Improves `quantized` towards `target` = `W`, `[out, in]`. What `mask` removes must be zero already and stays zero.
    /// Scales are rounded to their storage type. Without a [damped matrix](Curvature::damped) every weight is on its own
    /// and nothing is done.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the parts do not fit each other.
    pub fn run(
        &self,
        target: ArrayView2<'_, f32>,
        mask: Option<&Mask>,
        quantized: &mut Quantized,
        curvature: &Curvature,
    ) -> Result<()> {
        let (rows, width) = target.dim();
        let group_size = quantized.scheme.granularity.size(width);
        check("codes", quantized.codes.dim(), (rows, width))?;
        check("grids", quantized.grids.dim(), (rows, width.div_ceil(group_size).max(1)))?;
        let Some(matrix) = damped_hessian((rows, width), mask, curvature)? else { return Ok(()) };
        if !quantized.codes.is_standard_layout() {
            quantized.codes = quantized.codes.as_standard_layout().into_owned();
        }

        let missing = &target - &quantized.dequantize();
        let kept = mask.map(|mask| mask.view().as_standard_layout().into_owned());
        let mut state = Descent { quantized, group_size, kept, matrix, missing };
        for _ in 0..self.rounds {
            for first in (0..width).step_by(state.span()) {
                state.visit(first..width.min(first + state.span()));
            }
        }
        Ok(())
    }
}

/// Refuses what does not fit.
pub(crate) fn check(what: &'static str, got: (usize, usize), expected: (usize, usize)) -> Result<()> {
    CompressError::check_shape("descent", what, got, expected)
}

/// `H + λI`, row-major, for a weight of this shape; none without a damped matrix or without rows. Refuses a mask or a Hessian
/// that does not fit.
pub(crate) fn damped_hessian(
    (rows, width): (usize, usize),
    mask: Option<&Mask>,
    curvature: &Curvature,
) -> Result<Option<Array2<f32>>> {
    if let Some(mask) = mask {
        check("mask", mask.dim(), (rows, width))?;
    }
    let Some((matrix, shift)) = curvature.damped().filter(|_| rows > 0) else { return Ok(None) };
    check("Hessian", matrix.dim(), (width, width))?;
    Ok(Some(shifted(matrix, shift)))
}

/// `H + λI`, row-major.
pub(crate) fn shifted(matrix: ArrayView2<'_, f32>, shift: f64) -> Array2<f32> {
    let mut matrix = matrix.as_standard_layout().into_owned();
    matrix.diag_mut().mapv_inplace(|value| (f64::from(value) + shift) as f32);
    matrix
}

struct Descent<'a> {
    quantized: &'a mut Quantized,
    group_size: usize,
    kept: Option<Array2<bool>>,
    /// `H + λI`.
    matrix: Array2<f32>,
    /// `W - V`, row-major.
    missing: Array2<f32>,
}

impl Descent<'_> {
    /// Columns that are visited together: whole groups, of about a block.
    fn span(&self) -> usize {
        match self.quantized.scheme.granularity {
            Granularity::Tensor => BLOCK_COLUMNS,
            _ => (BLOCK_COLUMNS / self.group_size).max(1) * self.group_size,
        }
    }

    /// Sets the scales and then the codes of some columns.
    fn visit(&mut self, columns: Range<usize>) {
        // Half the falling gradient of the objective by these columns of `V`: `(W - V)(H + λI)`.
        let mut gradient = Array2::zeros((self.missing.nrows(), columns.len()));
        let here = self.matrix.slice(s![.., columns.clone()]);
        sparq_linalg::gemm(1.0, self.missing.view(), here, 0.0, gradient.view_mut());
        if self.quantized.scheme.granularity != Granularity::Tensor {
            for first in columns.clone().step_by(self.group_size) {
                self.move_scales(first..columns.end.min(first + self.group_size), &columns, &mut gradient);
            }
        }
        let Quantized { scheme, codes, grids } = &mut *self.quantized;
        let lattice = GridCodes { grids, group_size: self.group_size, max_code: scheme.bits.max_code() };
        for first in columns.clone().step_by(BLOCK_COLUMNS) {
            let block = first..columns.end.min(first + BLOCK_COLUMNS);
            let inside = self.matrix.slice(s![block.clone(), block.clone()]);
            let at = first - columns.start;
            let moved = move_block(&lattice, first, inside, (&gradient, at), codes, self.kept.as_ref());
            let Some(changes) = moved else { continue };
            let mut missing = self.missing.slice_mut(s![.., block.clone()]);
            Zip::from(&mut missing).and(&changes).par_for_each(|missing, change| *missing -= change);
            if block.end < columns.end {
                let right = self.matrix.slice(s![block.clone(), block.end..columns.end]);
                let rest = gradient.slice_mut(s![.., at + block.len()..]);
                sparq_linalg::gemm(-1.0, changes.view(), right, 1.0, rest);
            }
        }
    }

    /// Sets the scales of the group with these `columns` to the best ones for its codes and all that is around it. The
    /// gradient `around` it follows.
    fn move_scales(&mut self, columns: Range<usize>, around: &Range<usize>, gradient: &mut Array2<f32>) {
        let (size, storable) = (self.group_size, self.quantized.scheme.scale_type);
        let group = columns.start / size;
        let mut steps = Array2::zeros((gradient.nrows(), columns.len()));
        let lines = steps.outer_iter_mut().into_par_iter().zip(self.quantized.codes.outer_iter());
        lines.zip(self.quantized.grids.outer_iter()).for_each(|((mut steps, codes), grids)| {
            let zero = f32::from(grids[group].zero);
            Zip::from(&mut steps)
                .and(codes.slice(s![columns.clone()]))
                .for_each(|step, &code| *step = f32::from(code) - zero);
        });
        let mut product = Array2::zeros(gradient.dim());
        let here = self.matrix.slice(s![columns.clone(), around.clone()]);
        sparq_linalg::gemm(1.0, steps.view(), here, 0.0, product.view_mut());
        let of_group = columns.start - around.start..columns.end - around.start;
        let lines = gradient.outer_iter_mut().into_par_iter().zip(product.outer_iter());
        let lines = lines.zip(self.quantized.grids.outer_iter_mut()).zip(steps.outer_iter());
        lines.zip(self.missing.outer_iter_mut()).for_each(
            |((((mut gradient, product), mut grids), steps), mut missing)| {
                let along = |values: ArrayView1<'_, f32>| -> f64 {
                    let values = values.slice_move(s![of_group.clone()]);
                    values.iter().zip(steps).map(|(&value, &step)| f64::from(value) * f64::from(step)).sum()
                };
                let (slope, curvature) = (along(gradient.view()), along(product));
                let old = grids[group].scale;
                let best = (f64::from(old) + slope / curvature) as f32;
                let new = storable.round_beside(best, grids.as_slice().unwrap_or_default(), group);
                let change = new - old;
                // Rounding a scale for storage may overshoot; then the old one is better. Of a group without any step the gain
                // is not a number.
                let gain = f64::from(change) * (2.0 * slope - f64::from(change) * curvature);
                if gain > 0.0 {
                    grids[group].scale = new;
                    Zip::from(&mut gradient).and(product).for_each(|g, &p| *g -= change * p);
                    let mut missing = missing.slice_mut(s![columns.clone()]);
                    Zip::from(&mut missing).and(steps).for_each(|missing, &step| *missing -= change * step);
                }
            },
        );
    }
}

/// Codes on the grids of groups.
struct GridCodes<'a> {
    grids: &'a Array2<Grid>,
    group_size: usize,
    max_code: u8,
}

impl Lattice for GridCodes<'_> {
    type Code = u8;

    fn value(&self, row: usize, column: usize, code: u8) -> f32 {
        self.grids[[row, column / self.group_size]].decode(code)
    }

    fn choose(&self, row: usize, column: usize, wanted: f32, _: f32) -> u8 {
        self.grids[[row, column / self.group_size]].encode(wanted, self.max_code)
    }
}

/// What codes mean, and which is best.
pub(crate) trait Lattice: Sync {
    /// A code.
    type Code: Copy + PartialEq + Send;

    /// The weight that `code` stands for.
    fn value(&self, row: usize, column: usize, code: Self::Code) -> f32;

    /// The best code where the weight should be `wanted` and a miss costs its square times `stiffness`.
    fn choose(&self, row: usize, column: usize, wanted: f32, stiffness: f32) -> Self::Code;
}

/// Sets each code in turn to the best one given all others, column by column for all rows together; false if none changed.
/// `matrix` is `H + λI`, `gradient` is `(W - V)(H + λI)` and follows the codes; both, and `codes`, are row-major.
pub(crate) fn move_codes<L: Lattice>(
    lattice: &L,
    codes: &mut Array2<L::Code>,
    kept: Option<&Array2<bool>>,
    matrix: ArrayView2<'_, f32>,
    gradient: &mut Array2<f32>,
) -> bool {
    let width = gradient.ncols();
    let mut any = false;
    for first in (0..width).step_by(BLOCK_COLUMNS) {
        let columns = first..width.min(first + BLOCK_COLUMNS);
        let inside = matrix.slice(s![columns.clone(), columns.clone()]);
        if let Some(changes) = move_block(lattice, first, inside, (gradient, first), codes, kept) {
            any = true;
            let around = matrix.slice(s![columns, ..]);
            sparq_linalg::gemm(-1.0, changes.view(), around, 1.0, gradient.view_mut());
        }
    }
    any
}

/// Sets the codes of a block of columns from `first` on, and returns by how much each weight changed; none if none did.
/// `matrix` is `H + λI` inside the block; the block's gradient begins at column `at` of `gradient`.
fn move_block<L: Lattice>(
    lattice: &L,
    first: usize,
    matrix: ArrayView2<'_, f32>,
    (gradient, at): (&Array2<f32>, usize),
    codes: &mut Array2<L::Code>,
    kept: Option<&Array2<bool>>,
) -> Option<Array2<f32>> {
    let ((rows, width), count) = (codes.dim(), matrix.nrows());
    let columns = first..first + count;
    let kept = kept.and_then(|kept| kept.as_slice());
    let mut changes = Array2::<f32>::zeros((rows, count));
    let block = CodeBlock { first, matrix, lattice };
    let task = |width: usize| (ROWS_PER_TASK * width).max(1);
    let moved: Vec<bool> = codes
        .as_slice_mut()
        .unwrap_or_default()
        .par_chunks_mut(task(width))
        .zip(changes.as_slice_mut().unwrap_or_default().par_chunks_mut(task(count)))
        .zip(gradient.as_slice().unwrap_or_default().par_chunks(task(gradient.ncols())))
        .enumerate()
        .map(|(index, ((codes, changes), gradients))| {
            let rows = codes.chunks_exact_mut(width).zip(changes.chunks_exact_mut(count));
            let rows = rows.zip(gradients.chunks_exact(gradient.ncols()));
            let mut moved = false;
            for (row, ((codes, changes), gradient)) in (index * ROWS_PER_TASK..).zip(rows) {
                let kept = kept.map(|kept| &kept[row * width + columns.start..row * width + columns.end]);
                moved |= block.descend(row, &mut codes[columns.clone()], changes, &gradient[at..at + count], kept);
            }
            moved
        })
        .collect();
    moved.contains(&true).then_some(changes)
}

/// A block of columns, for the rows to go through on their own.
struct CodeBlock<'a, L> {
    first: usize,
    /// `H + λI` inside the block.
    matrix: ArrayView2<'a, f32>,
    lattice: &'a L,
}

impl<L: Lattice> CodeBlock<'_, L> {
    /// One row: moves its codes and notes by how much each weight changed.
    fn descend(
        &self,
        row: usize,
        codes: &mut [L::Code],
        changes: &mut [f32],
        gradient: &[f32],
        kept: Option<&[bool]>,
    ) -> bool {
        let mut local = [0.0_f32; BLOCK_COLUMNS];
        let local = &mut local[..gradient.len()];
        local.copy_from_slice(gradient);
        let mut moved = false;
        for offset in 0..codes.len() {
            if kept.is_some_and(|kept| !kept[offset]) {
                continue;
            }
            let stiffness = self.matrix[[offset, offset]];
            let step = local[offset] / stiffness;
            if !step.is_finite() {
                continue;
            }
            let (column, old) = (self.first + offset, codes[offset]);
            let value = self.lattice.value(row, column, old);
            let new = self.lattice.choose(row, column, value + step, stiffness);
            if new == old {
                continue;
            }
            let change = self.lattice.value(row, column, new) - value;
            codes[offset] = new;
            changes[offset] = change;
            moved = true;
            if let Some(around) = self.matrix.row(offset).to_slice() {
                for (local, spread) in local.iter_mut().zip(around) {
                    *local -= change * spread;
                }
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{correlated_hessian, random};
    use crate::{Bits, Damping, Hessian, QuantScheme, ScaleType, relative_output_error};
    use proptest::prelude::*;

    struct Problem {
        target: Array2<f32>,
        mask: Mask,
        quantized: Quantized,
        curvature: Curvature,
    }

    /// Weights rounded plainly to 3 bits, a third of them removed, on inputs that share a few directions.
    fn problem(rows: usize, width: usize, group_size: usize, seed: u64) -> Problem {
        let target = random(rows, width, seed + 3);
        let mask = Mask::new(random(rows, width, seed + 4).mapv(|value| value > -0.33));
        let scheme = QuantScheme::new(Bits::B3).group(group_size).expect("valid");
        let group_size = scheme.granularity.size(width);
        let grids = random(rows, width.div_ceil(group_size), seed + 5)
            .mapv(|value| Grid { scale: ScaleType::F16.round(0.3 + 0.05 * value), zero: 4 });
        let codes = Array2::from_shape_fn((rows, width), |(row, column)| {
            let kept = if mask.view()[[row, column]] { target[[row, column]] } else { 0.0 };
            grids[[row, column / group_size]].encode(kept, 7)
        });
        let curvature = damped(correlated_hessian(width, seed), 0.5);
        Problem { target, mask, quantized: Quantized { scheme, codes, grids }, curvature }
    }

    fn damped(hessian: Hessian, damping: f64) -> Curvature {
        Curvature::new(hessian).with_damping(Damping::new(damping).expect("valid"))
    }

    impl Problem {
        fn descend(&mut self, rounds: usize) {
            let descent = CoordinateDescent::new(rounds);
            descent
                .run(self.target.view(), Some(&self.mask), &mut self.quantized, &self.curvature)
                .expect("everything fits");
        }

        /// What descent minimises: the error under `H + λI`.
        fn error_of(&self, quantized: &Quantized) -> f64 {
            let (matrix, shift) = self.curvature.damped().expect("positive definite");
            let matrix = &matrix + &(Array2::<f32>::eye(matrix.nrows()) * shift as f32);
            let (weight, tokens) = (quantized.dequantize(), self.curvature.tokens());
            relative_output_error(self.target.view(), weight.view(), &Hessian::Full { matrix, tokens })
        }

        fn error(&self) -> f64 {
            self.error_of(&self.quantized)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_never_gets_worse_and_respects_mask_and_range(
            rows in 1_usize..20, width in 1_usize..200, group in 1_usize..80, seed in 0_u64..1000,
        ) {
            let mut problem = problem(rows, width, group, seed);
            let mut last = problem.error();
            for _ in 0..3 {
                problem.descend(1);
                let now = problem.error();
                prop_assert!(now <= last * 1.000_1 + 1e-6, "{} after {}", now, last);
                last = now;
            }
            for ((place, code), value) in problem.quantized.codes.indexed_iter().zip(&problem.quantized.dequantize()) {
                prop_assert!(*code <= 7);
                prop_assert!(problem.mask.view()[place] || value.to_bits() == 0);
            }
            prop_assert!(problem.quantized.grids.iter().all(|grid| grid.scale > 0.0 && grid.zero == 4));
        }

        #[test]
        fn when_it_stops_no_single_code_can_do_better(rows in 1_usize..3, width in 1_usize..300, seed in 0_u64..1000) {
            let mut problem = problem(rows, width, 3, seed);
            problem.descend(100);
            let least = problem.error();
            // Columns of every block of the descent, the last among them.
            for column in (0..width).step_by(41).chain([width - 1]) {
                if !problem.mask.view()[[0, column]] {
                    continue;
                }
                for code in 0..8 {
                    let mut other = problem.quantized.clone();
                    other.codes[[0, column]] = code;
                    let error = problem.error_of(&other);
                    prop_assert!(error >= least * 0.999_9 - 1e-7, "{} {}", error, least);
                }
            }
        }

        #[test]
        fn threads_change_no_bit(rows in 1_usize..70, width in 1_usize..200, seed in 0_u64..1000) {
            let run = || {
                let mut problem = problem(rows, width, 32, seed);
                problem.descend(2);
                problem.quantized
            };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a thread pool");
            prop_assert_eq!(run(), pool.install(run));
        }
    }

    #[test]
    fn a_second_round_improves_on_the_first() {
        let errors = [1, 2].map(|rounds| {
            let mut problem = problem(16, 96, 16, 6);
            problem.descend(rounds);
            problem.error()
        });
        assert!(errors[1] < 0.999 * errors[0], "{errors:?}");
    }

    #[test]
    fn a_scale_that_would_get_worse_by_rounding_stays() {
        // The best scale lies between two values of the storage type, nearer to the one that is there.
        let mut problem = problem(1, 1, 1, 1);
        problem.mask = Mask::new(Array2::from_elem((1, 1), false)); // codes do not move
        problem.quantized.codes = Array2::from_elem((1, 1), 6);
        for (there, wanted, expected) in [(1.0, 1.000_2, 1.0), (1.0, 1.000_9, 1.000_976_6), (0.5, 2.0, 2.0)] {
            problem.quantized.grids = Array2::from_elem((1, 1), Grid { scale: there, zero: 4 });
            problem.target = Array2::from_elem((1, 1), 2.0 * wanted);
            problem.descend(1);
            assert_eq!(problem.quantized.grids[[0, 0]].scale, expected, "{there} {wanted}");
        }
    }

    #[test]
    fn codes_move_in_every_block_of_columns() {
        let mut problem = problem(16, 3 * BLOCK_COLUMNS, 64, 5);
        let before = problem.quantized.codes.clone();
        problem.descend(1);
        for first in (0..3 * BLOCK_COLUMNS).step_by(BLOCK_COLUMNS) {
            let block = s![.., first..first + BLOCK_COLUMNS];
            assert_ne!(before.slice(block), problem.quantized.codes.slice(block), "columns from {first}");
        }
    }

    #[test]
    fn the_memory_layout_is_of_no_consequence() {
        let (mut by_rows, mut by_columns) = (problem(5, 40, 8, 2), problem(5, 40, 8, 2));
        let codes = &mut by_columns.quantized.codes;
        *codes = codes.t().as_standard_layout().into_owned().reversed_axes();
        assert!(!codes.is_standard_layout());
        let before = by_rows.quantized.codes.clone();
        by_rows.descend(2);
        by_columns.descend(2);
        assert_ne!(by_rows.quantized.codes, before, "there is something to do");
        assert_eq!(by_rows.quantized, by_columns.quantized);
    }

    #[test]
    fn a_scale_becomes_the_best_one_for_its_codes() {
        let mut problem = problem(4, 24, 24, 3);
        let scaled = |quantized: &Quantized, factor: f32| {
            let grids = quantized.grids.mapv(|grid| Grid { scale: factor * grid.scale, ..grid });
            Quantized { grids, ..quantized.clone() }
        };
        problem.quantized = scaled(&problem.quantized, 1.7);
        let (before, codes) = (problem.error(), problem.quantized.codes.clone());
        // One step over scales alone: codes never move where a mask keeps nothing.
        let nothing = Mask::new(Array2::from_elem((4, 24), false));
        let kept = std::mem::replace(&mut problem.mask, nothing);
        problem.descend(1);
        problem.mask = kept;
        assert_eq!(problem.quantized.codes, codes);
        for factor in [0.98, 1.02] {
            assert!(problem.error() < problem.error_of(&scaled(&problem.quantized, factor)));
        }
        assert!(problem.error() < 0.9 * before, "{} {before}", problem.error());
    }

    #[test]
    fn raised_damping_is_the_damping_of_the_descent_too() {
        // The damping that works for this matrix is 0.1, whether 0.01 or 0.1 is asked for.
        let indefinite = || {
            let entry = |(i, j)| {
                if i == j {
                    1.0
                } else if i / 2 == j / 2 {
                    1.05
                } else {
                    0.0
                }
            };
            Hessian::Full { matrix: Array2::from_shape_fn((24, 24), entry), tokens: 30 }
        };
        let descended = |damping: f64| {
            let mut problem = problem(8, 24, 8, 4);
            problem.curvature = damped(indefinite(), damping);
            problem.descend(3);
            problem.quantized
        };
        assert_eq!(descended(0.01), descended(0.1));
    }

    #[test]
    fn without_a_damped_matrix_nothing_moves() {
        let mut problem = problem(3, 8, 4, 1);
        let before = problem.quantized.clone();
        let overflowed = Array2::from_shape_fn((8, 8), |(i, j)| if i == j { 1.0 } else { f32::NAN });
        for hessian in [
            Hessian::None,
            Hessian::Full { matrix: Array2::zeros((8, 8)), tokens: 0 },
            Hessian::Full { matrix: overflowed, tokens: 9 },
        ] {
            problem.curvature = Curvature::new(hessian);
            problem.descend(3);
            assert_eq!(problem.quantized, before);
        }
    }
}
