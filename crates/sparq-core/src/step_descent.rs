use crate::descent::{BLOCK_COLUMNS, Lattice, check, damped_hessian, move_codes};
use crate::stepped::{choose, decode};
use crate::{Curvature, Mask, Result, Stepped};
use ndarray::{Array2, ArrayView2, Zip, s};
use rayon::prelude::*;
use sparq_coding::CodeLengths;

/// By how much a factor or a step changes at most in one round.
const MOST_CHANGE: f32 = 1.5;

/// Coordinate descent on codes without a width: as [`CoordinateDescent`](crate::CoordinateDescent), for
///
/// ```text
/// tr((W - V) (H + λ·I) (W - V)ᵀ) + price · bits     over V = rows · columns · codes
/// ```
///
/// One round sets the factors of all rows, the steps of all columns, and then all codes. A code becomes the nearest one, the
/// next one towards zero, or zero; how long each is comes from the codes of the round before.
///
/// Cost: `2 · out · in²` multiply-adds a round and as many before the first; memory: four copies of the weight and one of the
/// Hessian. Same bits for any number of threads.
///
/// # References
/// Factors of rows and columns: WaterSIC (arXiv:2603.04956). Bits in the choice of a code: CERWU (arXiv:2505.18758).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepDescent {
    rounds: usize,
}

impl StepDescent {
    /// With this many rounds.
    pub fn new(rounds: usize) -> Self {
        Self { rounds }
    }

    /// Improves `stepped` towards `target` = `W`, `[out, in]`, where a bit costs `price` in units of the objective. What
    /// `mask` removes must be zero already and stays zero. Without a [damped matrix](Curvature::damped) nothing is done.
    ///
    /// # Errors
    /// [`CompressError::Shape`](crate::CompressError::Shape) if the parts do not fit each other.
    pub fn run(
        &self,
        target: ArrayView2<'_, f32>,
        mask: Option<&Mask>,
        stepped: &mut Stepped,
        curvature: &Curvature,
        price: f64,
    ) -> Result<()> {
        let (rows, width) = target.dim();
        check("codes", stepped.codes.dim(), (rows, width))?;
        check("factors and steps", (stepped.rows.len(), stepped.columns.len()), (rows, width))?;
        let Some(matrix) = damped_hessian((rows, width), mask, curvature)? else { return Ok(()) };
        if !stepped.codes.is_standard_layout() {
            stepped.codes = stepped.codes.as_standard_layout().into_owned();
        }
        let mut wanted = Array2::zeros((rows, width));
        sparq_linalg::gemm(1.0, target, matrix.view(), 0.0, wanted.view_mut());
        let mut gradient = wanted.clone();
        sparq_linalg::gemm(-1.0, stepped.dequantize().view(), matrix.view(), 1.0, gradient.view_mut());
        let kept = mask.map(|mask| mask.view().as_standard_layout().into_owned());
        let mut state = Descent { stepped, wanted, gradient, matrix };
        for _ in 0..self.rounds {
            state.move_rows();
            state.move_columns();
            let lengths = state.stepped.code_lengths()?;
            if !state.move_codes(kept.as_ref(), &lengths, price as f32) {
                break;
            }
        }
        state.move_rows();
        Ok(())
    }
}

struct Descent<'a> {
    stepped: &'a mut Stepped,
    /// `W (H + λI)`.
    wanted: Array2<f32>,
    /// `(W - V)(H + λI)`.
    gradient: Array2<f32>,
    /// `H + λI`.
    matrix: Array2<f32>,
}

