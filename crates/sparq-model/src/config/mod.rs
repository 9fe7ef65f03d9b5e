//! What config.json says, checked, in one form for every architecture.

mod experts;
mod fields;
mod rope;
mod windows;

pub use experts::ExpertsConfig;
pub(crate) use fields::Fields;
pub(crate) use rope::RopeContext;
pub use rope::{RopeConfig, RopeScaling};
pub(crate) use windows::windows_by_name;

use crate::ops::Activation;
use crate::{Error, Result};

/// Deeper models do not exist; the limit keeps a hostile config from making the reader list tensors forever.
const MOST_LAYERS: usize = 4096;

/// A model's dimensions and switches, read from config.json in the style of transformers 4 or 5.
///
/// Every dimension is positive and every product that sizes an array fits into `isize`.
///
/// # Examples
/// ```
/// let config = sparq_model::ModelConfig::parse(&serde_json::json!({
///     "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
///     "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 500000.0
/// }))?;
/// assert_eq!((config.head_dim, config.rope.map(|rope| rope.theta)), (4, Some(500000.0)));
/// # Ok::<(), sparq_model::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools)] // they are independent switches of the format
pub struct ModelConfig {
    /// `model_type` of the config, such as `llama`.
    pub model_type: String,
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Components of one head; even.
    pub head_dim: usize,
    /// Context length the model was made for. Longer input is computed all the same.
    pub max_positions: usize,
    /// Kind of the norms.
    pub norm: NormKind,
    /// Added to the mean square or variance in normalisation.
    pub norm_epsilon: f32,
    /// Added to the stored weights of norms before they are used.
    pub norm_offset: f32,
    /// Factor on embeddings.
    pub embedding_scale: f32,
    /// Nonlinearity of the feed-forward gate.
    pub activation: Activation,
    /// Whether the output layer is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the attention output projection has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Factor on the products of queries and keys.
    pub attention_scale: f32,
    /// Whether that factor is divided by the number of the block, counted from 1.
    pub attention_scale_by_depth: bool,
    /// Bound `c` of logits, which become `c · tanh(logit / c)`.
    pub logit_softcap: Option<f32>,
    /// Rotary position embedding.
    pub rope: Option<RopeConfig>,
    /// That of blocks with a window, where it is another one.
    pub window_rope: Option<RopeConfig>,
    /// Whether positions have learned embeddings, one for each of `max_positions`.
    pub learned_positions: bool,
    /// The mixture of experts in feed-forward layers.
    pub experts: Option<ExpertsConfig>,
    /// Per block, whether it has one feed-forward layer in spite of that; empty if none has.
    pub dense_blocks: Vec<bool>,
    /// Per block, how many of the latest positions (itself included) a query sees; `None` for all.
    pub windows: Vec<Option<usize>>,
    /// Id of the token that starts a text, if the config names one.
    pub bos_token_id: Option<u32>,
    /// Ids of the tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Storage type of the weights as the config names it, such as `bfloat16`.
    pub dtype: Option<String>,
}

/// How activations are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormKind {
    /// Divided by their root mean square.
    Rms,
    /// Shifted to mean 0, divided by their standard deviation, then scaled and shifted.
    Layer,
}

/// The dimensions of a model, whatever a family calls them.
pub(crate) struct Dimensions {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) max_positions: usize,
}

