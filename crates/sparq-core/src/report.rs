use serde::{Deserialize, Serialize};
use std::fmt;

/// A step a solver took because the preferred one was impossible. Every one is reported; none is silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Fallback {
    /// The damped Hessian was not positive definite; a larger damping was used.
    RaisedDamping {
        /// What was asked for, as a fraction of the mean diagonal.
        requested: f64,
        /// What worked.
        used: f64,
    },
    /// No damping up to the limit worked; only the diagonal of the Hessian was used.
    DiagonalHessian,
    /// The Hessian carries no information (zero or not finite); every weight counted the same, without compensation.
    NoCurvature,
    /// Input channels that were zero for every calibration token.
    DeadChannels {
        /// How many.
        count: usize,
    },
    /// Fewer calibration tokens than input channels: the Hessian is singular and rests on the damping.
    FewTokens {
        /// Calibration tokens seen.
        tokens: u64,
        /// Input channels.
        channels: usize,
    },
    /// Calibration tokens whose inputs were NaN or infinite; they were left out of the statistics.
    SkippedTokens {
        /// How many.
        count: u64,
    },
    /// No calibration token reached the layer, an expert that none was sent to; weights were chosen by magnitude and
    /// rounded plainly.
    NoTokens,
    /// The solution was not finite; weights were chosen by magnitude and rounded plainly instead.
    NotFinite,
    /// Scales that lie outside the range of their storage type and were set to its end.
    ClampedScales {
        /// How many.
        count: usize,
    },
    /// Groups of weights that were removed altogether; their codes mean zero whatever their scale.
    EmptyGroups {
        /// How many.
        count: usize,
    },
}

impl Fallback {
    /// Whether the result may be worse than what was asked for. Channels that are never active and groups that are
    /// empty are worth knowing but cost nothing.
    ///
    /// ```
    /// use sparq_core::Fallback;
    /// assert!(Fallback::DiagonalHessian.is_degradation());
    /// assert!(!Fallback::EmptyGroups { count: 3 }.is_degradation());
    /// ```
    pub fn is_degradation(&self) -> bool {
        !matches!(self, Self::DeadChannels { .. } | Self::EmptyGroups { .. })
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RaisedDamping { requested, used } => write!(f, "damping raised from {requested} to {used}"),
            Self::DiagonalHessian => f.write_str("only the diagonal of the Hessian used"),
            Self::NoCurvature => f.write_str("no curvature: plain rounding and magnitudes"),
            Self::DeadChannels { count } => write!(f, "{count} input channels never active"),
            Self::FewTokens { tokens, channels } => write!(f, "{tokens} tokens for {channels} channels"),
            Self::SkippedTokens { count } => write!(f, "{count} tokens with inputs that are not finite left out"),
            Self::NoTokens => f.write_str("no calibration token seen: plain rounding and magnitudes"),
            Self::NotFinite => f.write_str("solution not finite: plain rounding and magnitudes"),
            Self::ClampedScales { count } => write!(f, "{count} scales clamped to the range of their type"),
            Self::EmptyGroups { count } => write!(f, "{count} groups removed altogether"),
        }
    }
}

/// How the solve of one layer went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SolveReport {
    /// Damping used, as a fraction of the mean diagonal of the Hessian; none if the method needs no Hessian.
    pub damping: Option<f64>,
    /// What could not be done as asked, in order.
    pub fallbacks: Vec<Fallback>,
}

impl SolveReport {
    /// Of a layer whose rows were solved in parts, in order. What counts groups is added up.
    pub fn of_rows(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::default();
        let (mut clamped, mut empty) = (0, 0);
        for part in parts {
            whole.damping = whole.damping.or(part.damping);
            for fallback in part.fallbacks {
                match fallback {
                    Fallback::ClampedScales { count } => clamped += count,
                    Fallback::EmptyGroups { count } => empty += count,
                    other if whole.fallbacks.contains(&other) => {}
                    other => whole.fallbacks.push(other),
                }
            }
        }
        whole.fallbacks.extend((clamped > 0).then_some(Fallback::ClampedScales { count: clamped }));
        whole.fallbacks.extend((empty > 0).then_some(Fallback::EmptyGroups { count: empty }));
        whole
    }

    /// Adds what a later step did: its damping counts, and what it could not do comes behind.
    pub fn join(&mut self, later: Self) {
        self.damping = later.damping.or(self.damping);
        for fallback in later.fallbacks {
            if !self.fallbacks.contains(&fallback) {
                self.fallbacks.push(fallback);
            }
        }
    }
}
