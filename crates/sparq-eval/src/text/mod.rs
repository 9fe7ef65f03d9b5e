//! Held-out text: perplexity, and divergence from a base model, in one pass.

mod divergence;
mod evaluate;
mod scores;
mod windows;

pub use divergence::mean_divergence;
pub use evaluate::TextBaseline;
pub use scores::{BaseComparison, TextScores, WindowComparison, WindowScores};
pub use windows::Window;

use crate::fingerprint::fingerprint;
use crate::{Error, LanguageModel, Result};
use serde::{Deserialize, Serialize};

/// How a text is cut into windows.
///
/// | setting | default | meaning | range |
/// |---|---|---|---|
/// | [`length`](Self::length) | 512 | tokens of a window | at least 2 |
/// | [`stride`](Self::stride) | none | tokens from one window to the next; none: windows do not overlap | 1 to `length` − 1 |
/// | [`special_tokens`](Self::special_tokens) | true | whether the tokenizer's own special tokens stand around the text | |
/// | [`token_limit`](Self::token_limit) | none | tokens of the text that are used, from its start | at least 2 |
///
/// Without a stride each window stands alone and scores all of its tokens but the first; a rest shorter than a window is
/// dropped (as GPTQ and its successors evaluate WikiText). With a stride, windows overlap and each scores only the
/// tokens that none before it did, so that all tokens but the text's first are scored, with at least
/// `length − stride` tokens of context each (as the Hugging Face documentation recommends).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSettings {
    /// Tokens of a window.
    pub length: usize,
    /// Tokens from the start of one window to the start of the next, if they overlap.
    pub stride: Option<usize>,
    /// Whether the tokenizer puts its own special tokens (often one that starts a text) around the whole text, once.
    /// Windows other than the first never start with one.
    pub special_tokens: bool,
    /// Number of tokens, from the start, that are used.
    pub token_limit: Option<usize>,
}

impl Default for TextSettings {
    fn default() -> Self {
        Self { length: 512, stride: None, special_tokens: true, token_limit: None }
    }
}

/// A text cut into windows, ready to be scored by any number of models with one tokenizer.
#[derive(Debug, Clone)]
pub struct TextEvaluation {
    tokens: Vec<u32>,
    windows: Vec<Window>,
    settings: TextSettings,
    fingerprint: String,
}

impl TextEvaluation {
    /// Cuts `tokens` into windows.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range, [`Error::TextTooShort`].
    ///
    /// # Examples
    /// ```
    /// use sparq_eval::{TextEvaluation, TextSettings};
    /// let tokens: Vec<u32> = (0..10).collect();
    /// let settings = TextSettings { length: 4, ..TextSettings::default() };
    /// assert_eq!(TextEvaluation::new(tokens.clone(), settings)?.tokens_scored(), 6); // 2 whole windows of 3 each
    /// let strided = TextSettings { stride: Some(2), ..settings };
    /// assert_eq!(TextEvaluation::new(tokens, strided)?.tokens_scored(), 9); // all but the first
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn new(mut tokens: Vec<u32>, settings: TextSettings) -> Result<Self> {
        if let Some(limit) = settings.token_limit {
            let needed = if settings.stride.is_none() { settings.length } else { 2 };
            if limit < needed && tokens.len() >= needed {
                let reason = format!("a window needs {needed} tokens, of which {limit} are allowed");
                return Err(Error::setting("token_limit", reason));
            }
            tokens.truncate(limit);
        }
        let windows = windows::cut(tokens.len(), &settings)?;
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let fingerprint = fingerprint("text", &settings, &bytes);
        Ok(Self { tokens, windows, settings, fingerprint })
    }

    /// Encodes `text` with the model's tokenizer and cuts it into windows.
    ///
    /// # Errors
    /// Those of [`new`](Self::new) and of the tokenizer; [`Error::Model`] for JSON, and for windows longer than
    /// the model's positions.
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_eval::{TextEvaluation, TextSettings};
    /// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
    /// let text = std::fs::read_to_string("heldout.txt")?;
    /// let evaluation = TextEvaluation::from_text(&model, &text, TextSettings::default())?;
    /// let scores = evaluation.evaluate(&model, None, &())?;
    /// println!("perplexity {:.2}", scores.perplexity);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_text<M: LanguageModel>(model: &M, text: &str, settings: TextSettings) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::TextTooShort { tokens: 0, needed: 2 });
        }
        let evaluation = Self::new(model.encode(sparq_model::plain_text(text)?, settings.special_tokens)?, settings)?;
        model.check_length(evaluation.windows.iter().map(|window| window.end - window.start).max().unwrap_or(0))?;
        Ok(evaluation)
    }

    /// The tokens that are used.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The windows, in order.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The settings.
    pub fn settings(&self) -> &TextSettings {
        &self.settings
    }

    /// Number of tokens whose prediction is scored.
    pub fn tokens_scored(&self) -> usize {
        self.windows.iter().map(Window::scored).sum()
    }

    /// SHA-256 over settings and tokens: equal fingerprints mean equal scores of equal models.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
