//! Where a checkpoint's tensors are on disk.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::arrangement::Arrangement;
use crate::codec::packed::{Packed, Part};
use crate::mmap::MappedFile;
use crate::{Error, Fault, Result, TensorInfo};

/// A tensor and where its bytes are.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) info: TensorInfo,
    /// Index into [`Loaded::files`].
    pub(crate) file: usize,
    /// Position in the file; checked to lie inside and to fit shape and type.
    pub(crate) range: Range<usize>,
    /// How the elements lie on disk.
    pub(crate) arrangement: Arrangement,
    /// Set if the tensor stands for codes, scales and zero points; `file` and `range` are then those of the codes.
    pub(crate) packed: Option<Box<dyn Packed>>,
}

impl Entry {
    /// A tensor stored as it is presented.
    pub(crate) fn plain(info: TensorInfo, file: usize, range: Range<usize>) -> Self {
        Self { info, file, range, arrangement: Arrangement::AsPresented, packed: None }
    }
}

/// Files and the tensors in them, as a container's reader hands them over.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) files: Vec<MappedFile>,
    /// By Hugging Face name.
    pub(crate) tensors: BTreeMap<String, Entry>,
}

impl Loaded {
    /// Names of modules that have a tensor with this suffix.
    pub(crate) fn modules(&self, suffix: &str) -> Vec<String> {
        self.tensors.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
    }

    /// Takes a tensor out of the list.
    pub(crate) fn take(&mut self, name: &str) -> Option<Part> {
        self.tensors.remove(name).map(|entry| Part { file: entry.file, range: entry.range, info: entry.info })
    }

    /// As [`take`](Self::take), for one that must be there.
    pub(crate) fn take_needed(&mut self, name: &str, beside: &Part) -> Result<Part> {
        self.take(name).ok_or_else(|| Error::MissingTensor { file: beside.info.file.clone(), tensor: name.to_owned() })
    }

    /// Puts a module's weight, of `shape`, into the list.
    pub(crate) fn insert(&mut self, module: &str, shape: [usize; 2], packed: impl Packed + 'static) -> Result<()> {
        let name = format!("{module}.weight");
        let parts = packed.parts();
        let Some(codes) = parts.first() else { return Ok(()) };
        let info = TensorInfo {
            name: name.clone(),
            shape: shape.to_vec(),
            dtype: packed.dtype(),
            bytes: parts.iter().map(|part| part.info.bytes).sum(),
            file: codes.info.file.clone(),
            packing: Some(packed.packing()),
        };
        let (file, taken) = (info.file.clone(), Entry::plain(info, codes.file, codes.range.clone()));
        if self.tensors.insert(name.clone(), Entry { packed: Some(Box::new(packed)), ..taken }).is_some() {
            return Err(Error::tensor(&file, &name, Fault::Duplicate { what: "the weight", name: name.clone() }));
        }
        Ok(())
    }
}
