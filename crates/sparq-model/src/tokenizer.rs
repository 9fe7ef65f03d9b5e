use crate::{Error, ModelConfig, Result};
use serde_json::Value;
use sparq_tensor::Checkpoint;

/// Largest tokenizer.json that is parsed; those of 256,000-token vocabularies are about 35 MB.
const LARGEST_JSON: usize = 256 << 20;

/// A checkpoint's tokenizer: text to token ids and back, as Hugging Face's fast tokenizers do it.
///
/// Truncation and padding that tokenizer.json may ask for are switched off: a text gives all its tokens and no others.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Vec<u32>,
    /// What tokenizer.json puts in front of a text; nothing if that cannot be told.
    prefix: Vec<u32>,
}

impl Tokenizer {
    /// Builds a tokenizer from the contents of tokenizer.json and, for the special tokens, tokenizer_config.json.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the contents are too large or cannot be parsed.
    ///
    /// # Examples
    /// ```
    /// let json = br#"{"version": "1.0", "added_tokens": [], "model":
    ///     {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1, "b": 2}, "unk_token": "<s>"}}"#;
    /// let config = serde_json::json!({"bos_token": "<s>"});
    /// let tokenizer = sparq_model::Tokenizer::from_json(json, Some(&config))?;
    /// assert_eq!((tokenizer.encode("b", true)?, tokenizer.bos()), (vec![2], Some(0)));
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn from_json(json: &[u8], config: Option<&Value>) -> Result<Self> {
        if json.len() > LARGEST_JSON {
            let reason = format!("tokenizer.json has {} bytes, at most {LARGEST_JSON} are read", json.len());
            return Err(Error::Tokenizer { reason });
        }
        // The library reads some parts twice and takes for granted that what it skipped the first time was JSON.
        let refuse = |error: &dyn std::fmt::Display| Error::Tokenizer { reason: format!("tokenizer.json: {error}") };
        let text = std::str::from_utf8(json).map_err(|error| refuse(&error))?;
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| refuse(&error))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(error)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(error)?;
        let special = |field: &str| {
            let token = config?.get(field)?;
            // Either a string or an object that describes an added token.
            inner.token_to_id(token.as_str().or_else(|| token.get("content")?.as_str())?)
        };
        let (bos, eos) = (special("bos_token"), special("eos_token").into_iter().collect());
        let mut tokenizer = Self { inner, bos, eos, prefix: Vec::new() };
        tokenizer.prefix = tokenizer.find_prefix().unwrap_or_default();
        Ok(tokenizer)
    }

    fn find_prefix(&self) -> Option<Vec<u32>> {
        // Some tokenizers add special tokens at the end as well; only those in front of a text begin it.
        let before = |text: &str| {
            let (with, without) = (self.encode(text, true).ok()?, self.encode(text, false).ok()?);
            let at = with.windows(without.len().max(1)).position(|window| window == without)?;
            Some(with[..at].to_vec())
        };
        ["a", "A", "0", ".", "中"].into_iter().find_map(before)
    }

    pub(crate) fn from_checkpoint(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Self> {
        let json = checkpoint.tokenizer_json()?.ok_or(Error::NoTokenizer)?;
        let mut tokenizer = Self::from_json(&json, checkpoint.tokenizer_config()?.as_ref())?;
        tokenizer.bos = tokenizer.bos.or(config.bos_token_id);
        // Chat models end a turn with another token than a text: whatever any of the files names ends a generation.
        let generation = checkpoint.side_files()?.into_iter().find(|file| file.name == "generation_config.json");
        let generation = generation.and_then(|file| serde_json::from_slice::<Value>(&file.bytes).ok());
        let named = match generation.as_ref().and_then(|generation| generation.get("eos_token_id")) {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
            Some(id) => id.as_u64().into_iter().collect(),
            None => Vec::new(),
        };
        let named = named.into_iter().filter_map(|id| u32::try_from(id).ok());
        for id in config.eos_token_ids.iter().copied().chain(named) {
            if !tokenizer.eos.contains(&id) {
                tokenizer.eos.push(id);
            }
        }
        Ok(tokenizer)
    }

    /// Token ids of `text`. With `add_special`, tokens that tokenizer.json puts around a text (often the one that
    /// starts it) are added; special tokens spelled out in the text are recognised either way.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer refuses the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, add_special).map_err(error)?.get_ids().to_vec())
    }

    /// Token ids of a text that something is to follow: as [`encode`](Self::encode) with special tokens, but without those that
    /// tokenizer.json puts behind a text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer refuses the text.
    ///
    /// # Examples
    /// ```
    /// let json = br#"{"version": "1.0", "added_tokens": [], "model":
    ///     {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "a": 2}, "unk_token": "<s>"}, "post_processor":
    ///     {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
    ///      {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}], "pair": [],
    ///      "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
    ///       "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}}}"#;
    /// let tokenizer = sparq_model::Tokenizer::from_json(json, None)?;
    /// assert_eq!(tokenizer.encode("a", true)?, [0, 2, 1]);
    /// assert_eq!(tokenizer.encode_beginning("a")?, [0, 2]);
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn encode_beginning(&self, text: &str) -> Result<Vec<u32>> {
        Ok([self.prefix.as_slice(), &self.encode(text, false)?].concat())
    }

    /// Text of `tokens`; ids outside of the vocabulary are left out, as are special tokens with `skip_special`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(tokens, skip_special).map_err(error)
    }

    /// Id of the token that starts a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Id of the token that ends a text: the first of [`eos_ids`](Self::eos_ids).
    pub fn eos(&self) -> Option<u32> {
        self.eos.first().copied()
    }

    /// Ids of all tokens that end a text or a turn, as tokenizer, config and generation settings name them.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// Added tokens whose ids are not below `embeddings`, by id: a model with so many embeddings has none for them.
    ///
    /// # Examples
    /// ```
    /// let json = br#"{"version": "1.0", "added_tokens": [{"id": 1, "content": "<image>", "single_word": false,
    ///     "lstrip": false, "rstrip": false, "normalized": false, "special": true}], "model":
    ///     {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;
    /// let tokenizer = sparq_model::Tokenizer::from_json(json, None)?;
    /// assert_eq!(tokenizer.added_beyond(1), [(1, "<image>".to_owned())]);
    /// assert!(tokenizer.added_beyond(2).is_empty());
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn added_beyond(&self, embeddings: usize) -> Vec<(u32, String)> {
        let added = self.inner.get_added_tokens_decoder().into_iter();
        let mut beyond: Vec<_> =
            added.filter(|(id, _)| *id as usize >= embeddings).map(|(id, token)| (id, token.content)).collect();
        beyond.sort_unstable();
        beyond
    }

    /// Number of tokens, added ones included. The model may have more embeddings.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

fn error(source: tokenizers::Error) -> Error {
    Error::Tokenizer { reason: source.to_string() }
}
