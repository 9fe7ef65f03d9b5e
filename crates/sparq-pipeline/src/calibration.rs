use crate::{Error, Result};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use sparq_model::{Tokenizer, plain_text};

/// Token sequences that a layer's inputs are gathered from.
///
/// # Examples
/// ```
/// use sparq_pipeline::Calibration;
/// let calibration = Calibration::from_sequences(vec![vec![1, 2, 3], vec![4, 5]])?;
/// assert_eq!((calibration.sequences().len(), calibration.tokens()), (2, 5));
/// # Ok::<(), sparq_pipeline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calibration {
    sequences: Vec<Vec<u32>>,
    /// Windows of the text that were not drawn, in random order.
    rest: Vec<Vec<u32>>,
    /// How they were drawn, if that is known.
    sampling: Option<Sampling>,
}

/// Windows that are kept of what was not drawn.
const MOST_REST: usize = 4096;

/// How sequences are drawn from a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Number of sequences.
    pub samples: usize,
    /// Tokens in a sequence.
    pub length: usize,
    /// Chooses which.
    pub seed: u64,
}

impl Default for Sampling {
    /// 64 sequences of 512 tokens, seed 0.
    fn default() -> Self {
        Self { samples: 64, length: 512, seed: 0 }
    }
}

impl Calibration {
    /// Sequences chosen elsewhere.
    ///
    /// # Errors
    /// [`Error::Calibration`] if there is no token in them.
    pub fn from_sequences(mut sequences: Vec<Vec<u32>>) -> Result<Self> {
        sequences.retain(|sequence| !sequence.is_empty());
        if sequences.is_empty() {
            return Err(Error::Calibration { what: "the calibration text has no tokens".into() });
        }
        Ok(Self { sequences, rest: Vec::new(), sampling: None })
    }

    /// Cuts `text` into consecutive windows of `length` tokens and draws some of them without replacement (all, if
    /// there are fewer), in the order of the text. If the tokenizer begins a text with a special token, so does every
    /// window, and that token counts towards its length. A text shorter than one window gives one shorter window.
    ///
    /// Windows that are not drawn, 4,096 at most, are there for [tuning](crate::Recipe::tune), which reads more than solvers do.
    ///
    /// Same text, settings and seed, same windows.
    ///
    /// # Errors
    /// [`Error::Calibration`] for text without tokens or a length or number of 0; [`Error::Model`] for JSON, and the tokenizer's.
    pub fn from_text(tokenizer: &Tokenizer, text: &str, sampling: Sampling) -> Result<Self> {
        let Sampling { samples, length, seed } = sampling;
        let plain = tokenizer.encode(plain_text(text)?, false)?;
        let prefix = tokenizer.encode_beginning("")?;
        if samples == 0 || length <= prefix.len() {
            return Err(Error::Calibration { what: format!("{samples} samples of {length} tokens hold no text") });
        }
        let window = length - prefix.len();
        let full = plain.len() / window;
        let (mut chosen, mut rest) = ((0..full.max(1)).collect::<Vec<usize>>(), Vec::new());
        if samples < chosen.len() {
            chosen.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
            rest = chosen.split_off(samples);
            rest.truncate(MOST_REST);
            chosen.sort_unstable();
        }
        if plain.is_empty() {
            return Err(Error::Calibration { what: "the calibration text has no tokens".into() });
        }
        let sequence = |index: usize| {
            let end = plain.len().min((index + 1) * window);
            prefix.iter().chain(&plain[index * window..end]).copied().collect()
        };
        let rest = rest.into_iter().map(sequence).collect();
        Ok(Self { rest, sampling: Some(sampling), ..Self::from_sequences(chosen.into_iter().map(sequence).collect())? })
    }

    /// How the sequences were drawn, by name, for people to read; empty if they were chosen elsewhere.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        self.sampling.map_or_else(Vec::new, |drawn| {
            vec![
                ("calibration samples", drawn.samples.to_string()),
                ("calibration sequence length", drawn.length.to_string()),
                ("calibration seed", drawn.seed.to_string()),
            ]
        })
    }

    /// The sequences.
    pub fn sequences(&self) -> &[Vec<u32>] {
        &self.sequences
    }

    /// Everything of the text, what was not drawn first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &[u32]> {
        self.rest.iter().chain(&self.sequences).map(Vec::as_slice)
    }

    /// Tokens in all sequences together.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }

    /// Tokens of the longest sequence.
    pub(crate) fn longest(&self) -> usize {
        self.sequences.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// SHA-256 of the sequences, and of what else there is of the text, in hexadecimal: what a cached result is valid for.
    pub fn fingerprint(&self) -> String {
        let bytes = |sequence: &Vec<u32>| sequence.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>();
        sparq_tensor::digest(self.sequences.iter().chain(&self.rest).map(bytes))
    }
}
