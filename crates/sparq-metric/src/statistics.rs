use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Mean of `values`.
///
/// # Errors
/// [`Error::Empty`].
///
/// # Examples
/// ```
/// assert_eq!(sparq_metric::mean(&[1.0, 0.0, 1.0, 1.0])?, 0.75);
/// # Ok::<(), sparq_metric::Error>(())
/// ```
pub fn mean(values: &[f64]) -> Result<f64> {
    if values.is_empty() {
        return Err(Error::Empty { what: "mean".to_owned() });
    }
    Ok(values.iter().sum::<f64>() / values.len() as f64)
}

/// Standard error of the mean of `values`: their standard deviation (with `n − 1`) over `√n`.
///
/// The spread cannot be estimated from one value: the result is then infinite.
///
/// # Errors
/// [`Error::Empty`].
///
/// # Examples
/// ```
/// let error = sparq_metric::standard_error(&[1.0, 0.0, 1.0, 0.0])?;
/// assert!((error - (1.0_f64 / 3.0).sqrt() / 2.0).abs() < 1e-12);
/// # Ok::<(), sparq_metric::Error>(())
/// ```
pub fn standard_error(values: &[f64]) -> Result<f64> {
    let mean = mean(values)?;
    let count = values.len() as f64;
    if values.len() == 1 {
        return Ok(f64::INFINITY);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Ok((squares / (count - 1.0) / count).sqrt())
}

/// Outcome of McNemar's exact test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Items that only the first configuration gets right.
    pub only_first: usize,
    /// Items that only the second configuration gets right.
    pub only_second: usize,
    /// Two-sided probability of a split at least this uneven if both were equally good.
    pub p_value: f64,
}

/// McNemar's exact test: are two configurations equally often right, given that they answered the same items?
///
/// Only the items on which they differ count; under equality each of those is a fair coin. An item is right if its score
/// is above one half.
///
/// # Errors
/// [`Error::Length`] if the lists differ in length.
///
/// # Examples
/// ```
/// let first = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// let second = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
/// let test = sparq_metric::mcnemar(&first, &second)?;
/// assert_eq!((test.only_first, test.only_second), (6, 0));
/// assert!((test.p_value - 2.0 / 64.0).abs() < 1e-12);
/// # Ok::<(), sparq_metric::Error>(())
/// ```
pub fn mcnemar(first: &[f64], second: &[f64]) -> Result<McNemar> {
    if first.len() != second.len() {
        let what = "scores of the second configuration".to_owned();
        return Err(Error::Length { what, expected: first.len(), found: second.len() });
    }
    let count = |a: &[f64], b: &[f64]| a.iter().zip(b).filter(|(a, b)| **a > 0.5 && **b <= 0.5).count();
    let (only_first, only_second) = (count(first, second), count(second, first));
    Ok(McNemar { only_first, only_second, p_value: two_sided(only_first, only_second) })
}

/// Holm's adjustment of p-values for the number of tests: comparing an adjusted value with 0.05 keeps the probability of
/// any false claim among all of them at 5 %, whatever their dependence.
///
/// The smallest of `n` values is multiplied by `n`, the next by `n − 1`, and so on; none becomes smaller than one before it
/// in that order, or larger than 1. The result is in the order given.
///
/// # Examples
/// ```
/// let adjusted = sparq_metric::holm(&[0.01, 0.04, 0.03]);
/// for (found, expected) in adjusted.iter().zip([0.03, 0.06, 0.06]) {
///     assert!((found - expected).abs() < 1e-12);
/// }
/// ```
///
/// # References
/// Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max(p_values[index] * (p_values.len() - rank) as f64).min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

/// Probability that a fair coin thrown `a + b` times splits at least as unevenly as `a` to `b`.
fn two_sided(a: usize, b: usize) -> f64 {
    let (throws, fewer) = (a + b, a.min(b));
    // Logarithms, because 2^-throws underflows from 1,075 throws on.
    let mut log_probability = -(throws as f64) * std::f64::consts::LN_2;
    let mut tail = log_probability.exp();
    for k in 1..=fewer {
        log_probability += ((throws - k + 1) as f64 / k as f64).ln();
        tail += log_probability.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_few_values() {
        assert!(matches!(mean(&[]), Err(Error::Empty { .. })));
        assert!(standard_error(&[]).is_err());
        assert_eq!(standard_error(&[0.3]).unwrap(), f64::INFINITY);
        assert_eq!(standard_error(&[1.0; 5]).unwrap(), 0.0);
    }

    #[test]
    fn holm_against_values_by_hand() {
        // Sorted: 0.005 · 4, 0.01 · 3, 0.03 · 2, 0.04 · 1 raised to the one before.
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.6, 0.9]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
        assert_eq!(holm(&[0.2]), [0.2]);
    }

    #[test]
    fn mcnemar_against_known_values() {
        // Binomial tails by hand: 2 · (1 + 10 + 45) / 2^10.
        assert!((two_sided(2, 8) - 2.0 * 56.0 / 1024.0).abs() < 1e-12);
        assert_eq!(two_sided(0, 0), 1.0);
        assert_eq!(two_sided(5, 5), 1.0);
        assert_eq!(two_sided(3, 9), two_sided(9, 3));
        // Thousands of items neither underflow nor lose the tail: close to a normal at 2.24 standard deviations.
        let many = two_sided(950, 1_050);
        assert!((0.024..0.028).contains(&many), "{many}");
        assert!(two_sided(10_000, 11_000) > 0.0);
        assert!(mcnemar(&[1.0], &[]).is_err());
    }
}
