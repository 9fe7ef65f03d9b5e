use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Settings of the bootstrap: how many resamples of the items are drawn, and from which seed.
///
/// | setting | default | meaning | range |
/// |---|---|---|---|
/// | [`resamples`](Self::resamples) | 2000 | resamples drawn | 1 to 10,000,000 |
/// | [`seed`](Self::seed) | 0 | same seed, same interval, on every platform | any |
/// | [`confidence`](Self::confidence) | 0.95 | share of the resamples inside of the interval | (0, 1) |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: usize,
    /// Seed of the ChaCha8 generator.
    pub seed: u64,
    /// Share of the resamples inside of an interval.
    pub confidence: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2000, seed: 0, confidence: 0.95 }
    }
}

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether 0 lies outside: a difference whose interval excludes 0 may be claimed.
    ///
    /// # Examples
    /// ```
    /// use sparq_metric::Interval;
    /// assert!(Interval { low: 0.01, high: 0.2 }.excludes_zero());
    /// assert!(!Interval { low: 0.0, high: 0.2 }.excludes_zero());
    /// ```
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// Whether `value` is inside or on an end.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

impl Bootstrap {
    /// The most resamples: their ratios are kept.
    const MOST_RESAMPLES: usize = 10_000_000;

    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=Self::MOST_RESAMPLES).contains(&self.resamples) {
            let value = self.resamples as f64;
            return Err(Error::Bootstrap { setting: "resamples", needed: "1 to 10,000,000", value });
        }
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            let needed = "a number between 0 and 1";
            return Err(Error::Bootstrap { setting: "confidence", needed, value: self.confidence });
        }
        Ok(())
    }

    /// A random generator for `name`, independent of all other names. So the interval of a task does not depend on the
    /// other tasks.
    pub(crate) fn random(&self, name: &str) -> ChaCha8Rng {
        // FNV-1a
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(hash);
        random
    }

    /// The percentile interval of `replicates`, which are sorted by this.
    pub(crate) fn interval(&self, replicates: &mut [f64]) -> Interval {
        replicates.sort_by(f64::total_cmp);
        let outside = (1.0 - self.confidence) / 2.0;
        Interval { low: quantile(replicates, outside), high: quantile(replicates, 1.0 - outside) }
    }
}

/// A random index below `count`, which must be positive and below 2³² (multiply and shift; no bias that matters).
pub(crate) fn index(random: &mut ChaCha8Rng, count: usize) -> usize {
    ((u64::from(random.next_u32()) * count as u64) >> 32) as usize
}

/// Quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let fraction = position - below as f64;
    // Equal neighbours give exactly their value.
    sorted[below] + fraction * (sorted[above] - sorted[below])
}

