use crate::{Damping, GroupParameters};
use ndarray::{Array2, ArrayView2, Zip, s};
use rayon::prelude::*;
use sparq_core::{CompressError, Hessian, Mask, Result};

/// Columns whose changes are gathered before they reach the rest of the gradient as one product.
const BLOCK_COLUMNS: usize = 128;
/// Rows one task works through: enough to share a block of `H` in cache.
const ROWS_PER_TASK: usize = 16;

/// Rounded weights as descent changes them: codes, grids, and who shares a grid.
#[derive(Debug)]
pub struct Rounded<'a> {
    /// `[out, in]`, each at most `max_code`.
    pub codes: &'a mut Array2<u8>,
    /// `[out, groups]`.
    pub parameters: &'a mut Array2<GroupParameters>,
    /// Columns in a group; the last one may be short.
    pub group_size: usize,
    /// The largest code.
    pub max_code: u8,
}

/// Coordinate descent on a rounded weight: each scale and each code in turn is set to what is best given all others, for
///
/// ```text
/// tr((W - V) (H + λ·I) (W - V)ᵀ)     over V on the grids, zero where the mask removes
/// ```
///
/// A column sweep decides every code once, seeing only the columns before it; descent sees them all, and never makes the
/// objective worse. One round passes over the scales of all groups, then over all codes, column by column; the rows of a
/// layer go together. Zero points stay.
///
/// Cost: `2 · out · in²` multiply-adds a round, as matrix products; memory: four copies of the weight
/// and one of the Hessian. Same bits for any number of threads.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::Hessian;
/// use sparq_obs::{CoordinateDescent, Damping, GroupParameters, Rounded};
/// // Two channels that always agree: only the sum of their weights counts, and 2 · 0.4 is nearer to 1 · 1.0 than to 0.
/// let hessian = Hessian::Full { matrix: array![[1.0, 1.0], [1.0, 1.0]], tokens: 8 };
/// let (mut codes, mut grid) = (array![[0_u8, 0]], array![[GroupParameters { scale: 1.0, zero: 0 }]]);
/// let rounded = Rounded { codes: &mut codes, parameters: &mut grid, group_size: 2, max_code: 3 };
/// CoordinateDescent::new(1).run(array![[0.4, 0.4]].view(), None, rounded, &hessian, Damping::default(), &|x| x)?;
/// assert_eq!(codes, array![[1, 0]]);
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// On codes alone: QuantEase (Behdin et al. 2023, arXiv:2309.01885). Here scales move too, and a mask may hold zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoordinateDescent {
    rounds: usize,
    scales: bool,
}

impl CoordinateDescent {
    /// With this many rounds over scales and codes.
    pub fn new(rounds: usize) -> Self {
        Self { rounds, scales: true }
    }

    /// Whether scales move, or codes alone.
    pub fn scales(mut self, on: bool) -> Self {
        self.scales = on;
        self
    }

    /// Improves `rounded` towards `target` = `W`, `[out, in]`. What `mask` removes must be zero already and stays zero.
    /// `storable` rounds a scale to its storage type. Without a full Hessian every weight is on its own and nothing is
    /// done.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the parts do not fit each other.
    pub fn run(
        &self,
        target: ArrayView2<'_, f32>,
        mask: Option<&Mask>,
        rounded: Rounded<'_>,
        hessian: &Hessian,
        damping: Damping,
        storable: &(dyn Fn(f32) -> f32 + Sync),
    ) -> Result<()> {
        let (rows, width) = target.dim();
        let shape = |what, got, expected| CompressError::check_shape("descent", what, got, expected);
        let size = rounded.group_size.clamp(1, width.max(1));
        shape("codes", rounded.codes.dim(), (rows, width))?;
        shape("grids", rounded.parameters.dim(), (rows, width.div_ceil(size).max(1)))?;
        if let Some(mask) = mask {
            shape("mask", mask.dim(), (rows, width))?;
        }
        let Hessian::Full { matrix, .. } = hessian else { return Ok(()) };
        shape("Hessian", matrix.dim(), (width, width))?;
        let Some(shift) = damping.shift(hessian).filter(|_| rows > 0) else { return Ok(()) };
        let mut matrix = matrix.as_standard_layout().into_owned();
        matrix.diag_mut().mapv_inplace(|value| (f64::from(value) + shift) as f32);

        let mut state = Descent {
            kept: mask.map(|mask| mask.view().as_standard_layout().into_owned()),
            gradient: Array2::zeros((rows, width)),
            product: Array2::zeros((rows, width)),
            matrix,
            rounded: Rounded { group_size: size, ..rounded },
        };
        if !state.rounded.codes.is_standard_layout() {
            *state.rounded.codes = state.rounded.codes.as_standard_layout().into_owned();
        }
        let missing = &target - &state.values();
        sparq_linalg::gemm(1.0, missing.view(), state.matrix.view(), 0.0, state.gradient.view_mut());
        drop(missing);
        for _ in 0..self.rounds {
            if self.scales {
                state.move_scales(storable);
            }
            if !state.move_codes() {
                break;
            }
        }
        Ok(())
    }
}