impl Descent<'_> {
    /// Sets the factor of each row to the best one.
    fn move_rows(&mut self) {
        let Stepped { codes, rows, columns } = &mut *self.stepped;
        let lines = self.gradient.outer_iter_mut().into_par_iter().zip(self.wanted.outer_iter());
        lines.zip(codes.outer_iter()).zip(rows.par_iter_mut()).for_each(|(((mut gradient, wanted), codes), factor)| {
            let (mut slope, mut curvature) = (0.0_f64, 0.0_f64);
            for (((&code, &step), &wanted), &gradient) in codes.iter().zip(&*columns).zip(wanted).zip(&gradient) {
                let value = f64::from(decode(code, *factor, step));
                slope += value * f64::from(wanted);
                curvature += value * f64::from(wanted - gradient);
            }
            let change = (slope / curvature) as f32;
            if !(change.is_finite() && change > 0.0) {
                return;
            }
            let new = Stepped::storable(*factor * change.clamp(1.0 / MOST_CHANGE, MOST_CHANGE));
            let change = new / *factor;
            *factor = new;
            Zip::from(&mut gradient).and(wanted).for_each(|g, &wanted| *g = wanted - change * (wanted - *g));
        });
    }

    /// Sets the step of each column in turn to the best one, given all others.
    fn move_columns(&mut self) {
        let (rows, width) = self.gradient.dim();
        for first in (0..width).step_by(BLOCK_COLUMNS) {
            let columns = first..width.min(first + BLOCK_COLUMNS);
            let count = columns.len();
            let Stepped { codes, rows: factors, columns: steps } = &mut *self.stepped;
            let mut values = Array2::from_shape_fn((rows, count), |(row, offset)| {
                decode(codes[[row, first + offset]], factors[row], steps[first + offset])
            });
            // What one column's change does to the slopes of the others of the block needs only sums over rows.
            let mut products = Array2::zeros((count, count));
            sparq_linalg::gemm(1.0, values.t(), values.view(), 0.0, products.view_mut());
            let of_block = self.gradient.slice(s![.., columns.clone()]);
            let mut slopes: Vec<f64> = values
                .columns()
                .into_iter()
                .zip(of_block.columns())
                .map(|(values, gradient)| values.iter().zip(gradient).map(|(&v, &g)| f64::from(v * g)).sum())
                .collect();
            let matrix = self.matrix.slice(s![columns.clone(), columns.clone()]);
            for offset in 0..count {
                let curvature = f64::from(matrix[[offset, offset]] * products[[offset, offset]]);
                let change = (1.0 + slopes[offset] / curvature) as f32;
                let mut moved = 0.0;
                if change.is_finite() && change > 0.0 {
                    let old = steps[first + offset];
                    let new = Stepped::storable(old * change.clamp(1.0 / MOST_CHANGE, MOST_CHANGE));
                    steps[first + offset] = new;
                    moved = new / old - 1.0;
                }
                for (other, slope) in slopes.iter_mut().enumerate() {
                    *slope -= f64::from(moved * matrix[[offset, other]] * products[[offset, other]]);
                }
                values.column_mut(offset).mapv_inplace(|value| moved * value);
            }
            let around = self.matrix.slice(s![columns, ..]);
            sparq_linalg::gemm(-1.0, values.view(), around, 1.0, self.gradient.view_mut());
        }
    }

    /// Sets each code in turn to the cheapest one; false if none changed.
    fn move_codes(&mut self, kept: Option<&Array2<bool>>, lengths: &CodeLengths, price: f32) -> bool {
        let Stepped { codes, rows, columns } = &mut *self.stepped;
        let lattice = StepCodes { rows, columns, lengths, price };
        move_codes(&lattice, codes, kept, self.matrix.view(), &mut self.gradient)
    }
}

/// Codes in steps of columns.
struct StepCodes<'a> {
    rows: &'a [f32],
    columns: &'a [f32],
    lengths: &'a CodeLengths,
    /// What a bit costs, in units of the objective.
    price: f32,
}

