//! Limits on a task's files. A larger file is more likely a mistake or an attack than a benchmark.

use crate::error::cause_of;
use crate::{Error, Result};
use std::path::Path;

/// Bytes of a definition.
pub(super) const DEFINITION_BYTES: usize = 1 << 20;
/// Bytes of a file of records.
const DATA_BYTES: u64 = 1 << 30;
/// Bytes of one record.
pub(super) const RECORD_BYTES: usize = 4 << 20;
/// Bytes of one filled template, worked examples included.
pub(super) const PROMPT_BYTES: usize = 1 << 20;
/// Bytes of all filled templates of a task, worked examples included: a template may repeat a long field.
pub(super) const TASK_BYTES: usize = 4 << 30;
/// Choices of one item.
pub(super) const CHOICES: usize = 256;
/// Worked examples.
pub(super) const SHOTS: usize = 64;
/// Tokens of a generated answer.
pub(super) const NEW_TOKENS: usize = 16_384;
/// Strings that end a generation.
pub(super) const STOPS: usize = 64;
/// Files of a task.
pub(super) const FILES: usize = 1024;
/// Definitions in one file.
pub(super) const VARIANTS: usize = 1024;

/// Reads a text file of at most the limit's length.
pub(super) fn read(path: &Path) -> Result<String> {
    sparq_tensor::read_text(path, DATA_BYTES)
        .map_err(|error| Error::Read { path: path.to_owned(), cause: cause_of(error) })
}
