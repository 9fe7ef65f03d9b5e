//! Reading a GGUF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::conventions::Role;
use super::family::{self, Families, Family};
use super::metadata::Metadata;
use super::model::{GgufModel, Keys, Sizes};
use super::names::to_hugging_face;
use super::{config, parts, tokenizer, vocabulary};
use crate::arrangement::{Arrangement, HeadInterleaving};
use crate::entry::{Entry, Loaded};
use crate::mmap::MappedFile;
use crate::read::decode_entry;
use crate::{DType, Error, Fault, Result, TensorInfo};

/// What a Hugging Face directory keeps in files beside the weights, made from metadata.
#[derive(Debug)]
pub(crate) struct Synthesised {
    pub(crate) config: serde_json::Value,
    pub(crate) family: &'static dyn Family,
    pub(super) sizes: Sizes,
    /// Tensors of divisors of the rotary frequencies, by their names in the file.
    pub(super) rope_factors: Vec<(&'static str, Vec<f32>)>,
    metadata: Metadata,
}

impl Synthesised {
    /// The file's own metadata.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// `tokenizer.json`; `file` is the whole GGUF file.
    pub(crate) fn tokenizer_json(&self, file: &[u8]) -> Result<Option<Vec<u8>>> {
        tokenizer::tokenizer_json(&self.metadata, file)
    }

    /// `tokenizer_config.json`; `file` is the whole GGUF file.
    pub(crate) fn tokenizer_config(&self, file: &[u8]) -> Result<Option<serde_json::Value>> {
        vocabulary::tokenizer_config(&self.metadata, file)
    }
}

/// Opens a GGUF file, with the other parts of the model if it is one of several.
pub(crate) fn open(file: MappedFile, families: Families) -> Result<(Loaded, Synthesised)> {
    let mut files = Vec::new();
    let (mut stored, mut first) = (Vec::new(), None);
    for (file, container) in parts::open(file)? {
        stored.extend(container.tensors.into_iter().map(|tensor| (files.len(), tensor)));
        first.get_or_insert(container.metadata);
        files.push(file);
    }
    let Some(metadata) = first else { return Err(Error::NoFamilies { path: PathBuf::new() }) };
    if families.is_empty() {
        return Err(Error::NoFamilies { path: metadata.file().to_path_buf() });
    }
    let family = family::of_file(families, &metadata)?;
    let conventions = family.conventions();
    let keys = Keys { metadata: &metadata, architecture: conventions.architecture };
    let sizes = Sizes::of(&keys, conventions)?;
    let mut tensors = BTreeMap::new();
    let mut rope_factors = Vec::new();
    for (part, tensor) in stored {
        let (file, path) = (&files[part], files[part].path());
        let factors = conventions.rope_factors.iter().copied().find(|name| *name == tensor.name);
        let translated = match factors {
            Some(name) => Some((name.to_owned(), Role::Other)),
            None => to_hugging_face(family, &tensor.name, sizes.blocks),
        };
        let Some((name, role)) = translated else {
            let what = format!("a tensor of architecture {}", conventions.architecture);
            return Err(metadata.unsupported(what, tensor.name));
        };
        let bytes = tensor.range.len() as u64;
        let info = TensorInfo {
            name: name.clone(),
            shape: tensor.shape,
            dtype: tensor.dtype,
            bytes,
            file: path.to_path_buf(),
            packing: None,
        };
        let mut entry = Entry::plain(info, part, tensor.range);
        if let Some(name) = factors {
            rope_factors.push((name, decode_entry(&entry, &file.bytes()[entry.range.clone()])?));
            continue;
        }
        match role {
            Role::QueryOrKey if conventions.interleaves_heads => {
                let interleaving = interleaving(path, &tensor.name, &entry.info, sizes.head_dimension)?;
                entry.arrangement = Arrangement::Interleaved(interleaving);
            }
            Role::Conv1d if name.ends_with(".weight") => {
                if entry.info.shape.len() != 2 {
                    let reason = "the weight of a linear layer is a matrix";
                    return Err(Error::tensor(path, &tensor.name, Fault::BadShape { shape: entry.info.shape, reason }));
                }
                entry.arrangement = Arrangement::Transposed;
                entry.info.shape.reverse();
            }
            Role::Norm if conventions.norm_offset != 0.0 => {
                if entry.info.dtype != DType::F32 {
                    return Err(metadata.unsupported("a norm of another type than F32", entry.info.dtype.to_string()));
                }
                entry.arrangement = Arrangement::Offset(conventions.norm_offset);
            }
            Role::Experts => {
                for (expert, entry) in experts(path, &tensor.name, &entry, sizes.experts)?.into_iter().enumerate() {
                    let name = name.replace('*', &expert.to_string());
                    let info = TensorInfo { name: name.clone(), ..entry.info };
                    tensors.insert(name, Entry { info, ..entry });
                }
                continue;
            }
            Role::QueryOrKey | Role::Norm | Role::Conv1d | Role::Other => {}
        }
        if tensors.insert(name, entry).is_some() {
            return Err(Error::malformed(path, Fault::Duplicate { what: "tensor name", name: tensor.name }));
        }
    }
    // As conventions list them, whatever the order of the file.
    rope_factors.sort_by_key(|(name, _)| conventions.rope_factors.iter().position(|theirs| theirs == name));
    let model = GgufModel { keys, sizes, tensors: &tensors, rope_factors: &rope_factors };
    let config = config::synthesise(&metadata, family, &model)?;
    Ok((Loaded { files, tensors }, Synthesised { config, family, sizes, rope_factors, metadata }))
}

/// The matrices of all experts, `[experts, rows, columns]`, one by one.
fn experts(path: &Path, gguf_name: &str, all: &Entry, count: u64) -> Result<Vec<Entry>> {
    let &[experts, rows, columns] = all.info.shape.as_slice() else {
        let fault = Fault::BadShape { shape: all.info.shape.clone(), reason: "experts have three dimensions" };
        return Err(Error::tensor(path, gguf_name, fault));
    };
    if experts as u64 != count || experts == 0 {
        let reason = "its outermost dimension is not the number of experts that the metadata names";
        return Err(Error::tensor(path, gguf_name, Fault::BadShape { shape: all.info.shape.clone(), reason }));
    }
    let bytes = all.range.len() / experts;
    let one = |expert: usize| {
        let start = all.range.start + expert * bytes;
        let info = TensorInfo { shape: vec![rows, columns], bytes: bytes as u64, ..all.info.clone() };
        Entry::plain(info, all.file, start..start + bytes)
    };
    Ok((0..experts).map(one).collect())
}

fn interleaving(path: &Path, gguf_name: &str, info: &TensorInfo, head_dimension: usize) -> Result<HeadInterleaving> {
    let refuse = |reason| {
        let fault = Fault::BadShape { shape: info.shape.clone(), reason };
        Err(Error::tensor(path, gguf_name, fault))
    };
    let is_row_addressable = match info.shape.len() {
        1 => !info.dtype.is_block_quantized(),
        2 => true,
        _ => false,
    };
    if !is_row_addressable {
        return refuse("a query or key projection is a matrix, its bias a vector of plain floats");
    }
    if !head_dimension.is_multiple_of(2) || !info.shape[0].is_multiple_of(head_dimension) {
        return refuse("its rows are not a whole number of heads of even size");
    }
    Ok(HeadInterleaving { head_dimension })
}
