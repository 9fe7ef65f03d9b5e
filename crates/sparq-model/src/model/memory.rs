use super::Model;
use super::backward::HEAD_TOKENS;

/// What a model takes in memory, in bytes, known before anything is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// The largest block, as f32.
    pub block: u64,
    /// All blocks, as f32.
    pub all_blocks: u64,
    /// Embedding and output matrices, as f32; once if they are tied. Learned embeddings of positions, too.
    pub embeddings: u64,
    /// Per token of a block pass: the residual stream and the largest set of activations that exist at one time.
    pub activations_per_token: u64,
    /// Per token of a batch that waits between two stages of a block.
    pub kept_per_token: u64,
    /// Per token of the residual stream alone.
    pub residual_per_token: u64,
    /// Logits of the tokens whose loss is computed at one time ([`Model::loss`], [`Model::backward`]).
    pub logits: u64,
    /// Per token in a [`KvCache`](crate::KvCache).
    pub cache_per_token: u64,
}

impl Model {
    /// Predicts the memory of blocks, embeddings and activations from the config alone.
    pub fn memory_estimate(&self) -> MemoryEstimate {
        let (config, plans) = (&self.shared.config, &self.shared.plans);
        let f32s = |count: usize| count as u64 * size_of::<f32>() as u64;
        let matrices = if config.tie_word_embeddings { 1 } else { 2 };
        let positions = if config.learned_positions { config.max_positions } else { 0 };
        let activations = plans.iter().map(|plan| plan.activations_per_token(config.hidden_size)).max();
        MemoryEstimate {
            block: plans.iter().map(|plan| plan.bytes()).max().unwrap_or(0),
            all_blocks: plans.iter().map(|plan| plan.bytes()).sum(),
            embeddings: f32s((matrices * config.vocab_size + positions) * config.hidden_size),
            activations_per_token: f32s(activations.unwrap_or(0)),
            kept_per_token: f32s(plans.iter().map(|plan| plan.kept_per_token(config.hidden_size)).max().unwrap_or(0)),
            residual_per_token: f32s(config.hidden_size),
            logits: f32s(HEAD_TOKENS * config.vocab_size),
            cache_per_token: f32s(2 * config.kv_width() * config.layers),
        }
    }
}
