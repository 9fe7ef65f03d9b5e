//! Exact counts and stable ties, shared by all pruners.

use ndarray::Array2;
use rayon::prelude::*;
use sparq_core::{CompressError, LayerProblem, Mask, Result, Sparsity};

/// Clears `kept` at the `count` smallest `scores`; of equal scores the lower index goes first.
pub(crate) fn remove_smallest(scores: &[f32], count: usize, kept: &mut [bool]) {
    // Half the memory, where that is enough.
    if u32::try_from(scores.len()).is_ok() {
        remove_smallest_of(scores, (0..scores.len() as u32).collect(), |index| index as usize, count, kept);
    } else {
        remove_smallest_of(scores, (0..scores.len()).collect(), |index| index, count, kept);
    }
}

fn remove_smallest_of<T: Copy + Ord>(
    scores: &[f32],
    mut order: Vec<T>,
    at: impl Fn(T) -> usize,
    count: usize,
    kept: &mut [bool],
) {
    let count = count.min(order.len());
    if count == 0 {
        return;
    }
    let by_score = |x: &T, y: &T| scores[at(*x)].total_cmp(&scores[at(*y)]).then(x.cmp(y));
    if count < order.len() {
        order.select_nth_unstable_by(count - 1, by_score);
    }
    for &index in &order[..count] {
        kept[at(index)] = false;
    }
}

/// How many of the elements `before..before + count` of a longer run are removed, such that every run from the start
/// is removed to the nearest whole element.
pub(crate) fn share(sparsity: Sparsity, before: usize, count: usize) -> usize {
    let up_to = |elements: usize| (sparsity.fraction() * elements as f64).round() as usize;
    (up_to(before + count) - up_to(before)).min(count)
}

/// Chooses inside each row by `score(row, column)`: a share of the row, or the pattern.
pub(crate) fn mask_by_rows(
    problem: &LayerProblem<'_>,
    sparsity: Sparsity,
    score: impl Fn(usize, usize) -> f32 + Sync,
) -> Result<Mask> {
    let (rows, width) = problem.weight().dim();
    check_pattern(problem, sparsity)?;
    let mut kept = Array2::from_elem((rows, width), true);
    let per_row = kept.as_slice_mut().unwrap_or_default().par_chunks_mut(width.max(1)).enumerate();
    per_row.for_each(|(row, kept)| {
        let scores: Vec<f32> = (0..width).map(|column| score(row, column)).collect();
        match sparsity {
            Sparsity::NOfM { kept: stay, of } => {
                for (scores, kept) in scores.chunks(of).zip(kept.chunks_mut(of)) {
                    remove_smallest(scores, of - stay, kept);
                }
            }
            _ => remove_smallest(&scores, share(sparsity, row * width, width), kept),
        }
    });
    Ok(Mask::new(kept))
}

/// # Errors
/// [`CompressError::Indivisible`] if an N:M pattern does not divide the width.
pub(crate) fn check_pattern(problem: &LayerProblem<'_>, sparsity: Sparsity) -> Result<()> {
    let width = problem.weight().ncols();
    match sparsity {
        Sparsity::NOfM { of, .. } if !width.is_multiple_of(of) => {
            Err(CompressError::Indivisible { layer: problem.name().to_owned(), width, of })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_the_smallest_go(scores in proptest::collection::vec(-3_i8..3, 0..60), count in 0_usize..70) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let mut kept = vec![true; scores.len()];
            remove_smallest(&scores, count, &mut kept);
            let mut sorted: Vec<usize> = (0..scores.len()).collect();
            sorted.sort_by(|&x, &y| scores[x].total_cmp(&scores[y]));
            for (place, &index) in sorted.iter().enumerate() {
                prop_assert_eq!(kept[index], place >= count);
            }
        }

        #[test]
        fn shares_add_up(fraction in 0.0_f64..1.0, pieces in proptest::collection::vec(0_usize..50, 0..20)) {
            let sparsity = Sparsity::unstructured(fraction).expect("valid");
            let (mut before, mut removed) = (0, 0);
            for piece in pieces {
                removed += share(sparsity, before, piece);
                before += piece;
            }
            prop_assert_eq!(removed, (fraction * before as f64).round() as usize);
        }
    }
}
