use crate::{Error, Result};
use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

/// Which linear layers are compressed, by glob over their full names (`model.layers.3.mlp.down_proj`); `*` crosses dots.
///
/// The default takes every linear layer inside the blocks. Embeddings, norms and the output matrix (`lm_head`) are never
/// among them. A pattern that matches no layer of the model is refused when a compression is planned.
///
/// # Examples
/// ```
/// use sparq_pipeline::Targets;
/// let targets = Targets { include: vec!["*.mlp.*".into()], ignore: vec!["model.layers.0.*".into()] };
/// let chosen = targets.build()?;
/// assert!(chosen.contains("model.layers.7.mlp.up_proj"));
/// assert!(!chosen.contains("model.layers.0.mlp.up_proj") && !chosen.contains("model.layers.7.self_attn.q_proj"));
/// # Ok::<(), sparq_pipeline::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// What is compressed.
    pub include: Vec<String>,
    /// What is left alone all the same.
    pub ignore: Vec<String>,
}

impl Default for Targets {
    fn default() -> Self {
        Self { include: vec!["*".into()], ignore: Vec::new() }
    }
}

impl Targets {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn build(&self) -> Result<Matcher> {
        Ok(Matcher { include: set(&self.include)?, ignore: set(&self.ignore)? })
    }
}

fn set(patterns: &[String]) -> Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(Glob::new(pattern).map_err(|error| Error::bad_pattern(pattern, &error))?);
    }
    builder.build().map_err(|error| Error::bad_pattern(&patterns.join(", "), &error))
}

/// Compiled [`Targets`].
#[derive(Debug, Clone)]
pub struct Matcher {
    include: GlobSet,
    ignore: GlobSet,
}

impl Matcher {
    /// Whether the linear layer of this name is compressed.
    pub fn contains(&self, name: &str) -> bool {
        self.include.is_match(name) && !self.ignore.is_match(name)
    }
}
