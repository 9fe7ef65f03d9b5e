//! What config.json says, checked, in one form for every architecture.

mod fields;
mod rope;

pub(crate) use fields::Fields;
pub use rope::{RopeConfig, RopeScaling};

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
/// assert_eq!((config.head_dim, config.rope.theta), (4, 500000.0));
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
    /// Added to the mean square in RMS normalisation.
    pub norm_epsilon: f32,
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
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Per block, how many of the latest positions (itself included) a query sees; `None` for all.
    pub windows: Vec<Option<usize>>,
    /// Id of the token that starts a text, if the config names one.
    pub bos_token_id: Option<u32>,
    /// Ids of the tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Storage type of the weights as the config names it, such as `bfloat16`.
    pub dtype: Option<String>,
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
        if fields.get("quantization_config").is_some() {
            return Err(Error::config(
                "quantization_config",
                "packed quantized checkpoints cannot be run; use the dense checkpoint",
            ));
        }
        let hidden_size = fields.dimension("hidden_size")?;
        let layers = fields.dimension("num_hidden_layers")?;
        if layers > MOST_LAYERS {
            return Err(Error::config("num_hidden_layers", format!("at most {MOST_LAYERS}, got {layers}")));
        }
        let heads = fields.dimension("num_attention_heads")?;
        let kv_heads = fields.optional_dimension("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::config("num_key_value_heads", format!("{kv_heads} does not divide {heads} heads")));
        }
        let head_dim = match fields.optional_dimension("head_dim")? {
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
        let config = Self {
            model_type: model_type.to_owned(),
            vocab_size: fields.dimension("vocab_size")?,
            hidden_size,
            intermediate_size: fields.dimension("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim,
            max_positions: fields.optional_dimension("max_position_embeddings")?.unwrap_or(2048),
            norm_epsilon: epsilon as f32,
            activation: match fields.text("hidden_act")? {
                None => Activation::Silu,
                Some(name) => Activation::from_name(name).ok_or_else(|| {
                    Error::config("hidden_act", format!("{} are supported, got {name}", Activation::SUPPORTED))
                })?,
            },
            tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            rope: RopeConfig::parse(fields, 10000.0)?,
            windows: vec![None; layers],
            bos_token_id: fields.tokens("bos_token_id")?.first().copied(),
            eos_token_ids: fields.tokens("eos_token_id")?,
            dtype: match fields.text("dtype")? {
                Some(dtype) => Some(dtype),
                None => fields.text("torch_dtype")?,
            }
            .map(str::to_owned),
        };
        config.check_products()?;
        Ok(config)
    }

    fn check_products(&self) -> Result<()> {
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
        if !fits(Some(self.intermediate_size), self.hidden_size) {
            return Err(Error::config("intermediate_size", "intermediate_size x hidden_size does not fit into memory"));
        }
        Ok(())
    }
}
