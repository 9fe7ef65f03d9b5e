use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::conventions::Conventions;
use super::fields::ConfigFields;
use super::key_values::Entries;
use super::metadata::Metadata;
use super::model::{GgufModel, Keys};
use crate::{Error, Result};

/// The families that a reader or writer of GGUF files knows.
pub type Families = &'static [&'static dyn Family];

/// What reading and writing GGUF files takes to know about a family of models.
///
/// `sparq-model` implements it for each of its architectures, in the architecture's own file.
pub trait Family: fmt::Debug + Send + Sync {
    /// Names, and how tensors lie in files.
    fn conventions(&self) -> &'static Conventions;

    /// Whether a file that names the family's architecture is of this family. Several families may share one architecture:
    /// Mistral is llama with a window.
    ///
    /// # Errors
    /// For metadata of the wrong type.
    fn is_in(&self, keys: &Keys<'_>) -> Result<bool> {
        let _ = keys;
        Ok(true)
    }

    /// The name that transformers saves a tensor under today.
    fn todays_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(name)
    }

    /// Names of the tensors that a model of this `config.json` reads, whether they are there or not; none if the config
    /// cannot be read. `has` says whether the checkpoint has a tensor.
    fn reads(&self, config: &Value, has: &dyn Fn(&str) -> bool) -> Option<BTreeSet<String>>;

    /// `config.json` of a file, in the style of transformers 4, but for the fields that all models have: the size of the
    /// vocabulary, tied embeddings, the type of the values, and special tokens.
    ///
    /// # Errors
    /// For metadata that is missing, of the wrong type, or has no Hugging Face equivalent.
    fn config(&self, model: &GgufModel<'_>) -> Result<Value>;

    /// Adds the metadata of a Hugging Face checkpoint to `entries`, and says what decides how its tensors are laid out.
    ///
    /// # Errors
    /// For a config that lacks fields or that llama.cpp cannot compute.
    fn describe(&self, config: &ConfigFields<'_>, entries: &mut Entries<'_>) -> Result<Layout>;
}

/// What decides how tensors are laid out in a file, beyond their names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    /// Rows of a head in query and key projections; 0 where it does not matter.
    pub head_dimension: usize,
    /// Experts of a block; 0 without a mixture of experts.
    pub experts: u64,
    /// Tensors of rotary divisors, by their names in the file.
    pub rope_divisors: Vec<(&'static str, Vec<f32>)>,
}

/// The family that a file is of.
pub(super) fn of_file(families: Families, metadata: &Metadata) -> Result<&'static dyn Family> {
    const KEY: &str = "general.architecture";
    let name = metadata.string(KEY)?.ok_or_else(|| metadata.missing(KEY))?;
    for family in families {
        let architecture = family.conventions().architecture;
        if architecture == name && family.is_in(&Keys { metadata, architecture })? {
            return Ok(*family);
        }
    }
    Err(Error::UnsupportedArchitecture {
        file: metadata.file().to_path_buf(),
        architecture: name.chars().take(100).collect(),
        supported: architectures(families),
    })
}

/// The family whose `model_type` in `config.json` is this.
pub(crate) fn of_model_type(families: Families, model_type: &str) -> Option<&'static dyn Family> {
    families.iter().copied().find(|family| family.conventions().model_type == model_type)
}

/// The values of `general.architecture` that are known.
pub(super) fn architectures(families: Families) -> Vec<&'static str> {
    let mut names: Vec<_> = families.iter().map(|family| family.conventions().architecture).collect();
    names.sort_unstable();
    names.dedup();
    names
}
