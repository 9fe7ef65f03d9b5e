use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// Bytes of a text file to calibrate on or to judge by: more than any such file has any use for.
const LARGEST_TEXT: u64 = 256 << 20;

/// Any JSON object.
#[derive(Deserialize)]
struct Object {}

/// Reads a text file of at most 256 MiB, without its byte order mark.
///
/// # Errors
/// [`Error::Checkpoint`] if it cannot be read, is larger, or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    Ok(sparq_tensor::read_text(path, LARGEST_TEXT)?)
}

/// The text without its byte order mark. JSON is refused: a model that is calibrated on or judged by field names and quotes
/// says little about text.
///
/// # Errors
/// [`Error::NotPlainText`] if the first line that is not blank, or all of the text, is a JSON object, or all of it is a JSON
/// array.
///
/// # Examples
/// ```
/// use sparq_model::plain_text;
/// assert_eq!(plain_text("\u{feff}Ann has the ring.")?, "Ann has the ring.");
/// assert!(plain_text(r#"{"text": "Ann has the ring."}"#).is_err());
/// # Ok::<(), sparq_model::Error>(())
/// ```
pub fn plain_text(text: &str) -> Result<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_object = |text: &str| text.trim() != "{}" && serde_json::from_str::<Object>(text).is_ok();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let is_json = match first.as_bytes().first() {
        Some(b'{') => is_object(first) || is_object(text),
        Some(b'[') => serde_json::from_str::<Vec<Object>>(text).is_ok_and(|list| !list.is_empty()),
        _ => false,
    };
    if is_json { Err(Error::NotPlainText) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_text_that_looks_like_it() {
        let json = [
            "{\"text\": \"a\"}\n{\"text\": \"b\"}\n",
            "\n {\"text\": \"a\"}\n{\"text\": \"cut off",
            "{\n \"text\": [\"a\"]\n}",
            "\u{feff}[\n{\"text\": \"a\"}]",
        ];
        for text in json {
            assert!(matches!(plain_text(text), Err(Error::NotPlainText)), "{text}");
        }
        for text in ["", "{}", "{ a set }", "[1]", "[1] A note.", "= Title =\n{\"a\": 1}", "{\n  int x;\n}"] {
            assert_eq!(plain_text(text).unwrap(), text);
        }
    }
}
