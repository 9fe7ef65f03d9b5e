use crate::{Error, LanguageModel, Result};

/// A context and its continuation, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    tokens: Vec<u32>,
    context: usize,
}

impl Continuation {
    /// Tokens of a context (at least one) and of what follows it (at least one).
    ///
    /// # Errors
    /// [`Error::Setting`] if one of them is empty.
    ///
    /// # Examples
    /// ```
    /// let continuation = sparq_eval::Continuation::new(&[0, 5, 6], &[7])?;
    /// assert_eq!((continuation.context(), continuation.continuation()), (&[0, 5, 6][..], &[7][..]));
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn new(context: &[u32], continuation: &[u32]) -> Result<Self> {
        if context.is_empty() || continuation.is_empty() {
            return Err(Error::setting("continuation", "context and continuation need at least one token each"));
        }
        Ok(Self { tokens: [context, continuation].concat(), context: context.len() })
    }

    /// Encodes both as lm-evaluation-harness does: white space at the end of the context moves to the continuation; the
    /// whole is encoded at once, and what is left after as many tokens as the context alone has is the continuation.
    ///
    /// An empty context becomes the token that starts a text, or else the one that ends it.
    ///
    /// # Errors
    /// The tokenizer's; [`Error::NoPrefixToken`]; [`Error::Setting`] if both together have fewer than two tokens.
    ///
    /// # Examples
    /// ```no_run
    /// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
    /// let choice = sparq_eval::Continuation::encode(&model, "The sky is ", "blue", true)?; // scores " blue"
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn encode<M: LanguageModel>(
        model: &M,
        context: &str,
        continuation: &str,
        special_tokens: bool,
    ) -> Result<Self> {
        let length = model.encode(context.trim_end(), special_tokens)?.len();
        Self::encode_after(model, context, length, continuation, special_tokens)
    }

    /// The continuations of one item: pairs of context and continuation after `beginning`, which all contexts start with.
    /// A context that follows itself is encoded once.
    pub(crate) fn encode_all<M: LanguageModel>(
        model: &M,
        beginning: &str,
        pairs: &[(&str, &str)],
        special_tokens: bool,
    ) -> Result<Vec<Self>> {
        let mut last: Option<(&str, String, usize)> = None;
        let mut encoded = Vec::with_capacity(pairs.len());
        for (context, continuation) in pairs {
            let (_, whole, length) = match last.take() {
                Some(same) if same.0 == *context => last.insert(same),
                _ => {
                    let whole = [beginning, context].concat();
                    let length = model.encode(whole.trim_end(), special_tokens)?.len();
                    last.insert((context, whole, length))
                }
            };
            encoded.push(Self::encode_after(model, whole, *length, continuation, special_tokens)?);
        }
        Ok(encoded)
    }

    /// `length` is the number of tokens of `context` without white space at its end.
    fn encode_after<M: LanguageModel>(
        model: &M,
        context: &str,
        mut length: usize,
        continuation: &str,
        special_tokens: bool,
    ) -> Result<Self> {
        let mut tokens = model.encode(&[context, continuation].concat(), special_tokens)?;
        if length == 0 {
            tokens.insert(0, model.prefix_token()?.ok_or(Error::NoPrefixToken)?);
            length = 1;
        }
        if tokens.len() < 2 {
            return Err(Error::setting("continuation", format!("{continuation:?} has no tokens")));
        }
        // Where a tokenizer merges over the border, at least the last token is left to be scored.
        let context = length.min(tokens.len() - 1);
        Ok(Self { tokens, context })
    }

    /// Tokens of the context.
    pub fn context(&self) -> &[u32] {
        &self.tokens[..self.context]
    }

    /// Tokens of the continuation.
    pub fn continuation(&self) -> &[u32] {
        &self.tokens[self.context..]
    }

    /// Tokens that the model sees: all but the last.
    pub(super) fn inputs(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - 1]
    }

    /// Position whose hidden state predicts the first token of the continuation; each later position predicts the next.
    pub(super) fn first_predicting(&self) -> usize {
        self.context - 1
    }
}

/// A model's score of a continuation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContinuationScore {
    /// Sum of the log-likelihoods of its tokens given all before them, in nats.
    pub log_likelihood: f64,
    /// Whether each of its tokens is the most likely one.
    pub greedy: bool,
}