struct Descent<'a> {
    rounded: Rounded<'a>,
    kept: Option<Array2<bool>>,
    /// `H + λI`.
    matrix: Array2<f32>,
    /// `(W - V)(H + λI)`: half the falling gradient of the objective by `V`.
    gradient: Array2<f32>,
    /// Scratch space.
    product: Array2<f32>,
}

impl Descent<'_> {
    fn values(&self) -> Array2<f32> {
        let size = self.rounded.group_size;
        Array2::from_shape_fn(self.rounded.codes.dim(), |(row, column)| {
            self.rounded.parameters[[row, column / size]].decode(self.rounded.codes[[row, column]])
        })
    }

    /// Sets the scale of each group in turn to the best one for its codes and all that is around it.
    fn move_scales(&mut self, storable: &(dyn Fn(f32) -> f32 + Sync)) {
        let (rows, width) = self.gradient.dim();
        let size = self.rounded.group_size;
        for group in 0..width.div_ceil(size) {
            let columns = group * size..width.min((group + 1) * size);
            let steps = Array2::from_shape_fn((rows, columns.len()), |(row, offset)| {
                let zero = self.rounded.parameters[[row, group]].zero;
                f32::from(self.rounded.codes[[row, columns.start + offset]]) - f32::from(zero)
            });
            let around = self.matrix.slice(s![columns.clone(), ..]);
            sparq_linalg::gemm(1.0, steps.view(), around, 0.0, self.product.view_mut());
            let rows = self.gradient.outer_iter_mut().into_par_iter().zip(self.product.outer_iter());
            rows.zip(self.rounded.parameters.outer_iter_mut()).zip(steps.outer_iter()).for_each(
                |(((mut gradient, product), mut parameters), steps)| {
                    let along = |values: &ndarray::ArrayView1<'_, f32>| -> f64 {
                        let values = values.slice(s![columns.clone()]);
                        values.iter().zip(steps).map(|(&value, &step)| f64::from(value) * f64::from(step)).sum()
                    };
                    let (slope, curvature) = (along(&gradient.view()), along(&product));
                    let old = parameters[group].scale;
                    let new = storable((f64::from(old) + slope / curvature) as f32);
                    let change = new - old;
                    // Rounding a scale for storage may overshoot; then the old one is better.
                    let gain = f64::from(change) * (2.0 * slope - f64::from(change) * curvature);
                    if curvature > 0.0 && new > 0.0 && new.is_finite() && gain > 0.0 {
                        parameters[group].scale = new;
                        Zip::from(&mut gradient).and(product).for_each(|g, &p| *g -= change * p);
                    }
                },
            );
        }
    }

    /// Sets each code in turn to the best one given all others; false if none changed.
    fn move_codes(&mut self) -> bool {
        let (rows, width) = self.gradient.dim();
        let mut any = false;
        for first in (0..width).step_by(BLOCK_COLUMNS) {
            let columns = first..width.min(first + BLOCK_COLUMNS);
            let mut changes = Array2::<f32>::zeros((rows, columns.len()));
            let block = CodeBlock {
                first,
                matrix: self.matrix.slice(s![columns.clone(), columns.clone()]),
                group_size: self.rounded.group_size,
                max_code: self.rounded.max_code,
            };
            let task = |matrix_width: usize| (ROWS_PER_TASK * matrix_width).max(1);
            let groups = self.rounded.parameters.ncols();
            let parameters = self.rounded.parameters.as_standard_layout();
            let parameters = parameters.as_slice().unwrap_or_default();
            let kept = self.kept.as_ref().and_then(|kept| kept.as_slice());
            let moved: Vec<bool> = self
                .rounded
                .codes
                .as_slice_mut()
                .unwrap_or_default()
                .par_chunks_mut(task(width))
                .zip(changes.as_slice_mut().unwrap_or_default().par_chunks_mut(task(columns.len())))
                .zip(self.gradient.as_slice().unwrap_or_default().par_chunks(task(width)))
                .zip(parameters.par_chunks(task(groups)))
                .enumerate()
                .map(|(index, (((codes, changes), gradient), parameters))| {
                    let rows = codes
                        .chunks_exact_mut(width)
                        .zip(changes.chunks_exact_mut(columns.len()))
                        .zip(gradient.chunks_exact(width))
                        .zip(parameters.chunks_exact(groups));
                    let mut moved = false;
                    for (row, (((codes, changes), gradient), parameters)) in rows.enumerate() {
                        let row = index * ROWS_PER_TASK + row;
                        let kept = kept.map(|kept| &kept[row * width + columns.start..row * width + columns.end]);
                        moved |= block.descend(
                            &mut codes[columns.clone()],
                            changes,
                            &gradient[columns.clone()],
                            parameters,
                            kept,
                        );
                    }
                    moved
                })
                .collect();
            if moved.contains(&true) {
                any = true;
                let around = self.matrix.slice(s![columns, ..]);
                sparq_linalg::gemm(-1.0, changes.view(), around, 1.0, self.gradient.view_mut());
            }
        }
        any
    }
}

