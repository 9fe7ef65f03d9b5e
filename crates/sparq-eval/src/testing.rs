//! A fake model for tests: ASCII characters are tokens, and the next one's logits are a hash of those before.

use crate::{LanguageModel, Result};
use ndarray::{Array2, ArrayView2};
use sparq_model::Precision;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) seed: u64,
    /// How many of the latest tokens matter.
    pub(crate) memory: usize,
    pub(crate) vocabulary: usize,
    /// Put in front of every text that is encoded with special tokens.
    pub(crate) start: Option<u32>,
    pub(crate) end: Vec<u32>,
    pub(crate) precision: Precision,
    /// All logits are this, if any.
    pub(crate) constant: Option<f32>,
    /// Tokens that went through the model, and through its output layer.
    pub(crate) work: Arc<[AtomicUsize; 2]>,
}

impl Fake {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            memory: usize::MAX,
            vocabulary: 128,
            start: Some(1),
            end: vec![2],
            precision: Precision::default(),
            constant: None,
            work: Arc::default(),
        }
    }

    /// The logits after `seen`.
    pub(crate) fn row(&self, seen: &[u32]) -> Vec<f32> {
        let recent = &seen[seen.len().saturating_sub(self.memory)..];
        let mix = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let hash = recent.iter().fold(mix(self.seed, 77), |hash, token| mix(hash, u64::from(*token)));
        let logit = |token| (mix(mix(hash, token), 5) >> 40) as f32 / (1 << 24) as f32 * 8.0;
        (0..self.vocabulary as u64).map(|token| self.constant.unwrap_or_else(|| logit(token))).collect()
    }

    /// Log-probability of `token` after `seen`, the slow way.
    pub(crate) fn log_probability(&self, seen: &[u32], token: u32) -> f64 {
        let row = self.row(seen);
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        f64::from(row[token as usize]) - sum.ln()
    }

    pub(crate) fn best(&self, seen: &[u32]) -> u32 {
        let row = self.row(seen);
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter().position(|logit| *logit == best).unwrap() as u32
    }

    pub(crate) fn done(&self) -> [usize; 2] {
        [0, 1].map(|what| self.work[what].load(Ordering::Relaxed))
    }
}

impl LanguageModel for Fake {
    type Cache = Vec<u32>;

    fn hidden(&self, batch: &[&[u32]]) -> Result<Array2<f32>> {
        self.extend(&mut vec![Vec::new(); batch.len()], batch)
    }

    fn logits(&self, hidden: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        self.work[1].fetch_add(hidden.nrows(), Ordering::Relaxed);
        Ok(hidden.to_owned())
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn new_cache(&self) -> Vec<u32> {
        Vec::new()
    }

    fn extend(&self, caches: &mut [Vec<u32>], batch: &[&[u32]]) -> Result<Array2<f32>> {
        assert_eq!(caches.len(), batch.len());
        let mut rows = Vec::new();
        for (cache, tokens) in caches.iter_mut().zip(batch) {
            assert!(!tokens.is_empty());
            for token in *tokens {
                cache.push(*token);
                rows.extend(self.row(cache));
                self.work[0].fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Array2::from_shape_vec((rows.len() / self.vocabulary, self.vocabulary), rows).unwrap())
    }

    fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>> {
        let start = self.start.filter(|_| special_tokens);
        Ok(start.into_iter().chain(text.bytes().map(u32::from)).collect())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        Ok(tokens.iter().map(|token| char::from(*token as u8)).collect())
    }

    fn prefix_token(&self) -> Result<Option<u32>> {
        Ok(self.start.or(self.end.first().copied()))
    }

    fn end_tokens(&self) -> Result<Vec<u32>> {
        Ok(self.end.clone())
    }
}
