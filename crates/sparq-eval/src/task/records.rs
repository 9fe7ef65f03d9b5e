//! Files to records: lines of JSON, or one document that lists them.

use super::limits;
use crate::{Error, Result};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// A record as it stands in the file.
pub(super) type Record = Map<String, Value>;

/// A record and where it is.
pub(super) struct Placed {
    /// Number of the record: its line, or its position in the document's list, from 1.
    pub(super) number: usize,
    /// Line, from 1, on which it starts.
    pub(super) line: usize,
    /// The record, or what is wrong with it.
    pub(super) record: std::result::Result<Record, String>,
}

/// The records of `text`; `list` is the key of a document that lists them.
///
/// # Errors
/// [`Error::Record`] if a document as a whole is not one; what is wrong with single records is in them.
pub(super) fn records<'a>(
    file: &'a str,
    text: &'a str,
    list: Option<&'a str>,
) -> Result<Box<dyn Iterator<Item = Placed> + 'a>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(list) = list else {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        return Ok(Box::new(lines.map(|(index, line)| Placed {
            number: index + 1,
            line: index + 1,
            record: parse(line),
        })));
    };
    let error = |line, reason| Error::Record { file: file.to_owned(), line, reason, others: Vec::new() };
    let broken = |source: serde_json::Error| error(source.line(), format!("not JSON: {source}"));
    let document: HashMap<String, &RawValue> = serde_json::from_str(text).map_err(broken)?;
    let Some(raw) = document.get(list) else {
        return Err(error(1, format!("the document has no list `{list}`")));
    };
    let raw = raw.get();
    let first_line = line_of(text, raw);
    let elements: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|source| error(first_line, format!("`{list}` is no list: {source}")))?;
    // Lines are counted from one record to the next, so that a long document is walked once.
    let (mut line, mut seen) = (1, 0);
    Ok(Box::new(elements.into_iter().enumerate().map(move |(index, element)| {
        let element = element.get();
        let start = offset(text, element);
        line += newlines(&text[seen..start]);
        seen = start;
        Placed { number: index + 1, line, record: parse(element) }
    })))
}

fn parse(text: &str) -> std::result::Result<Record, String> {
    if text.len() > limits::RECORD_BYTES {
        return Err(format!("the record has {} bytes, at most {} are possible", text.len(), limits::RECORD_BYTES));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(record)) => Ok(record),
        Ok(_) => Err("a JSON object is needed".to_owned()),
        Err(source) => Err(format!("not JSON: {source}")),
    }
}

/// Where `part` starts in `whole`, of which it is a slice; 0 if it is none.
fn offset(whole: &str, part: &str) -> usize {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    if whole.is_char_boundary(start) { start } else { 0 }
}

fn line_of(whole: &str, part: &str) -> usize {
    1 + newlines(&whole[..offset(whole, part)])
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, list: Option<&str>) -> Vec<(usize, usize, bool)> {
        let records = records("f.json", text, list).unwrap();
        records.map(|placed| (placed.number, placed.line, placed.record.is_ok())).collect()
    }

    #[test]
    fn lines_and_documents_have_places() {
        assert_eq!(all("{}\n\n{}\n[", None), [(1, 1, true), (3, 3, true), (4, 4, false)]);
        let document = "{\n \"canary\": 1,\n \"examples\": [\n  {},\n  {\"a\":\n 1},\n  7\n ]\n}";
        assert_eq!(all(document, Some("examples")), [(1, 4, true), (2, 5, true), (3, 7, false)]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_record() {
        assert_eq!(all("\u{feff}{}\n{}", None), [(1, 1, true), (2, 2, true)]);
        assert_eq!(all("\u{feff}{\n\"examples\": [{}]}", Some("examples")), [(1, 2, true)]);
    }

    #[test]
    fn broken_documents_name_the_line() {
        for (text, expected) in [
            ("{\n\"examples\": [\n{]", "f.json, line 3: not JSON"),
            ("{\"other\": []}", "f.json, line 1: the document has no list `examples`"),
            ("{\n\"examples\": 3}", "f.json, line 2: `examples` is no list"),
            ("[]", "f.json, line 1: not JSON"),
        ] {
            let error = records("f.json", text, Some("examples")).err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn deep_and_long_records_are_refused() {
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(all(&deep, None), [(1, 1, false)]);
        let document = format!("{{\"examples\": [{deep}]}}");
        let outcome = records("f.json", &document, Some("examples")).map(Iterator::count);
        assert!(outcome.is_err() || all(&document, Some("examples")) == [(1, 1, false)]);
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(limits::RECORD_BYTES));
        assert_eq!(all(&long, None), [(1, 1, false)]);
    }
}
