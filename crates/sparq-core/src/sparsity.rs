use crate::{CompressError, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much of a layer is removed, and in which pattern.
///
/// # Examples
/// ```
/// use sparq_core::Sparsity;
/// assert_eq!(Sparsity::unstructured(0.5)?.fraction(), 0.5);
/// assert_eq!("2:4".parse::<Sparsity>()?, Sparsity::n_of_m(2, 4)?);
/// assert!(Sparsity::unstructured(1.0).is_err());
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Sparsity {
    /// Any weight may go; the value is the fraction of weights removed, in `[0, 1)`.
    Unstructured(f64),
    /// Of every `of` consecutive input channels of a row, `kept` stay. "2:4" keeps 2 of 4; "6:8" is 25 % sparse.
    NOfM {
        /// Weights that stay in each group.
        kept: usize,
        /// Size of a group.
        of: usize,
    },
}

impl Sparsity {
    /// Nothing is removed.
    pub const DENSE: Sparsity = Sparsity::Unstructured(0.0);

    /// Removes `fraction` of the weights, wherever they stand.
    ///
    /// # Errors
    /// [`CompressError::Setting`] unless `0 <= fraction < 1`.
    pub fn unstructured(fraction: f64) -> Result<Self> {
        if (0.0..1.0).contains(&fraction) {
            Ok(Self::Unstructured(fraction))
        } else {
            Err(CompressError::Setting {
                name: "sparsity",
                value: fraction.to_string(),
                expected: "a fraction of weights to remove, 0 <= s < 1".into(),
            })
        }
    }

    /// Keeps `kept` of every `of` consecutive weights of a row.
    ///
    /// # Errors
    /// [`CompressError::Setting`] unless `0 < kept < of` and `of <= 256`.
    pub fn n_of_m(kept: usize, of: usize) -> Result<Self> {
        if 0 < kept && kept < of && of <= 256 {
            Ok(Self::NOfM { kept, of })
        } else {
            Err(CompressError::Setting {
                name: "pattern",
                value: format!("{kept}:{of}"),
                expected: "kept:of with 0 < kept < of <= 256, as in 2:4".into(),
            })
        }
    }

    /// The fraction of weights removed.
    pub fn fraction(self) -> f64 {
        match self {
            Self::Unstructured(fraction) => fraction,
            Self::NOfM { kept, of } => of.saturating_sub(kept) as f64 / of.max(1) as f64,
        }
    }

    /// Whether nothing is removed.
    pub fn is_dense(self) -> bool {
        self.fraction() == 0.0
    }
}

impl fmt::Display for Sparsity {
    /// `0.25` for unstructured sparsity, `2:4` for a pattern.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured(fraction) => write!(f, "{fraction}"),
            Self::NOfM { kept, of } => write!(f, "{kept}:{of}"),
        }
    }
}

impl FromStr for Sparsity {
    type Err = CompressError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || CompressError::Setting {
            name: "sparsity",
            value: text.to_owned(),
            expected: "a fraction such as 0.25, or kept:of such as 2:4".into(),
        };
        match text.split_once(':') {
            Some((kept, of)) => {
                Self::n_of_m(kept.trim().parse().map_err(|_| bad())?, of.trim().parse().map_err(|_| bad())?)
            }
            None => Self::unstructured(text.trim().parse().map_err(|_| bad())?),
        }
    }
}

impl TryFrom<String> for Sparsity {
    type Error = CompressError;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Sparsity> for String {
    fn from(sparsity: Sparsity) -> Self {
        sparsity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_agree() {
        for text in ["0", "0.25", "2:4", "6:8", "1:4"] {
            let sparsity: Sparsity = text.parse().expect("valid");
            assert_eq!(sparsity.to_string(), text);
            let json = serde_json::to_string(&sparsity).expect("serializable");
            assert_eq!(serde_json::from_str::<Sparsity>(&json).expect("round trip"), sparsity);
        }
        for text in ["", "1", "-0.1", "nan", "4:2", "0:4", "4:4", "2:4:8", "2:", "1:100000"] {
            assert!(text.parse::<Sparsity>().is_err(), "{text}");
        }
    }
}