impl Lattice for StepCodes<'_> {
    type Code = i16;

    fn value(&self, row: usize, column: usize, code: i16) -> f32 {
        decode(code, self.rows[row], self.columns[column])
    }

    fn choose(&self, row: usize, column: usize, wanted: f32, stiffness: f32) -> i16 {
        let step = self.rows[row] * self.columns[column];
        choose(wanted / step, self.price / (stiffness * step * step), self.lengths.of_column(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descent::shifted;
    use crate::testing::{correlated_hessian, random};
    use crate::{CompressError, Damping, Hessian, relative_output_error};
    use proptest::prelude::*;

    struct Problem {
        target: Array2<f32>,
        mask: Mask,
        stepped: Stepped,
        curvature: Curvature,
    }

    /// Weights rounded plainly, a third of them removed, on inputs that share a few directions. Factors and steps are off.
    fn problem(rows: usize, width: usize, seed: u64) -> Problem {
        let target = random(rows, width, seed + 3);
        let mask = Mask::new(random(rows, width, seed + 4).mapv(|value| value > -0.33));
        let storable = |value: f32| Stepped::storable(value);
        let rows_of: Vec<f32> = random(rows, 1, seed + 5).iter().map(|value| storable(1.0 + 0.2 * value)).collect();
        let columns: Vec<f32> = random(width, 1, seed + 6).iter().map(|value| storable(0.4 + 0.05 * value)).collect();
        let codes = Array2::from_shape_fn((rows, width), |(row, column)| {
            if mask.view()[[row, column]] { (target[[row, column]] / columns[column]).round() as i16 } else { 0 }
        });
        let damping = Damping::new(0.3).expect("valid");
        let curvature = Curvature::new(correlated_hessian(width, seed)).with_damping(damping);
        Problem { target, mask, stepped: Stepped { codes, rows: rows_of, columns }, curvature }
    }

    impl Problem {
        fn descend(&mut self, rounds: usize, price: f64) {
            let (target, mask) = (self.target.view(), Some(&self.mask));
            StepDescent::new(rounds).run(target, mask, &mut self.stepped, &self.curvature, price).expect("fits");
        }

        /// What descent minimises but for the bits: the error under `H + λI`.
        fn error_of(&self, stepped: &Stepped) -> f64 {
            let (matrix, shift) = self.curvature.damped().expect("positive definite");
            let matrix = shifted(matrix, shift);
            let tokens = self.curvature.tokens();
            let weight = stepped.dequantize();
            relative_output_error(self.target.view(), weight.view(), &Hessian::Full { matrix, tokens })
        }

        fn error(&self) -> f64 {
            self.error_of(&self.stepped)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn without_a_price_it_never_gets_worse_and_respects_the_mask(
            rows in 1_usize..20, width in 1_usize..300, seed in 0_u64..1000,
        ) {
            let mut problem = problem(rows, width, seed);
            let mut last = problem.error();
            for _ in 0..3 {
                problem.descend(1, 0.0);
                let now = problem.error();
                // Factors and steps are rounded to eight bits behind their best values.
                prop_assert!(now <= last * 1.001 + 1e-6, "{} after {}", now, last);
                last = now;
            }
            for (code, kept) in problem.stepped.codes.iter().zip(problem.mask.view()) {
                prop_assert!(*kept || *code == 0);
            }
            let factors = problem.stepped.rows.iter().chain(&problem.stepped.columns);
            prop_assert!(factors.clone().all(|&factor| Stepped::storable(factor) == factor));
        }
    }

    #[test]
    fn no_other_factor_no_other_step_and_no_other_code_is_better() {
        let mut problem = problem(6, 150, 7);
        for _ in 0..12 {
            problem.descend(1, 0.0);
        }
        let least = problem.error();
        let worse = |what: &str, change: &dyn Fn(&mut Stepped)| {
            let mut changed = problem.stepped.clone();
            change(&mut changed);
            let found = problem.error_of(&changed);
            assert!(found >= least * 0.9999, "{what}: {found} instead of {least}");
        };
        for relative in [0.95, 1.05] {
            worse("a factor", &|changed| changed.rows[3] *= relative);
            worse("a step of the first block", &|changed| changed.columns[17] *= relative);
            worse("a step of the last block", &|changed| changed.columns[140] *= relative);
        }
        let kept: Vec<(usize, usize)> =
            problem.mask.view().indexed_iter().filter(|(_, kept)| **kept).map(|(at, _)| at).collect();
        for &at in kept.iter().step_by(37) {
            for change in [-1, 1] {
                worse("a code", &|changed| changed.codes[at] += change);
            }
        }
    }

    #[test]
    fn a_dearer_bit_gives_fewer_bits_and_more_error() {
        let solved = |price: f64| {
            let mut problem = problem(64, 96, 3);
            problem.descend(3, price);
            (problem.stepped.coded_bits(), problem.error())
        };
        let trace: f64 = 96.0;
        let (free, dear) = (solved(0.0), solved(0.3 * trace));
        assert!(dear.0 < free.0 && dear.1 > free.1, "{free:?} {dear:?}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut problem = problem(3, 4, 1);
        problem.stepped.rows.pop();
        let refused =
            StepDescent::new(1).run(problem.target.view(), None, &mut problem.stepped, &problem.curvature, 0.0);
        assert!(matches!(refused, Err(CompressError::Shape { what: "factors and steps", .. })));
    }
}
