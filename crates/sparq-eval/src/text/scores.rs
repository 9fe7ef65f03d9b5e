use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sparq_metric::{Bootstrap, Interval, ratio_interval};

/// How well a model predicts a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextScores {
    /// Number of tokens predicted.
    pub tokens: usize,
    /// Mean negative log-likelihood, in nats per token.
    pub mean_nll: f64,
    /// `exp(mean_nll)`.
    pub perplexity: f64,
    /// The sums of each window, for intervals.
    pub windows: Vec<WindowScores>,
    /// Comparison with the base model, if one was given.
    pub base: Option<BaseComparison>,
    /// Fingerprint of text and settings.
    pub fingerprint: String,
}

/// Sums over the scored tokens of one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WindowScores {
    /// Number of tokens predicted.
    pub tokens: usize,
    /// Sum of negative log-likelihoods, in nats.
    pub nll: f64,
}

/// How far a model's predictions are from its base's: needs no labels and is never mixed into Sr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseComparison {
    /// Mean over tokens of KL(base ‖ model), in nats.
    pub mean_kl: f64,
    /// Share of tokens for which both models rank the same token first.
    pub top1_agreement: f64,
    /// The base's mean negative log-likelihood, in nats per token.
    pub base_mean_nll: f64,
    /// The base's perplexity.
    pub base_perplexity: f64,
    /// Perplexity over the base's perplexity.
    pub perplexity_ratio: f64,
    /// The sums of each window, for intervals.
    pub windows: Vec<WindowComparison>,
}

/// Sums over the scored tokens of one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowComparison {
    /// Sum of divergences, in nats.
    pub kl: f64,
    /// Number of tokens for which both models rank the same token first.
    pub agreements: usize,
    /// The base's sum of negative log-likelihoods, in nats.
    pub base_nll: f64,
}

impl TextScores {
    pub(super) fn new(
        windows: Vec<WindowScores>,
        comparison: Option<Vec<WindowComparison>>,
        fingerprint: &str,
    ) -> Self {
        let tokens: usize = windows.iter().map(|window| window.tokens).sum();
        let mean_nll = windows.iter().map(|window| window.nll).sum::<f64>() / tokens as f64;
        let base = comparison.map(|windows| {
            let sum = |of: fn(&WindowComparison) -> f64| windows.iter().map(of).sum::<f64>() / tokens as f64;
            let base_mean_nll = sum(|window| window.base_nll);
            BaseComparison {
                mean_kl: sum(|window| window.kl),
                top1_agreement: sum(|window| window.agreements as f64),
                base_mean_nll,
                base_perplexity: base_mean_nll.exp(),
                perplexity_ratio: (mean_nll - base_mean_nll).exp(),
                windows,
            }
        });
        let fingerprint = fingerprint.to_owned();
        Self { tokens, mean_nll, perplexity: mean_nll.exp(), windows, base, fingerprint }
    }

    fn weights(&self) -> Vec<f64> {
        self.windows.iter().map(|window| window.tokens as f64).collect()
    }

    /// Bootstrap interval of the perplexity, windows being resampled.
    ///
    /// # Errors
    /// Those of [`sparq_metric::ratio_interval`].
    pub fn perplexity_interval(&self, bootstrap: &Bootstrap) -> Result<Interval> {
        let nll: Vec<f64> = self.windows.iter().map(|window| window.nll).collect();
        Ok(exponential(ratio_interval(&nll, &self.weights(), bootstrap)?))
    }

    /// Bootstrap interval of the perplexity ratio to the base, paired by window; `None` without a base.
    ///
    /// # Errors
    /// Those of [`sparq_metric::ratio_interval`].
    pub fn perplexity_ratio_interval(&self, bootstrap: &Bootstrap) -> Result<Option<Interval>> {
        let Some(base) = &self.base else { return Ok(None) };
        let paired = self.windows.iter().zip(&base.windows);
        let differences: Vec<f64> = paired.map(|(window, base)| window.nll - base.base_nll).collect();
        Ok(Some(exponential(ratio_interval(&differences, &self.weights(), bootstrap)?)))
    }

    /// Bootstrap interval of the mean divergence from the base, windows being resampled; `None` without a base.
    ///
    /// # Errors
    /// Those of [`sparq_metric::ratio_interval`].
    pub fn kl_interval(&self, bootstrap: &Bootstrap) -> Result<Option<Interval>> {
        let Some(base) = &self.base else { return Ok(None) };
        let kl: Vec<f64> = base.windows.iter().map(|window| window.kl).collect();
        Ok(Some(ratio_interval(&kl, &self.weights(), bootstrap)?))
    }

    /// Bootstrap interval of this model's mean divergence from the base less another's, in nats a token, paired by window;
    /// `None` if one of the two has no base.
    ///
    /// # Errors
    /// [`Error::OtherText`] if the two were not scored on the same text with the same settings; those of
    /// [`sparq_metric::ratio_interval`].
    pub fn kl_difference_interval(&self, other: &Self, bootstrap: &Bootstrap) -> Result<Option<Interval>> {
        if self.fingerprint != other.fingerprint || self.windows.len() != other.windows.len() {
            return Err(Error::OtherText);
        }
        let (Some(base), Some(of_other)) = (&self.base, &other.base) else { return Ok(None) };
        let paired = base.windows.iter().zip(&of_other.windows);
        let differences: Vec<f64> = paired.map(|(window, of_other)| window.kl - of_other.kl).collect();
        Ok(Some(ratio_interval(&differences, &self.weights(), bootstrap)?))
    }
}

fn exponential(interval: Interval) -> Interval {
    Interval { low: interval.low.exp(), high: interval.high.exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(text: &str, kl: &[f64]) -> TextScores {
        let windows = vec![WindowScores { tokens: 10, nll: 20.0 }; kl.len()];
        let compared = kl.iter().map(|&kl| WindowComparison { kl, ..WindowComparison::default() }).collect();
        TextScores::new(windows, Some(compared), text)
    }

    #[test]
    fn divergences_are_compared_window_by_window() {
        // Windows differ a hundredfold, the two models by 0.2 in each: that is certain although single means are not.
        let one = scores("a", &[1.0, 100.0, 5.0, 40.0]);
        let other = scores("a", &[3.0, 102.0, 7.0, 42.0]);
        let bootstrap = Bootstrap::default();
        let difference = one.kl_difference_interval(&other, &bootstrap).expect("one text").expect("both have a base");
        assert!((difference.low + 0.2).abs() < 1e-12 && (difference.high + 0.2).abs() < 1e-12, "{difference:?}");
        let alone = one.kl_interval(&bootstrap).expect("finite").expect("it has a base");
        assert!(alone.high - alone.low > 1.0);
        assert!(matches!(one.kl_difference_interval(&scores("b", &[1.0; 4]), &bootstrap), Err(Error::OtherText)));
        let without = TextScores { base: None, ..other };
        assert!(one.kl_difference_interval(&without, &bootstrap).expect("one text").is_none());
    }
}
