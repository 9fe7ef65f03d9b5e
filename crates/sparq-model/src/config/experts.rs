use super::Fields;
use crate::{Error, Result};

/// No published model has more.
const MOST_EXPERTS: usize = 4096;

/// A mixture of experts: a router sends each token to a few of many feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpertsConfig {
    /// Number of experts in a block.
    pub count: usize,
    /// Experts a token is sent to.
    pub per_token: usize,
    /// Width of one expert's feed-forward layer.
    pub width: usize,
    /// Whether the probabilities of the chosen experts are divided by their sum.
    pub normalized: bool,
}

impl ExpertsConfig {
    /// Checks numbers that were read from the fields `count_field` and `num_experts_per_tok`.
    pub(crate) fn new(
        fields: Fields<'_>,
        count_field: &'static str,
        width: usize,
        normalized: bool,
        defaults: (usize, usize),
    ) -> Result<Self> {
        let count = fields.optional_dimension(count_field)?.unwrap_or(defaults.0);
        let per_token = fields.optional_dimension("num_experts_per_tok")?.unwrap_or(defaults.1);
        if count > MOST_EXPERTS {
            return Err(Error::config(count_field, format!("at most {MOST_EXPERTS}, got {count}")));
        }
        if per_token > count {
            return Err(Error::config("num_experts_per_tok", format!("{per_token} of {count} experts is impossible")));
        }
        Ok(Self { count, per_token, width, normalized })
    }
}
