use crate::SolvedShape;
use serde::{Deserialize, Serialize};
use sparq_core::SolveReport;
use std::collections::BTreeMap;

/// One layer of a solution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerEntry {
    /// The file that holds it.
    pub file: String,
    /// What it is.
    pub layer: SolvedShape,
    /// How the solve went.
    pub report: SolveReport,
}

/// What a solution holds so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SolutionContents {
    /// SHA-256 of each file, in hexadecimal.
    pub files: BTreeMap<String, String>,
    /// Every layer, in the order of the model.
    pub layers: Vec<LayerEntry>,
    /// The file with [other tensors](crate::SolvedLayers::tensors), if some were changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<String>,
}

/// What `solution.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) schema: u32,
    /// What the solution was made with, for people and for comparisons.
    pub(super) settings: BTreeMap<String, String>,
    pub(super) contents: SolutionContents,
}
