//! GGUF files in several parts, as `llama-gguf-split` makes them: `NAME-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

use super::parse::{self, Container};
use crate::mmap::MappedFile;
use crate::{Error, Fault, Result, limits};

/// Whether a name is that of a part behind the first.
pub(crate) fn is_later_part(path: &Path) -> bool {
    name_of(path).is_some_and(|(_, part, _)| part > 1)
}

/// The name of a part, counted from 0, of a model of this stem.
pub(super) fn file_name(stem: &str, part: u16, count: u16) -> String {
    format!("{stem}-{:05}-of-{count:05}.gguf", u32::from(part) + 1)
}

/// Whether a writer of parts gives this name.
pub(crate) fn is_written_part(path: &Path) -> bool {
    path.ends_with("model.gguf") || name_of(path).is_some_and(|(stem, ..)| stem == "model")
}

/// Stem, number of the part, number of parts.
fn name_of(path: &Path) -> Option<(&str, u64, u64)> {
    let (rest, parts) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let number = |digits: &str| (digits.len() == 5).then(|| digits.parse().ok()).flatten();
    Some((stem, number(part)?, number(parts)?))
}

/// All parts of the model that `file` is a part of, in order, each with what it says. Metadata is that of the first.
pub(super) fn open(file: MappedFile) -> Result<Vec<(MappedFile, Container)>> {
    let container = parse::parse(file.path(), file.bytes())?;
    let metadata = &container.metadata;
    let count = metadata.integer("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![(file, container)]);
    }
    if count > limits::SHARDS {
        let fault = Fault::TooLarge { what: "the number of parts", value: count, limit: limits::SHARDS };
        return Err(Error::malformed(file.path(), fault));
    }
    let Some((stem, part, _)) = name_of(file.path()).filter(|&(_, _, of)| of == count) else {
        let value = format!("part of {count}; the others are found by names like NAME-00001-of-{count:05}.gguf");
        return Err(metadata.unsupported("the name of a GGUF file in several parts", value));
    };
    let named = |part: u64| -> PathBuf { file.path().with_file_name(format!("{stem}-{part:05}-of-{count:05}.gguf")) };
    let mut parts = Vec::new();
    for number in 1..=count {
        if number == part {
            continue;
        }
        let path = named(number);
        if !path.exists() {
            return Err(Error::MissingFile { file: path, needed_for: format!("the model is in {count} parts") });
        }
        let file = MappedFile::open(&path)?;
        let container = parse::parse(&path, file.bytes())?;
        parts.push((file, container));
    }
    parts.insert((part.clamp(1, count) - 1) as usize, (file, container));
    for (number, (file, container)) in (0u64..).zip(&parts) {
        let says = |key: &str| container.metadata.integer(key);
        if says("split.no")? != Some(number) || says("split.count")? != Some(count) {
            let what = "the number of the part, by its metadata and by its name";
            let value = format!("{:?} and {number}", says("split.no")?);
            return Err(Error::malformed(file.path(), Fault::BadValue { what, value }));
        }
    }
    let tensors: usize = parts.iter().map(|(_, container)| container.tensors.len()).sum();
    let (first, container) = &parts[0];
    match container.metadata.integer("split.tensors.count")? {
        Some(promised) if promised != tensors as u64 => {
            let what = "the number of tensors in all parts";
            let value = format!("{tensors} where {promised} are promised");
            Err(Error::malformed(first.path(), Fault::BadValue { what, value }))
        }
        _ => Ok(parts),
    }
}