/// Bootstrap interval of `Σ values / Σ weights`, units (windows of a text, items) being resampled as pairs.
///
/// For a mean, all weights are 1. For the mean loss per token of a text, `values` are the summed losses of its windows
/// and `weights` their numbers of tokens; for the logarithm of a perplexity ratio, `values` are the differences of two
/// models' sums, which pairs them by window.
///
/// # Errors
/// [`Error::Empty`], [`Error::Length`], [`Error::Bootstrap`]; [`Error::Score`] if a value is not finite or a weight not
/// positive.
///
/// # Examples
/// ```
/// use sparq_metric::{Bootstrap, ratio_interval};
/// let interval = ratio_interval(&[30.0, 40.0, 35.0], &[10.0, 10.0, 10.0], &Bootstrap::default())?;
/// assert!(interval.contains(3.5) && interval.low >= 3.0 && interval.high <= 4.0);
/// # Ok::<(), sparq_metric::Error>(())
/// ```
pub fn ratio_interval(values: &[f64], weights: &[f64], bootstrap: &Bootstrap) -> Result<Interval> {
    bootstrap.check()?;
    if values.is_empty() {
        return Err(Error::Empty { what: "ratio".to_owned() });
    }
    if values.len() != weights.len() {
        return Err(Error::Length { what: "weights".to_owned(), expected: values.len(), found: weights.len() });
    }
    let refuse = |item: usize, what, value| Err(Error::Score { task: "ratio".to_owned(), item, what, value });
    if let Some(item) = values.iter().position(|value| !value.is_finite()) {
        return refuse(item, "its value", values[item]);
    }
    if let Some(item) = weights.iter().position(|weight| !(*weight > 0.0 && weight.is_finite())) {
        return refuse(item, "its weight", weights[item]);
    }
    let mut random = bootstrap.random("");
    let mut replicate = || {
        let (mut sum, mut weight) = (0.0, 0.0);
        for _ in values {
            let drawn = index(&mut random, values.len());
            sum += values[drawn];
            weight += weights[drawn];
        }
        sum / weight
    };
    let mut replicates: Vec<f64> = (0..bootstrap.resamples).map(|_| replicate()).collect();
    Ok(bootstrap.interval(&mut replicates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_linear_between_neighbours() {
        let sorted = [0.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&sorted, 0.0), 0.0);
        assert_eq!(quantile(&sorted, 0.5), 2.0);
        assert_eq!(quantile(&sorted, 0.625), 2.5);
        assert_eq!(quantile(&sorted, 1.0), 4.0);
        assert_eq!(quantile(&[7.0], 0.975), 7.0);
    }

    #[test]
    fn indices_are_uniform_and_repeatable() {
        let bootstrap = Bootstrap::default();
        let draw = |name| {
            let mut random = bootstrap.random(name);
            (0..30_000).map(|_| index(&mut random, 3)).collect::<Vec<_>>()
        };
        let first = draw("a");
        for value in 0..3 {
            let count = first.iter().filter(|drawn| **drawn == value).count();
            assert!((9_700..10_300).contains(&count), "{count}");
        }
        assert_eq!(first, draw("a"));
        let others = ["b", "ba", "ca", "arc_easy", "arc_hard"].map(draw);
        for (index, other) in others.iter().enumerate() {
            assert_ne!(&first, other);
            assert!(!others[..index].contains(other), "names that differ draw apart");
        }
    }

    #[test]
    fn interval_of_a_mean_has_the_width_of_the_normal_one() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let interval = ratio_interval(&values, &[1.0; 400], &Bootstrap::default()).unwrap();
        // 1.96 standard errors of 0.025 to each side.
        assert!((interval.low - 0.451).abs() < 0.006 && (interval.high - 0.549).abs() < 0.006, "{interval:?}");
    }

    #[test]
    fn ends_belong_to_an_interval() {
        let interval = |low, high| Interval { low, high };
        for (value, inside) in [(-0.1, false), (0.0, true), (0.5, true), (1.0, true), (1.1, false)] {
            assert_eq!(interval(0.0, 1.0).contains(value), inside, "{value}");
        }
        for (low, high, excludes) in
            [(-2.0, -1.0, true), (-2.0, 0.0, false), (-1.0, 1.0, false), (0.0, 2.0, false), (1.0, 2.0, true)]
        {
            assert_eq!(interval(low, high).excludes_zero(), excludes, "{low} {high}");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for bootstrap in [
            Bootstrap { resamples: 0, ..Bootstrap::default() },
            Bootstrap { confidence: 0.0, ..Bootstrap::default() },
            Bootstrap { confidence: 1.0, ..Bootstrap::default() },
            Bootstrap { confidence: f64::NAN, ..Bootstrap::default() },
        ] {
            assert!(matches!(ratio_interval(&[1.0], &[1.0], &bootstrap), Err(Error::Bootstrap { .. })));
        }
        assert!(ratio_interval(&[1.0], &[0.0], &Bootstrap::default()).is_err());
        assert!(ratio_interval(&[f64::NAN], &[1.0], &Bootstrap::default()).is_err());
    }
}