impl ModelConfig {
    /// Reads and checks a parsed config.json.
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`] for an unknown `model_type`, [`Error::Config`] naming the field that is
    /// missing or out of range, [`Error::UnsupportedRope`].
    pub fn parse(config: &serde_json::Value) -> Result<Self> {
        crate::architecture::configure(Fields::new(config)?).map(|(config, _)| config)
    }

    /// Refuses sequences that are longer than the positions the model was made for. Whoever wants to see what a model does
    /// beyond them runs it without asking.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    pub fn check_length(&self, tokens: usize) -> Result<()> {
        let positions = self.max_positions;
        if tokens > positions { Err(Error::TooLong { tokens, positions }) } else { Ok(()) }
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together; the values have the same.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Reads the fields which Llama and its relatives share; the switches are those of a plain Llama.
    pub(crate) fn base(fields: Fields<'_>, model_type: &'static str) -> Result<Self> {
        Self::base_with_head_dim(fields, model_type, None)
    }

    /// As [`base`](Self::base), with the components of a head of a config that does not say; without them they follow
    /// from the other dimensions.
    pub(crate) fn base_with_head_dim(
        fields: Fields<'_>,
        model_type: &'static str,
        default_head_dim: Option<usize>,
    ) -> Result<Self> {
        let mut config = Self::base_without_rope(fields, model_type, default_head_dim)?;
        config.read_rope(fields, 10000.0)?;
        Ok(config)
    }

    /// Reads the rotary embedding again, for families with another base than Llama's.
    pub(crate) fn read_rope(&mut self, fields: Fields<'_>, theta: f64) -> Result<()> {
        self.rope = Some(RopeConfig::parse(fields, self.rope_context(theta))?);
        Ok(())
    }

    /// As [`base_with_head_dim`](Self::base_with_head_dim), for families that read their rotary embedding another way.
    pub(crate) fn base_without_rope(
        fields: Fields<'_>,
        model_type: &'static str,
        default_head_dim: Option<usize>,
    ) -> Result<Self> {
        refuse_packed(fields)?;
        let hidden_size = fields.dimension("hidden_size")?;
        let layers = layers(fields, "num_hidden_layers")?;
        let heads = fields.dimension("num_attention_heads")?;
        let kv_heads = fields.optional_dimension("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::config("num_key_value_heads", format!("{kv_heads} does not divide {heads} heads")));
        }
        let head_dim = match fields.optional_dimension("head_dim")?.or(default_head_dim) {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(Error::config(
                    "num_attention_heads",
                    format!("{heads} does not divide hidden_size {hidden_size} and head_dim is not given"),
                ));
            }
        };
        if !head_dim.is_multiple_of(2) {
            return Err(Error::config("head_dim", format!("rotary embedding needs an even number, got {head_dim}")));
        }
        let epsilon = fields.optional_positive("rms_norm_eps")?.unwrap_or(1e-6);
        let max_positions = fields.optional_dimension("max_position_embeddings")?.unwrap_or(2048);
        let dimensions = Dimensions {
            vocab_size: fields.dimension("vocab_size")?,
            hidden_size,
            intermediate_size: fields.dimension("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim,
            max_positions,
        };
        let config = Self {
            norm_epsilon: epsilon as f32,
            activation: activation(fields, "hidden_act")?.unwrap_or(Activation::Silu),
            tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
            ..Self::plain(fields, model_type, dimensions)?
        };
        config.check_products()?;
        Ok(config)
    }

    /// A config of these dimensions in which nothing else departs from a plain Llama, with the tokens and the type that
    /// every family names alike.
    pub(crate) fn plain(fields: Fields<'_>, model_type: &'static str, dimensions: Dimensions) -> Result<Self> {
        let Dimensions { vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, max_positions } =
            dimensions;
        Ok(Self {
            model_type: model_type.to_owned(),
            vocab_size,
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim,
            max_positions,
            norm: NormKind::Rms,
            norm_epsilon: 1e-6,
            norm_offset: 0.0,
            embedding_scale: 1.0,
            activation: Activation::Silu,
            tie_word_embeddings: false,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            attention_scale_by_depth: false,
            logit_softcap: None,
            rope: None,
            window_rope: None,
            learned_positions: false,
            experts: None,
            dense_blocks: Vec::new(),
            windows: vec![None; layers],
            bos_token_id: fields.tokens("bos_token_id")?.first().copied(),
            eos_token_ids: fields.tokens("eos_token_id")?,
            dtype: dtype(fields)?,
        })
    }

    /// Dimensions of the rotary embedding in which a family differs from Llama.
    pub(crate) fn rope_context(&self, theta: f64) -> RopeContext {
        let (head_dim, max_positions) = (self.head_dim, self.max_positions);
        RopeContext { theta, head_dim, max_positions, original_positions: None, partial: false }
    }

    /// Lengths of sequences that may share a cache of keys have the same regime.
    pub(crate) fn rope_regime(&self, length: usize) -> (usize, usize) {
        let regime = |rope: &Option<RopeConfig>| rope.as_ref().map_or(0, |rope| rope.regime(length));
        (regime(&self.rope), regime(&self.window_rope))
    }

    /// Whether rotary frequencies depend on the length of the sequence.
    pub(crate) fn rope_varies(&self) -> bool {
        [&self.rope, &self.window_rope].into_iter().flatten().any(RopeConfig::varies)
    }

    pub(crate) fn check_products(&self) -> Result<()> {
        let fits = |rows: Option<usize>, columns: usize| {
            rows.and_then(|rows| rows.checked_mul(columns))
                .and_then(|elements| elements.checked_mul(size_of::<f32>()))
                .is_some_and(|bytes| isize::try_from(bytes).is_ok())
        };
        if !fits(self.heads.checked_mul(self.head_dim), self.hidden_size) {
            return Err(Error::config("head_dim", "heads x head_dim x hidden_size does not fit into memory"));
        }
        if !fits(Some(self.vocab_size), self.hidden_size) {
            return Err(Error::config("vocab_size", "vocab_size x hidden_size does not fit into memory"));
        }
        if self.learned_positions && !fits(Some(self.max_positions), self.hidden_size) {
            return Err(Error::config("n_positions", "n_positions x n_embd does not fit into memory"));
        }
        if let Some(experts) = &self.experts
            && !fits(experts.count.checked_mul(experts.width).and_then(|rows| rows.checked_mul(2)), self.hidden_size)
        {
            return Err(Error::config("num_experts", "the experts of one block do not fit into memory"));
        }
        if !fits(Some(self.intermediate_size), self.hidden_size) {
            return Err(Error::config("intermediate_size", "intermediate_size x hidden_size does not fit into memory"));
        }
        Ok(())
    }
}

/// Refuses what only a reader of packed weights can make sense of.
pub(crate) fn refuse_packed(fields: Fields<'_>) -> Result<()> {
    if fields.get("quantization_config").is_none() {
        return Ok(());
    }
    Err(Error::config("quantization_config", "packed quantized checkpoints cannot be run; use the dense checkpoint"))
}

/// The number of blocks.
pub(crate) fn layers(fields: Fields<'_>, field: &'static str) -> Result<usize> {
    let layers = fields.dimension(field)?;
    if layers > MOST_LAYERS {
        return Err(Error::config(field, format!("at most {MOST_LAYERS}, got {layers}")));
    }
    Ok(layers)
}

/// The nonlinearity that a field names.
pub(crate) fn activation(fields: Fields<'_>, field: &'static str) -> Result<Option<Activation>> {
    let Some(name) = fields.text(field)? else { return Ok(None) };
    let activation = Activation::from_name(name);
    let refuse = || Error::config(field, format!("{} are supported, got {name}", Activation::SUPPORTED));
    activation.map(Some).ok_or_else(refuse)
}

/// The storage type of the weights.
pub(crate) fn dtype(fields: Fields<'_>) -> Result<Option<String>> {
    let named = match fields.text("dtype")? {
        Some(dtype) => Some(dtype),
        None => fields.text("torch_dtype")?,
    };
    Ok(named.map(str::to_owned))
}
