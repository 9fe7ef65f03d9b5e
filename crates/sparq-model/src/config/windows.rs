use super::Fields;
use crate::{Error, Result};

/// Per block the window that `layer_types` gives it; `None` if the config has no such list.
pub(crate) fn windows_by_name(
    fields: Fields<'_>,
    layers: usize,
    window: Option<usize>,
) -> Result<Option<Vec<Option<usize>>>> {
    let Some(value) = fields.get("layer_types") else { return Ok(None) };
    let types = value
        .as_array()
        .filter(|types| types.len() == layers)
        .ok_or_else(|| Error::config("layer_types", format!("a list of {layers} names is needed")))?;
    let window_of = |layer_type: &serde_json::Value| match layer_type.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => Ok(window),
        _ => Err(Error::config(
            "layer_types",
            format!("full_attention and sliding_attention are supported, got {layer_type}"),
        )),
    };
    types.iter().map(window_of).collect::<Result<_>>().map(Some)
}
