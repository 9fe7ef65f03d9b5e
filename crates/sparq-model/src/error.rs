use std::fmt;

/// What can go wrong when a model is opened or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] sparq_tensor::Error),
    /// `model_type` names an architecture this crate does not know.
    #[error(
        "model type `{model_type}` is not supported; supported are {supported}; fields of its config that are understood: {understood}"
    )]
    UnsupportedArchitecture {
        /// What the config says.
        model_type: String,
        /// Supported model types, comma separated.
        supported: String,
        /// Fields of this config that supported architectures read, comma separated.
        understood: String,
    },
    /// A field of config.json is absent, of the wrong type, or out of range.
    #[error("config field `{field}`: {reason}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it and what is expected.
        reason: String,
    },
    /// A kind of rotary position scaling that is not implemented.
    #[error("rope type `{rope_type}` is not supported; supported are {supported}")]
    UnsupportedRope {
        /// What the config asks for.
        rope_type: String,
        /// Supported types, comma separated.
        supported: &'static str,
    },
    /// A tensor the architecture needs is not in the checkpoint.
    #[error("tensor `{name}` of shape {expected:?} is missing from the checkpoint, which has {there}")]
    MissingTensor {
        /// Full name.
        name: String,
        /// Shape it should have.
        expected: Vec<usize>,
        /// How many tensors there are, with the first names.
        there: String,
    },
    /// A weight is stored in a type whose numbers are no weights by themselves.
    #[error(
        "tensor `{name}` has type {dtype}: integers and floats of 8 bits or less are codes, whose scales and format this \
         checkpoint's config does not name"
    )]
    TensorType {
        /// Full name.
        name: String,
        /// The type.
        dtype: sparq_tensor::DType,
    },
    /// A tensor does not have the shape that the config implies.
    #[error("tensor `{name}` has shape {found:?}, the config implies {expected:?}")]
    TensorShape {
        /// Full name.
        name: String,
        /// Shape implied by the config.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },
    /// A token id is not smaller than the vocabulary.
    #[error("token {token} at position {position} is outside of the vocabulary of {vocabulary}")]
    TokenOutOfVocabulary {
        /// The id.
        token: u32,
        /// Its index in the given slice.
        position: usize,
        /// Number of embeddings.
        vocabulary: usize,
    },
    /// A sequence is longer than a model with learned positions can take.
    #[error("position {position} is outside of the {positions} positions the model has learned; use shorter sequences")]
    PositionOutOfRange {
        /// The position, counted from 0.
        position: usize,
        /// Number of positions.
        positions: usize,
    },
    /// Sequences are longer than what the model was trained for, so that nothing measured on them says much.
    #[error(
        "sequences of {tokens} tokens are longer than the {positions} positions the model was made for \
         (max_position_embeddings); use sequences of at most {positions}"
    )]
    TooLong {
        /// Tokens of a sequence.
        tokens: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// A block index is not smaller than the number of blocks.
    #[error("block {index} does not exist; the model has {count}")]
    BlockOutOfRange {
        /// The index.
        index: usize,
        /// Number of blocks.
        count: usize,
    },
    /// Blocks given to a model do not fit it.
    #[error("the given blocks do not fit the model: {reason}")]
    Blocks {
        /// What differs.
        reason: String,
    },
    /// Stages of a block were not run in order.
    #[error("block {block}: stage {expected} comes next, stage {got} was asked for")]
    StageOrder {
        /// Index of the block.
        block: usize,
        /// The stage whose turn it is; the number of stages when the block is done.
        expected: usize,
        /// The stage asked for.
        got: usize,
    },
    /// An array does not have the shape its use needs.
    #[error("{what}: shape {expected:?} is needed, got {found:?}")]
    Shape {
        /// What was given.
        what: String,
        /// Shape needed.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },
    /// JSON where text is needed.
    #[error(
        "the text is JSON, and a model is calibrated on and judged by plain text; write its texts into a file, for instance \
         with `jq -r .text FILE > text.txt`"
    )]
    NotPlainText,
    /// The checkpoint has no tokenizer.
    #[error("the checkpoint has no tokenizer; put a tokenizer.json beside the weights or pass token ids")]
    NoTokenizer,
    /// The tokenizer could not be built or refused a text.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// The cause as told by the tokenizer.
        reason: String,
    },
    /// A setting of the sampler or of a generation is out of range.
    #[error("generation setting `{setting}`: {reason}")]
    Generation {
        /// Name of the setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    pub(crate) fn config(field: &'static str, reason: impl fmt::Display) -> Self {
        Self::Config { field, reason: reason.to_string() }
    }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
