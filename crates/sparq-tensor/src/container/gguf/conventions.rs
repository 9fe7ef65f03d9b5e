/// Names of a family, and how its tensors lie in files.
#[derive(Debug, Clone, PartialEq)]
pub struct Conventions {
    /// The value of `general.architecture`, which is also the prefix of the family's own metadata keys.
    pub architecture: &'static str,
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Tensors outside of blocks.
    pub top_level: &'static [Row],
    /// Hugging Face's prefix of blocks, up to their number.
    pub blocks: &'static str,
    /// Modules of a block, in lists one after the other; the first that fits counts.
    pub modules: &'static [&'static [Row]],
    /// Tensors of divisors of the rotary frequencies, which become part of the configuration.
    pub rope_factors: &'static [&'static str],
    /// Whether the rows of query and key projections are stored in llama.cpp's rotary order.
    pub interleaves_heads: bool,
    /// What files add to the weights of norms.
    pub norm_offset: f32,
    /// Whether blocks may have a mixture of experts.
    pub may_have_experts: bool,
    /// Whether a rotary embedding may turn a part of each head only.
    pub may_rotate_partly: bool,
}

impl Conventions {
    /// Hugging Face's name of the token embedding.
    pub(super) fn embedding(&self) -> &'static str {
        self.top_level.iter().find(|(gguf, ..)| *gguf == TOKEN_EMBEDDING).map_or("", |(_, theirs, _)| theirs)
    }
}

/// GGUF's name of the token embedding.
pub(super) const TOKEN_EMBEDDING: &str = "token_embd.weight";

/// GGUF's name of a tensor or of a module of a block, Hugging Face's name (below the block's), and the role. In names of experts
/// `*` stands for the number of an expert, as all their matrices are one tensor in GGUF.
pub type Row = (&'static str, &'static str, Role);

/// What must be known about a tensor besides its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Projects to queries or keys.
    QueryOrKey,
    /// Belongs to a norm.
    Norm,
    /// A matrix that Hugging Face has as `[in, out]`; its bias.
    Conv1d,
    /// Matrices of all experts.
    Experts,
    /// Nothing.
    Other,
}
