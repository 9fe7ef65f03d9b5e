//! Which safetensors files make up a checkpoint, and which of their tensors count.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::{INDEX_FILE, header};
use crate::entry::{Entry, Loaded};
use crate::mmap::MappedFile;
use crate::{Error, Fault, Result, TensorInfo, files, limits};

/// Opens one safetensors file as a whole checkpoint.
pub(crate) fn open_file(path: &Path) -> Result<Loaded> {
    open_mapped(MappedFile::open(path)?)
}

/// As [`open_file`], for a file that is mapped already.
pub(crate) fn open_mapped(file: MappedFile) -> Result<Loaded> {
    let entries = header::parse(file.path(), file.bytes())?;
    let tensors = entries.into_iter().map(|entry| (entry.name.clone(), loaded_entry(file.path(), 0, entry))).collect();
    Ok(Loaded { files: vec![file], tensors })
}

/// Opens the shards of `model.safetensors.index.json`; `None` if the directory has none.
pub(crate) fn open_index(directory: &Path) -> Result<Option<Loaded>> {
    let index = directory.join(INDEX_FILE);
    if index.exists() { open_sharded(directory, &index).map(Some) } else { Ok(None) }
}

fn open_sharded(directory: &Path, index_path: &Path) -> Result<Loaded> {
    let mut names_by_shard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in read_index(index_path)? {
        names_by_shard.entry(shard).or_default().push(tensor);
    }
    if names_by_shard.len() as u64 > limits::SHARDS {
        let value = names_by_shard.len() as u64;
        let fault = Fault::TooLarge { what: "the number of shards", value, limit: limits::SHARDS };
        return Err(Error::malformed(index_path, fault));
    }
    let mut files = Vec::with_capacity(names_by_shard.len());
    let mut tensors = BTreeMap::new();
    for (shard, names) in names_by_shard {
        let path = directory.join(&shard);
        if !path.exists() {
            let needed_for = format!("{INDEX_FILE} places {} tensor(s) in it", names.len());
            return Err(Error::MissingFile { file: path, needed_for });
        }
        let file = MappedFile::open(&path)?;
        let mut entries: BTreeMap<String, header::HeaderEntry> =
            header::parse(&path, file.bytes())?.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        for name in names {
            // A model that needs one that is not there will say so.
            if let Some(entry) = entries.remove(&name) {
                tensors.insert(name, loaded_entry(&path, files.len(), entry));
            }
        }
        files.push(file);
    }
    Ok(Loaded { files, tensors })
}

/// The pairs (tensor, shard) of the index, each shard checked to be a plain file name.
fn read_index(path: &Path) -> Result<Vec<(String, String)>> {
    // Nothing else of it is kept in memory, however long.
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = files::read_unmarked(path, limits::INDEX_BYTES)?;
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| Error::malformed(path, Fault::Json { what: "the index", reason: error.to_string() }))?;
    for (tensor, name) in &index.weight_map {
        if !is_plain_file_name(name) {
            return Err(Error::tensor(path, tensor, Fault::ShardName { name: name.clone() }));
        }
    }
    Ok(index.weight_map.into_iter().collect())
}

/// Whether a name can only mean a file directly inside of the directory, on every operating system.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let only_name = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    only_name && !name.contains(['/', '\\', ':', '\0'])
}

fn loaded_entry(path: &Path, file: usize, entry: header::HeaderEntry) -> Entry {
    let bytes = entry.range.len() as u64;
    let info = TensorInfo {
        name: entry.name,
        shape: entry.shape,
        dtype: entry.dtype,
        bytes,
        file: path.to_path_buf(),
        packing: None,
    };
    Entry::plain(info, file, entry.range)
}

#[cfg(test)]
mod tests {
    use super::is_plain_file_name;

    #[test]
    fn only_names_inside_the_directory_are_plain() {
        for good in ["model-00001-of-00002.safetensors", "a", "..a", "ü.safetensors"] {
            assert!(is_plain_file_name(good), "{good}");
        }
        for bad in ["", ".", "..", "/etc/passwd", "../x", "a/b", "a/", "./a", "a\\b", "C:x", "a\0"] {
            assert!(!is_plain_file_name(bad), "{bad}");
        }
    }
}
