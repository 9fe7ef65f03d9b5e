use crate::Result;
use ndarray::{Array2, ArrayView2};
use sparq_model::{KvCache, Model, Precision};

/// What an evaluation needs of a model. [`Model`] implements it; tests use small fakes.
///
/// Cloning must be cheap: a baseline keeps one for its output layer.
pub trait LanguageModel: Clone + Sync {
    /// What one sequence remembers of its tokens.
    type Cache: Clone;

    /// Hidden states that the output layer takes, of all sequences one after the other, `[sum of lengths, hidden]`.
    ///
    /// # Errors
    /// The model's own.
    fn hidden(&self, batch: &[&[u32]]) -> Result<Array2<f32>>;

    /// A model with the same [`logits`](Self::logits), of which no more is in memory than they need.
    #[must_use]
    fn output_layer(&self) -> Self {
        self.clone()
    }

    /// Scores of every token of the vocabulary, `[tokens, vocabulary]`, for hidden states `[tokens, hidden]`.
    ///
    /// # Errors
    /// The model's own.
    fn logits(&self, hidden: ArrayView2<'_, f32>) -> Result<Array2<f32>>;

    /// A cache that has seen nothing.
    fn new_cache(&self) -> Self::Cache;

    /// Appends `batch[i]` to the sequence of `caches[i]`; hidden states of the new tokens, `[sum of lengths, hidden]`.
    ///
    /// # Errors
    /// The model's own.
    fn extend(&self, caches: &mut [Self::Cache], batch: &[&[u32]]) -> Result<Array2<f32>>;

    /// Token ids of a text, with the tokenizer's own special tokens in front of it if asked for; never with those it puts behind
    /// a text, for there may be more to come.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>>;

    /// Text of tokens, without special ones.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn decode(&self, tokens: &[u32]) -> Result<String>;

    /// The token that stands in for an empty context: the one that starts a text, else one that ends it.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn prefix_token(&self) -> Result<Option<u32>>;

    /// Tokens that end a generated text.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn end_tokens(&self) -> Result<Vec<u32>>;

    /// What the files of a model do not tell of its results; cached ones are kept under it as well.
    fn precision(&self) -> Precision {
        Precision::default()
    }
}

impl LanguageModel for Model {
    type Cache = KvCache;

    fn hidden(&self, batch: &[&[u32]]) -> Result<Array2<f32>> {
        Ok(Model::hidden(self, batch)?)
    }

    fn output_layer(&self) -> Self {
        self.without_blocks()
    }

    fn logits(&self, hidden: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        Ok(Model::logits(self, hidden)?)
    }

    fn new_cache(&self) -> KvCache {
        Model::new_cache(self)
    }

    fn extend(&self, caches: &mut [KvCache], batch: &[&[u32]]) -> Result<Array2<f32>> {
        Ok(Model::extend(self, caches, batch)?)
    }

    fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        Ok(if special_tokens { tokenizer.encode_beginning(text)? } else { tokenizer.encode(text, false)? })
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        Ok(self.tokenizer()?.decode(tokens, true)?)
    }

    fn prefix_token(&self) -> Result<Option<u32>> {
        let tokenizer = self.tokenizer()?;
        Ok(tokenizer.bos().or_else(|| tokenizer.eos()))
    }

    fn end_tokens(&self) -> Result<Vec<u32>> {
        Ok(self.tokenizer()?.eos_ids().to_vec())
    }

    fn precision(&self) -> Precision {
        Model::precision(self)
    }
}
