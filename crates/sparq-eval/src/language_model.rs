use crate::Result;
use ndarray::{Array2, ArrayView2};
use sparq_model::{KvCache, Model, Precision};

/// What an evaluation needs of a model. [`Model`] implements it; tests use small fakes.
///
/// Cloning must be cheap: a baseline keeps one for its output layer.
pub trait LanguageModel: Clone + Sync {
    /// The keys and values that one sequence has computed so far.
    type Cache: Clone;

    /// Hidden states that the output layer takes, of all sequences one after the other, `[sum of lengths, hidden]`.
    ///
    /// # Errors
    /// The model's own.
    fn hidden(&self, batch: &[&[u32]]) -> Result<Array2<f32>>;

    /// A model with the same [`logits`](Self::logits) that holds nothing else in memory.
    #[must_use]
    fn output_layer(&self) -> Self {
        self.clone()
    }

    /// Scores of every token of the vocabulary, `[tokens, vocabulary]`, for hidden states `[tokens, hidden]`.
    ///
    /// # Errors
    /// The model's own.
    fn logits(&self, hidden: ArrayView2<'_, f32>) -> Result<Array2<f32>>;

    /// An empty cache.
    fn new_cache(&self) -> Self::Cache;

    /// Appends `batch[i]` to the sequence of `caches[i]`; hidden states of the new tokens, `[sum of lengths, hidden]`.
    ///
    /// # Errors
    /// The model's own.
    fn extend(&self, caches: &mut [Self::Cache], batch: &[&[u32]]) -> Result<Array2<f32>>;

    /// Token ids of a text. `special_tokens` puts the tokenizer's special tokens in front. Those that end a text are
    /// never added, because more text may follow.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>>;

    /// Text of tokens, without special ones.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn decode(&self, tokens: &[u32]) -> Result<String>;

    /// The token used for an empty context: the one that starts a text, or else one that ends it.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn prefix_token(&self) -> Result<Option<u32>>;

    /// Tokens that end a generated text.
    ///
    /// # Errors
    /// The tokenizer's own.
    fn end_tokens(&self) -> Result<Vec<u32>>;

    /// Refuses windows of a text that are longer than what the model was made for.
    ///
    /// # Errors
    /// The model's own.
    fn check_length(&self, _tokens: usize) -> Result<()> {
        Ok(())
    }

    /// Whatever else changes a model's results but is not in its files. It becomes part of the name of cached results.
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

    fn check_length(&self, tokens: usize) -> Result<()> {
        Ok(self.config().check_length(tokens)?)
    }

    fn precision(&self) -> Precision {
        Model::precision(self)
    }
}
