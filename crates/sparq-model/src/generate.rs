use crate::{Error, Model, Result};
use ndarray::{ArrayView1, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::ops::ControlFlow;

/// How the next token is chosen from the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Sampler {
    /// The most likely token; of equal ones, the first.
    Greedy,
    /// A random token.
    Temperature {
        /// Divides the logits: below 1 favours likely tokens. Positive.
        temperature: f32,
        /// Only the `top_k` most likely tokens are considered; all if `None`.
        top_k: Option<usize>,
        /// Only the most likely tokens that together reach this probability are considered, from 0 (exclusive) to 1.
        top_p: f32,
        /// Same seed, same text.
        seed: u64,
    },
}

/// What ends a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// No more new tokens than this.
    pub max_tokens: usize,
    /// A token of these ends the text and is not part of it.
    pub stop: Vec<u32>,
    /// How tokens are chosen.
    pub sampler: Sampler,
}

impl Model {
    /// Continues `prompt` token by token and returns the new tokens.
    ///
    /// `observer` sees each token as it is chosen and may end the generation. Calling [`run_as_stored`](Self::run_as_stored) or
    /// [`make_resident`](Self::make_resident) first is advised: otherwise each token reads and decodes the whole model.
    ///
    /// Ends where the model's positions do.
    ///
    /// # Errors
    /// [`Error::Generation`] if the prompt is empty or the sampler's settings are out of range; a prompt longer than the model's
    /// positions ([`check_length`](crate::ModelConfig::check_length)); those of [`extend`](Self::extend).
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_model::{GenerateOptions, Model, Sampler};
    /// let mut model = Model::open("models/SmolLM2-135M")?;
    /// model.make_resident()?;
    /// let tokenizer = model.tokenizer()?;
    /// let prompt = tokenizer.encode_beginning("The capital of France is")?;
    /// let options =
    ///     GenerateOptions { max_tokens: 8, stop: tokenizer.eos_ids().to_vec(), sampler: Sampler::Greedy };
    /// let tokens = model.generate(&prompt, &options, |_| std::ops::ControlFlow::Continue(()))?;
    /// println!("{}", tokenizer.decode(&tokens, true)?);
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn generate(
        &self,
        prompt: &[u32],
        options: &GenerateOptions,
        mut observer: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Vec<u32>> {
        if prompt.is_empty() {
            return Err(Error::Generation { setting: "prompt", reason: "at least one token is needed".to_owned() });
        }
        self.config().check_length(prompt.len())?;
        let room = self.config().max_positions - prompt.len();
        let mut chooser = Chooser::new(options.sampler)?;
        let mut cache = self.new_cache();
        let mut generated = Vec::new();
        let mut new = prompt.to_vec();
        while generated.len() < options.max_tokens.min(room) {
            // On a thread of the pool, where the hundreds of products of a token start without waking another thread.
            let logits = rayon::scope(|_| {
                let hidden = self.extend(std::slice::from_mut(&mut cache), &[&new])?;
                self.logits(hidden.slice(s![-1.., ..]))
            })?;
            let token = chooser.choose(logits.row(0));
            if options.stop.contains(&token) {
                break;
            }
            generated.push(token);
            if observer(token).is_break() {
                break;
            }
            new = vec![token];
        }
        Ok(generated)
    }
}

/// A sampler and the state of its random numbers.
struct Chooser {
    sampler: Sampler,
    random: ChaCha8Rng,
}

impl Chooser {
    fn new(sampler: Sampler) -> Result<Self> {
        let mut random = 0;
        if let Sampler::Temperature { temperature, top_k, top_p, seed } = sampler {
            let error = |setting, reason: String| Err(Error::Generation { setting, reason });
            if !(temperature > 0.0 && temperature.is_finite()) {
                return error("temperature", format!("a positive number is needed, got {temperature}"));
            }
            if !(top_p > 0.0 && top_p <= 1.0) {
                return error("top_p", format!("a number above 0 and up to 1 is needed, got {top_p}"));
            }
            if top_k == Some(0) {
                return error("top_k", "at least 1 is needed".to_owned());
            }
            random = seed;
        }
        Ok(Self { sampler, random: ChaCha8Rng::seed_from_u64(random) })
    }

    fn choose(&mut self, logits: ArrayView1<'_, f32>) -> u32 {
        let Sampler::Temperature { temperature, top_k, top_p, .. } = self.sampler else {
            // Strictly greater: ties go to the first.
            let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (token, logit)| {
                if *logit > best.1 { (token, *logit) } else { best }
            });
            return best.0 as u32;
        };
        let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
        let by_likelihood = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if let Some(top_k) = top_k
            && top_k < tokens.len()
        {
            tokens.select_nth_unstable_by(top_k - 1, by_likelihood);
            tokens.truncate(top_k);
        }
        tokens.sort_unstable_by(by_likelihood);
        let largest = tokens.first().map_or(0.0, |token| logits[*token as usize]);
        let weight = |token: &u32| f64::from((logits[*token as usize] - largest) / temperature).exp();
        let weights: Vec<f64> = tokens.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let mut count = 0;
        for weight in &weights {
            kept += weight;
            count += 1;
            if kept >= f64::from(top_p) * total {
                break;
            }
        }
        // 53 random bits: a number from 0 (inclusive) to `kept` (exclusive).
        let mut rest = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * kept;
        for (token, weight) in tokens.iter().zip(&weights).take(count) {
            rest -= weight;
            if rest < 0.0 {
                return *token;
            }
        }
        tokens.get(count.saturating_sub(1)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn counts(sampler: Sampler) -> [u32; 4] {
        let logits = array![1.0_f32, 3.0, 2.0, 3.0];
        let mut chooser = Chooser::new(sampler).unwrap();
        let mut counts = [0; 4];
        for _ in 0..20_000 {
            counts[chooser.choose(logits.view()) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        assert_eq!(counts(Sampler::Greedy), [0, 20_000, 0, 0]);
    }

    #[test]
    fn sampling_follows_the_softmax_and_its_limits() {
        let sampler = |top_k, top_p| Sampler::Temperature { temperature: 2.0, top_k, top_p, seed: 7 };
        let all = counts(sampler(None, 1.0));
        let total: f64 = [0.5_f64, 1.5, 1.0, 1.5].iter().map(|l| l.exp()).sum();
        for (count, logit) in all.iter().zip([0.5_f64, 1.5, 1.0, 1.5]) {
            assert!((f64::from(*count) / 20_000.0 - logit.exp() / total).abs() < 0.015, "{all:?}");
        }
        assert_eq!(all, counts(sampler(None, 1.0)));
        let two = counts(sampler(Some(2), 1.0));
        assert_eq!((two[0], two[2]), (0, 0));
        assert!(two[1] > 9_000 && two[3] > 9_000);
        let likely = counts(sampler(None, 0.5));
        assert_eq!((likely[0], likely[2]), (0, 0));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (temperature, top_k, top_p) in
            [(0.0, None, 1.0), (f32::NAN, None, 1.0), (1.0, Some(0), 1.0), (1.0, None, 0.0), (1.0, None, 1.5)]
        {
            assert!(Chooser::new(Sampler::Temperature { temperature, top_k, top_p, seed: 0 }).is_err());
        }
    }
}
