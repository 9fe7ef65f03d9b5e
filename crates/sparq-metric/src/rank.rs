use crate::{Error, Result};

/// Spearman's rank correlation of paired values: 1 if both rank alike, -1 if they rank the opposite way. Equal values
/// share their mean rank.
///
/// # Errors
/// [`Error::Empty`] for fewer than two pairs, [`Error::Length`] if the numbers of values differ.
///
/// # Examples
/// ```
/// let rho = sparq_metric::rank_correlation(&[0.1, 0.2, 0.4, 0.3], &[1.0, 20.0, 21.0, 90.0])?;
/// assert!((rho - 0.8).abs() < 1e-12);
/// # Ok::<(), sparq_metric::Error>(())
/// ```
pub fn rank_correlation(x: &[f64], y: &[f64]) -> Result<f64> {
    if x.len() != y.len() {
        return Err(Error::Length { what: "values to rank".to_owned(), expected: x.len(), found: y.len() });
    }
    if x.len() < 2 {
        return Err(Error::Empty { what: "ranks of two or more".to_owned() });
    }
    let (x, y) = (ranks(x), ranks(y));
    let middle = (x.len() as f64 - 1.0) / 2.0;
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let spread = (sum(&x, &x) * sum(&y, &y)).sqrt();
    Ok(if spread > 0.0 { sum(&x, &y) / spread } else { 0.0 })
}

/// The rank of each value from 0; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    while first < order.len() {
        let same = order[first..].iter().take_while(|&&index| values[index] == values[order[first]]).count().max(1);
        for &index in &order[first..first + same] {
            ranks[index] = first as f64 + (same as f64 - 1.0) / 2.0;
        }
        first += same;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_share_a_rank() {
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 0.0]), [2.5, 1.0, 2.5, 0.0]);
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]).expect("valid"), 0.0);
        assert!(rank_correlation(&[1.0], &[1.0]).is_err() && rank_correlation(&[1.0, 2.0], &[1.0]).is_err());
    }

    proptest! {
        #[test]
        fn only_the_order_counts(values in proptest::collection::vec(-10.0_f64..10.0, 2..30)) {
            let grown: Vec<f64> = values.iter().map(|value| value.exp()).collect();
            let turned: Vec<f64> = values.iter().map(|value| -value).collect();
            let distinct = ranks(&values).iter().any(|rank| *rank != ranks(&values)[0]);
            prop_assume!(distinct);
            prop_assert!((rank_correlation(&values, &grown).expect("valid") - 1.0).abs() < 1e-9);
            prop_assert!((rank_correlation(&values, &turned).expect("valid") + 1.0).abs() < 1e-9);
        }
    }
}