/// A block of columns, for the rows to go through on their own.
struct CodeBlock<'a> {
    first: usize,
    /// `H + λI` inside the block.
    matrix: ArrayView2<'a, f32>,
    group_size: usize,
    max_code: u8,
}

impl CodeBlock<'_> {
    /// One row: moves its codes and notes by how much each weight changed.
    fn descend(
        &self,
        codes: &mut [u8],
        changes: &mut [f32],
        gradient: &[f32],
        parameters: &[GroupParameters],
        kept: Option<&[bool]>,
    ) -> bool {
        let mut local = [0.0_f32; BLOCK_COLUMNS];
        let local = &mut local[..gradient.len()];
        local.copy_from_slice(gradient);
        let mut moved = false;
        for offset in 0..codes.len() {
            let curvature = self.matrix[[offset, offset]];
            if kept.is_some_and(|kept| !kept[offset]) || curvature.is_nan() || curvature <= 0.0 {
                continue;
            }
            let step = local[offset] / curvature;
            if !step.is_finite() {
                continue;
            }
            let grid = parameters[(self.first + offset) / self.group_size];
            let old = codes[offset];
            let value = grid.decode(old);
            let new = grid.encode(value + step, self.max_code);
            if new == old {
                continue;
            }
            let change = grid.decode(new) - value;
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
    use crate::relative_output_error;
    use crate::testing::{correlated_hessian, random};
    use proptest::prelude::*;

    #[derive(Clone)]
    struct Problem {
        target: Array2<f32>,
        mask: Mask,
        hessian: Hessian,
        codes: Array2<u8>,
        parameters: Array2<GroupParameters>,
        group_size: usize,
    }

    /// Weights rounded plainly to 3 bits, a third of them removed, on inputs that share a few directions.
    fn problem(rows: usize, width: usize, group_size: usize, seed: u64) -> Problem {
        let target = random(rows, width, seed + 3);
        let mask = Mask::new(random(rows, width, seed + 4).mapv(|value| value > -0.33));
        let parameters = random(rows, width.div_ceil(group_size), seed + 5)
            .mapv(|value| GroupParameters { scale: 0.3 + 0.05 * value, zero: 4 });
        let codes = Array2::from_shape_fn((rows, width), |(row, column)| {
            let kept = if mask.view()[[row, column]] { target[[row, column]] } else { 0.0 };
            parameters[[row, column / group_size]].encode(kept, 7)
        });
        Problem { target, mask, hessian: correlated_hessian(width, seed), codes, parameters, group_size }
    }

    impl Problem {
        fn descend(&mut self, descent: CoordinateDescent) {
            let rounded = Rounded {
                codes: &mut self.codes,
                parameters: &mut self.parameters,
                group_size: self.group_size,
                max_code: 7,
            };
            let half = |scale: f32| sparq_core::ScaleType::F16.round(scale);
            let damping = Damping::new(0.0).expect("valid");
            descent
                .run(self.target.view(), Some(&self.mask), rounded, &self.hessian, damping, &half)
                .expect("everything fits");
        }

        fn values(&self) -> Array2<f32> {
            Array2::from_shape_fn(self.codes.dim(), |(row, column)| {
                self.parameters[[row, column / self.group_size]].decode(self.codes[[row, column]])
            })
        }

        fn error(&self) -> f64 {
            relative_output_error(self.target.view(), self.values().view(), &self.hessian)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_never_gets_worse_and_respects_mask_and_range(
            rows in 1_usize..20, width in 1_usize..200, group in 1_usize..80, scales: bool, seed in 0_u64..1000,
        ) {
            let mut problem = problem(rows, width, group, seed);
            let mut last = problem.error();
            for _ in 0..3 {
                problem.descend(CoordinateDescent::new(1).scales(scales));
                let now = problem.error();
                prop_assert!(now <= last * 1.000_1 + 1e-6, "{} after {}", now, last);
                last = now;
            }
            for ((place, code), value) in problem.codes.indexed_iter().zip(&problem.values()) {
                prop_assert!(*code <= 7);
                prop_assert!(problem.mask.view()[place] || value.to_bits() == 0);
            }
            prop_assert!(problem.parameters.iter().all(|grid| grid.scale > 0.0 && grid.zero == 4));
        }

        #[test]
        fn when_it_stops_no_single_code_can_do_better(width in 1_usize..10, seed in 0_u64..1000) {
            let mut problem = problem(1, width, 3, seed);
            problem.descend(CoordinateDescent::new(100).scales(false));
            let least = problem.error();
            for column in (0..width).filter(|&column| problem.mask.view()[[0, column]]) {
                for code in 0..8 {
                    let mut other = problem.clone();
                    other.codes[[0, column]] = code;
                    prop_assert!(other.error() >= least * 0.999_9 - 1e-7, "{} {}", other.error(), least);
                }
            }
        }

        #[test]
        fn threads_change_no_bit(rows in 1_usize..70, width in 1_usize..200, seed in 0_u64..1000) {
            let run = || {
                let mut problem = problem(rows, width, 32, seed);
                problem.descend(CoordinateDescent::new(2));
                (problem.codes, problem.parameters)
            };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a thread pool");
            prop_assert_eq!(run(), pool.install(run));
        }
    }

    #[test]
    fn the_memory_layout_is_of_no_consequence() {
        let mut by_rows = problem(5, 40, 8, 2);
        let mut by_columns = by_rows.clone();
        by_columns.codes = by_columns.codes.t().as_standard_layout().into_owned().reversed_axes();
        assert!(!by_columns.codes.is_standard_layout());
        let before = by_rows.codes.clone();
        by_rows.descend(CoordinateDescent::new(2));
        by_columns.descend(CoordinateDescent::new(2));
        assert_ne!(by_rows.codes, before, "there is something to do");
        assert_eq!((by_rows.codes, by_rows.parameters), (by_columns.codes, by_columns.parameters));
    }

    #[test]
    fn a_scale_becomes_the_best_one_for_its_codes() {
        let mut problem = problem(4, 24, 24, 3);
        problem.parameters.mapv_inplace(|grid| GroupParameters { scale: 1.7 * grid.scale, ..grid });
        let before = problem.clone();
        // One step over scales alone: codes that never move are those of a mask that keeps nothing.
        let nothing = Mask::new(Array2::from_elem((4, 24), false));
        let kept = std::mem::replace(&mut problem.mask, nothing);
        problem.descend(CoordinateDescent::new(1));
        problem.mask = kept;
        assert_eq!(problem.codes, before.codes);
        for factor in [0.98, 1.02] {
            let mut other = problem.clone();
            other.parameters.mapv_inplace(|grid| GroupParameters { scale: factor * grid.scale, ..grid });
            assert!(problem.error() < other.error());
        }
        assert!(problem.error() < 0.9 * before.error(), "{} {}", problem.error(), before.error());
    }

    #[test]
    fn without_curvature_nothing_moves() {
        let mut problem = problem(3, 8, 4, 1);
        let before = problem.clone();
        let overflowed = Array2::from_shape_fn((8, 8), |(i, j)| if i == j { 1.0 } else { f32::NAN });
        for hessian in [
            Hessian::None,
            Hessian::Full { matrix: Array2::zeros((8, 8)), tokens: 0 },
            Hessian::Full { matrix: overflowed, tokens: 9 },
        ] {
            problem.hessian = hessian;
            problem.descend(CoordinateDescent::new(3));
            assert_eq!((&problem.codes, &problem.parameters), (&before.codes, &before.parameters));
        }
    }
}
