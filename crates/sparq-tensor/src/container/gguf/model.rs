use std::collections::BTreeMap;

use super::conventions::Conventions;
use super::metadata::Metadata;
use crate::entry::Entry;
use crate::{Error, Fault, Result, limits};

/// What a GGUF file says about its model, as its family reads it.
#[derive(Debug)]
pub struct GgufModel<'a> {
    /// Metadata.
    pub keys: Keys<'a>,
    /// Sizes that all families have.
    pub sizes: Sizes,
    pub(super) tensors: &'a BTreeMap<String, Entry>,
    pub(super) rope_factors: &'a [(&'static str, Vec<f32>)],
}

impl GgufModel<'_> {
    /// Whether there is a tensor of this Hugging Face name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The values of a tensor of divisors of the rotary frequencies.
    pub fn rope_factors(&self, name: &str) -> Option<&[f32]> {
        self.rope_factors.iter().find(|(theirs, _)| *theirs == name).map(|(_, factors)| factors.as_slice())
    }
}

/// The metadata of a file below its architecture's prefix: `size("block_count")` is that of `llama.block_count`.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) architecture: &'static str,
}

impl<'a> Keys<'a> {
    /// The whole key.
    pub fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    /// A non-negative integer of any width.
    ///
    /// # Errors
    /// [`Error::InvalidMetadata`] for a value of another type.
    pub fn integer(&self, suffix: &str) -> Result<Option<u64>> {
        self.metadata.integer(&self.key(suffix))
    }

    /// A finite float of any width.
    ///
    /// # Errors
    /// [`Error::InvalidMetadata`] for a value of another type.
    pub fn float(&self, suffix: &str) -> Result<Option<f64>> {
        self.metadata.float(&self.key(suffix))
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::InvalidMetadata`] for a value of another type.
    pub fn string(&self, suffix: &str) -> Result<Option<&'a str>> {
        self.metadata.string(&self.key(suffix))
    }

    /// An integer between 1 and 2³¹ − 1 that must be there.
    ///
    /// # Errors
    /// [`Error::MissingMetadata`], [`Error::InvalidMetadata`].
    pub fn size(&self, suffix: &str) -> Result<u64> {
        self.optional_size(suffix)?.ok_or_else(|| self.missing(suffix))
    }

    fn optional_size(&self, suffix: &str) -> Result<Option<u64>> {
        let Some(value) = self.integer(suffix)? else { return Ok(None) };
        if (1..=i32::MAX as u64).contains(&value) {
            return Ok(Some(value));
        }
        Err(Error::InvalidMetadata {
            file: self.metadata.file().to_path_buf(),
            key: self.key(suffix),
            expected: "a number between 1 and 2147483647",
            found: value.to_string(),
        })
    }

    /// A float that must be there.
    ///
    /// # Errors
    /// [`Error::MissingMetadata`], [`Error::InvalidMetadata`].
    pub fn needed_float(&self, suffix: &str) -> Result<f64> {
        self.float(suffix)?.ok_or_else(|| self.missing(suffix))
    }

    /// The error for a key that is not there.
    pub fn missing(&self, suffix: &str) -> Error {
        self.metadata.missing(&self.key(suffix))
    }

    /// The error for what has no Hugging Face equivalent.
    pub fn unsupported(&self, what: impl Into<String>, value: impl Into<String>) -> Error {
        self.metadata.unsupported(what, value)
    }

    /// The error for a tensor of divisors of the wrong length.
    pub fn wrong_length(&self, tensor: &str, found: usize, reason: &'static str) -> Error {
        Error::tensor(self.metadata.file(), tensor, Fault::BadShape { shape: vec![found], reason })
    }
}

/// The sizes of a model that all families have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizes {
    /// Transformer blocks.
    pub blocks: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys and values.
    pub key_value_heads: u64,
    /// Elements of a head.
    pub head_dimension: usize,
    /// Elements of each head that the rotary embedding turns.
    pub rotated: usize,
    /// Experts of a block; 0 without a mixture of experts.
    pub experts: u64,
}

impl Sizes {
    pub(super) fn of(keys: &Keys<'_>, conventions: &Conventions) -> Result<Self> {
        let blocks = keys.size("block_count")?;
        if blocks > limits::BLOCKS {
            return Err(keys.unsupported("the number of transformer blocks", blocks.to_string()));
        }
        let experts = keys.integer("expert_count")?.unwrap_or(0);
        if experts > 0 && !conventions.may_have_experts || experts > limits::EXPERTS {
            return Err(keys.unsupported("a mixture of experts", format!("{experts} experts")));
        }
        let hidden = keys.size("embedding_length")?;
        let heads = keys.size("attention.head_count")?;
        let key_value_heads = keys.optional_size("attention.head_count_kv")?.unwrap_or(heads);
        let head_dimension = match keys.optional_size("attention.key_length")? {
            Some(value) => value,
            None if hidden % heads == 0 => hidden / heads,
            None => return Err(keys.missing("attention.key_length")),
        };
        if let Some(length) = keys.integer("attention.value_length")?.filter(|&n| n != head_dimension) {
            let value = format!("{head_dimension} and {length}");
            return Err(keys.unsupported("attention with keys and values of different size", value));
        }
        let rotated = keys.integer("rope.dimension_count")?.unwrap_or(head_dimension);
        let may_be_partial = conventions.may_rotate_partly && (1..head_dimension).contains(&rotated);
        if rotated != head_dimension && !may_be_partial {
            let value = format!("{rotated} of {head_dimension} elements");
            return Err(keys.unsupported("a rotary embedding of a part of each head", value));
        }
        let (head_dimension, rotated) = (head_dimension as usize, rotated as usize);
        Ok(Self { blocks, hidden, heads, key_value_heads, head_dimension, rotated, experts })
    }
}
