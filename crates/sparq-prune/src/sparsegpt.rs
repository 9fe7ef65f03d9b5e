use crate::select::{check_pattern, remove_smallest, share};
use ndarray::{ArrayView2, ArrayViewMut2};
use sparq_core::{
    BlockRule, ColumnSweep, CompressedLayer, LayerCompressor, LayerProblem, Pruner, Result, Rounding, RowRule,
    Selection, Sparsity, Statistics,
};
use std::borrow::Cow;
use std::ops::Range;

/// SparseGPT: removes weights column by column and lets the columns to come make up for it.
///
/// The score of a weight is `w² / U[j, j]²`, its saliency in the problem that remains when the sweep reaches it.
/// Unstructured, the lowest share of each block of columns goes, over all rows together; with a pattern, the lowest of
/// each group in each row.
///
/// | parameter | default | meaning | range |
/// |---|---|---|---|
/// | sparsity | – | how much goes, in which pattern | |
/// | [`block_columns`](Self::block_columns) | 128 | columns chosen together | ≥ 1 |
///
/// Departs from the reference implementation where that removes `k + 1` weights of a block instead of `k` (see
/// [`reference_compat`](Self::reference_compat)). Cost: `2/3 · in³ + out · in²` multiply-adds.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Curvature, Hessian, LayerCompressor, LayerProblem, Sparsity};
/// let weight = array![[1.0_f32, 0.5]];
/// // The two channels always agree: what is removed from one the other can carry.
/// let hessian = Hessian::Full { matrix: array![[1.0, 1.0], [1.0, 1.0]], tokens: 2 };
/// let curvature = Curvature::new(hessian);
/// let problem = LayerProblem::new("demo", weight.view(), &curvature)?;
/// let pruned = sparq_prune::SparseGpt::new(Sparsity::n_of_m(1, 2)?).compress(&problem)?;
/// assert_eq!(pruned.mask.map(|mask| mask.kept()), Some(1));
/// assert!((pruned.weight.sum() - 1.5).abs() < 0.02);
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
///
/// # References
/// Frantar & Alistarh 2023, arXiv:2301.00774.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseGpt {
    sparsity: Sparsity,
    block_columns: usize,
    reference_compat: bool,
}

impl SparseGpt {
    /// Removes `sparsity` of the layer.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { sparsity, block_columns: 128, reference_compat: false }
    }

    /// Chooses among this many columns at a time (at least 1).
    pub fn block_columns(mut self, columns: usize) -> Self {
        self.block_columns = columns.max(1);
        self
    }

    /// Reproduces the reference implementation, quirks included: one weight too many goes in each block, all ties with
    /// it go too, and channels that were never active are set to zero.
    pub fn reference_compat(mut self, on: bool) -> Self {
        self.reference_compat = on;
        self
    }
}

impl LayerCompressor for SparseGpt {
    fn name(&self) -> Cow<'static, str> {
        format!("sparsegpt {}", self.sparsity).into()
    }

    fn needs(&self) -> Statistics {
        Statistics::Hessian
    }

    fn is_by_row(&self) -> bool {
        matches!(self.sparsity, Sparsity::NOfM { .. })
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        let selection = self.choose(problem)?;
        let (weight, cleared) = if self.reference_compat {
            sparq_core::reference::clear_dead_channels(problem)
        } else {
            (problem.weight().to_owned(), None)
        };
        let curvature = cleared.as_ref().unwrap_or(problem.curvature());
        let sweep = ColumnSweep::new(curvature.factor()).block_columns(self.block_columns);
        let swept = sweep.run(weight, &selection, &Rounding::None)?;
        Ok(CompressedLayer { weight: swept.weight, mask: swept.mask, codes: None, report: curvature.report() })
    }
}

impl Pruner for SparseGpt {
    fn sparsity(&self) -> Sparsity {
        self.sparsity
    }

    fn choose(&self, problem: &LayerProblem<'_>) -> Result<Selection<'_>> {
        problem.require(Statistics::Hessian, "SparseGPT")?;
        check_pattern(problem, self.sparsity)?;
        Ok(match self.sparsity {
            Sparsity::NOfM { .. } => Selection::PerRow(self),
            _ => Selection::PerBlock(self),
        })
    }

    fn at(&self, sparsity: Sparsity) -> Box<dyn Pruner> {
        Box::new(Self { sparsity, ..self.clone() })
    }
}

impl BlockRule for SparseGpt {
    fn select(
        &self,
        columns: Range<usize>,
        values: ArrayView2<'_, f32>,
        diagonal: &[f32],
        mut kept: ArrayViewMut2<'_, bool>,
    ) {
        let rows = values.nrows();
        let scores: Vec<f32> = values.outer_iter().flat_map(|row| saliency(row.to_vec(), diagonal)).collect();
        let mut chosen = vec![true; scores.len()];
        if self.reference_compat {
            let mut sorted = scores.clone();
            sorted.sort_by(f32::total_cmp);
            let at = (self.sparsity.fraction() * sorted.len() as f64) as usize;
            if let Some(&threshold) = sorted.get(at) {
                chosen.iter_mut().zip(&scores).for_each(|(kept, &score)| *kept = score > threshold);
            }
        } else {
            let count = share(self.sparsity, rows * columns.start, rows * columns.len());
            remove_smallest(&scores, count, &mut chosen);
        }
        kept.iter_mut().zip(chosen).for_each(|(kept, chosen)| *kept = chosen);
    }
}

impl RowRule for SparseGpt {
    fn columns(&self) -> usize {
        match self.sparsity {
            Sparsity::NOfM { of, .. } => of,
            _ => 1,
        }
    }

    fn select(&self, values: &[f32], diagonal: &[f32], kept: &mut [bool]) {
        let Sparsity::NOfM { kept: stay, of } = self.sparsity else { return };
        // At most 256 scores (`Sparsity::n_of_m`); a group is chosen without touching the heap or sorting.
        let score = |index: usize| saliency_of(values[index], diagonal[index]);
        for _ in stay..of {
            let lowest = (0..values.len()).filter(|&index| kept[index]).min_by(|&x, &y| score(x).total_cmp(&score(y)));
            if let Some(lowest) = lowest {
                kept[lowest] = false;
            }
        }
    }
}

fn saliency_of(value: f32, diagonal: f32) -> f32 {
    let scaled = value / diagonal;
    scaled * scaled
}

fn saliency(mut row: Vec<f32>, diagonal: &[f32]) -> Vec<f32> {
    row.iter_mut().zip(diagonal).for_each(|(value, &diagonal)| *value = saliency_of(*value, diagonal));
    row
}
