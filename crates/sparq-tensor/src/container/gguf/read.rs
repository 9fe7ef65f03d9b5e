//! Reading a GGUF file.

use std::collections::BTreeMap;
use std::path::Path;

use super::architecture::Architecture;
use super::config::Dimensions;
use super::metadata::Metadata;
use super::names::Role;
use super::rope_scaling::RopeFactors;
use super::{config, names, parse, tokenizer, vocabulary};
use crate::arrangement::{Arrangement, HeadInterleaving};
use crate::entry::{Entry, Loaded};
use crate::mmap::MappedFile;
use crate::{DType, Error, Fault, Result, TensorInfo};

/// What a Hugging Face directory keeps in files beside the weights, made from metadata.
#[derive(Debug)]
pub(crate) struct Synthesised {
    pub(crate) config: serde_json::Value,
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

/// Opens a GGUF file.
pub(crate) fn open(path: &Path) -> Result<(Loaded, Synthesised)> {
    let file = MappedFile::open(path)?;
    let container = parse::parse(path, file.bytes())?;
    let metadata = container.metadata;
    if let Some(parts) = metadata.integer("split.count")?.filter(|&parts| parts > 1) {
        return Err(metadata.unsupported("a GGUF file in several parts", format!("{parts} parts; merge them first")));
    }
    let architecture = Architecture::from_metadata(&metadata)?;
    let dimensions = Dimensions::from_metadata(&metadata, architecture)?;
    let mut tensors = BTreeMap::new();
    let mut rope_factors: [Option<Entry>; 3] = Default::default();
    for tensor in container.tensors {
        let Some((name, role)) = names::translate(architecture, &tensor.name, dimensions.blocks) else {
            return Err(metadata.unsupported(format!("a tensor of architecture {}", architecture.name()), tensor.name));
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
        let mut entry = Entry::plain(info, 0, tensor.range);
        match role {
            Role::RopeFactors(which) => {
                rope_factors[which] = Some(entry);
                continue;
            }
            Role::QueryOrKey if architecture.interleaves_heads() => {
                let interleaving = interleaving(path, &tensor.name, &entry.info, &dimensions)?;
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
            Role::Norm if architecture.norm_offset() != 0.0 => {
                if entry.info.dtype != DType::F32 {
                    return Err(metadata.unsupported("a norm of another type than F32", entry.info.dtype.to_string()));
                }
                entry.arrangement = Arrangement::Offset(architecture.norm_offset());
            }
            Role::Experts => {
                for (expert, entry) in experts(path, &tensor.name, &entry, dimensions.experts)?.into_iter().enumerate()
                {
                    let name = name.replace('*', &expert.to_string());
                    let info = TensorInfo { name: name.clone(), ..entry.info };
                    tensors.insert(name, Entry { info, ..entry });
                }
                continue;
            }
            Role::QueryOrKey | Role::Norm | Role::Conv1d | Role::Other => {}
        }
        tensors.insert(name, entry);
    }
    let decode = |entry: &Option<Entry>| match entry {
        Some(entry) => crate::read::decode_entry(entry, &file.bytes()[entry.range.clone()]).map(Some),
        None => Ok(None),
    };
    let [all, short, long] = &rope_factors;
    let rope_factors = RopeFactors { all: decode(all)?, short: decode(short)?, long: decode(long)? };
    let config = config::synthesise(&metadata, architecture, &dimensions, &tensors, &rope_factors)?;
    Ok((Loaded { files: vec![file], tensors }, Synthesised { config, metadata }))
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

fn interleaving(path: &Path, gguf_name: &str, info: &TensorInfo, dimensions: &Dimensions) -> Result<HeadInterleaving> {
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
    let head_dimension = dimensions.head_dimension;
    if !head_dimension.is_multiple_of(2) || !info.shape[0].is_multiple_of(head_dimension) {
        return refuse("its rows are not a whole number of heads of even size");
    }
    Ok(HeadInterleaving { head_dimension })
}
