//! Reading rotary embeddings in the tests of this folder.

use super::{RopeConfig, RopeContext};
use crate::Result;
use crate::config::Fields;
use serde_json::Value;

pub(super) fn parse(value: &Value) -> Result<RopeConfig> {
    let context =
        RopeContext { theta: 10000.0, head_dim: 8, max_positions: 64, original_positions: None, partial: false };
    RopeConfig::parse(Fields::new(value)?, context)
}
