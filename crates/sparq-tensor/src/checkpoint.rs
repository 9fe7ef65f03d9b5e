//! One view of every checkpoint format.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ndarray::{Array1, Array2, ArrayD, IxDyn, s};
use serde_json::Value;

use crate::arrangement::Arrangement;
use crate::codec::coded::{CodedForm, DecodedWeight};
use crate::codec::{plain, present, tensor};
use crate::container::gguf::family::{self, Families};
use crate::container::gguf::parts;
use crate::container::gguf::read::{self as gguf, Synthesised};
use crate::container::safetensors::{self, directory, prefix};
use crate::content::{self, Container};
use crate::content_hash::content_hash;
use crate::entry::{Entry, Loaded};
use crate::mmap::MappedFile;
use crate::read::{check_decodable, check_finite, checked, decode_plain, non_finite, raw, read_entry};
use crate::{
    Error, Fault, Result, SideFile, StoredRows, TensorInfo, TensorPart, files, limits, side_files, ties,
    tokenizer_files,
};

/// Where a checkpoint's tensors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceFormat {
    /// One safetensors file, or several with an index.
    Safetensors,
    /// One GGUF file.
    Gguf,
}

/// A language model's checkpoint on disk, read tensor by tensor.
///
/// Whatever the source (a Hugging Face directory, a single safetensors file, a GGUF file), it is presented as a
/// Hugging Face checkpoint: Hugging Face tensor names and row order, a `config.json`, a `tokenizer.json`. For GGUF
/// these are made from the file's metadata, the rows of the query and key projections of the llama architecture
/// are put back into Hugging Face's order, and the matrices of GPT-2 are `[in, out]` again.
///
/// Quantized checkpoints whose `config.json` names compressed-tensors (integer formats) or GPTQ as their method are
/// presented as dense ones: `X.weight` stands for codes, scales and zero points, its values are computed when read, and
/// the configuration does not mention quantization.
///
/// Opening maps the files and checks their headers; weights are read when asked for. Files must not be truncated while
/// a checkpoint is open (replacing them by renaming is harmless): reads then fail with [`Error::Shrunk`], and one that is
/// under way in that very moment ends the process with a bus error.
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use sparq_tensor::{Checkpoint, DType, TensorData, write_safetensors_file};
///
/// let directory = tempfile::tempdir()?;
/// let weight = array![[1.0f32, 2.0], [3.0, 4.0]].into_dyn();
/// write_safetensors_file(directory.path().join("model.safetensors"), &[("w", TensorData::F32(weight.view()))])?;
/// std::fs::write(directory.path().join("config.json"), r#"{"model_type": "llama"}"#)?;
///
/// let checkpoint = Checkpoint::open(directory.path())?;
/// assert_eq!(checkpoint.get("w").unwrap().dtype, DType::F32);
/// assert_eq!(checkpoint.read_matrix("w")?, array![[1.0, 2.0], [3.0, 4.0]]);
/// assert_eq!(checkpoint.config()?["model_type"], "llama");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// Where the files beside the weights are.
    directory: PathBuf,
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Entry>,
    config: Option<Value>,
    synthesised: Option<Synthesised>,
    families: Families,
    /// Whether `config` is another than that of `config.json`.
    config_differs: bool,
    remarks: Vec<String>,
    /// Once somebody asked for it.
    unused: OnceLock<BTreeSet<String>>,
    /// Once somebody asked for it.
    content_hash: OnceLock<String>,
}

impl Checkpoint {
    /// Opens a checkpoint that needs no knowledge of families of models: a directory, or a safetensors file.
    ///
    /// # Errors
    /// [`Error::NoFamilies`] for a GGUF file, and those of [`open_with`](Self::open_with).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &[])
    }

    /// Opens a checkpoint: a directory, a safetensors file, or a GGUF file of one of `families`. A GGUF file can be
    /// made of a checkpoint whose family is among them. A file is what its first bytes say, whatever its name.
    ///
    /// A directory holds `model.safetensors`, or `model.safetensors.index.json` with its shards, or exactly one
    /// safetensors or GGUF file, looked for in this order. For a safetensors file, `config.json` and the tokenizer's
    /// files are looked for beside it. The parts of a split GGUF file lie beside each other, and any of them may be named.
    ///
    /// # Errors
    /// [`Error::NotACheckpoint`] if nothing of that is there; [`Error::OtherContent`] for pointers, web pages and other
    /// things under the name of a file of weights; [`Error::Malformed`] and [`Error::MalformedTensor`] if a
    /// header contradicts the format or the file's size; [`Error::MissingFile`] and [`Error::MissingTensor`] for an
    /// incomplete set of shards; [`Error::UnsupportedArchitecture`], [`Error::MissingMetadata`] and others for GGUF
    /// files that cannot be translated.
    pub fn open_with(path: impl AsRef<Path>, families: Families) -> Result<Self> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
        let (mut loaded, synthesised) =
            if metadata.is_dir() { open_directory(path, families)? } else { open_file(path, families)? };
        let directory = if metadata.is_dir() {
            path.to_path_buf()
        } else {
            path.parent().map(Path::to_path_buf).unwrap_or_default()
        };
        let mut config = match &synthesised {
            Some(synthesised) => Some(synthesised.config.clone()),
            None => read_config(&directory)?,
        };
        let mut remarks = Vec::new();
        if synthesised.is_none()
            && let Some(front) = prefix::strip(&mut loaded)
        {
            let kind = if front.is_empty() { "no prefix".to_owned() } else { format!("the prefix {front}") };
            remarks
                .push(format!("tensors have {kind} instead of the usual one; they are read under their usual names"));
        }
        let presents_packed = synthesised.is_none() && present::present(&mut loaded, &directory, config.as_ref())?;
        if presents_packed {
            config.as_mut().map(present::strip);
        }
        let Loaded { files, tensors } = loaded;
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            directory,
            files,
            tensors,
            config,
            synthesised,
            families,
            config_differs: presents_packed,
            remarks,
            unused: OnceLock::new(),
            content_hash: OnceLock::new(),
        };
        checkpoint.untie();
        Ok(checkpoint)
    }

    /// Lets the config say what the tensors are.
    fn untie(&mut self) {
        let Some(config) = self.config.as_ref().filter(|_| self.synthesised.is_none()) else { return };
        let Some(remark) = ties::contradiction(self, config) else { return };
        if let Some(fields) = self.config.as_mut().and_then(Value::as_object_mut) {
            fields.insert("tie_word_embeddings".into(), false.into());
        }
        self.config_differs = true;
        self.remarks.push(remark);
    }

    /// The same checkpoint with the tensors of a safetensors file in the place of those of the same names.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::ShapeMismatch`] and [`Error::Unsupported`] if the file has a tensor that the checkpoint
    /// does not have, or has in another shape or type; those of reading a safetensors file.
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use sparq_tensor::{Checkpoint, TensorData, write_safetensors_file};
    /// let directory = tempfile::tempdir()?;
    /// let [old, new] = [array![1.0_f32, 2.0].into_dyn(), array![3.0_f32, 4.0].into_dyn()];
    /// let (model, other) = (directory.path().join("model.safetensors"), directory.path().join("other.safetensors"));
    /// write_safetensors_file(&model, &[("norm.weight", TensorData::F32(old.view()))])?;
    /// write_safetensors_file(&other, &[("norm.weight", TensorData::F32(new.view()))])?;
    /// let checkpoint = Checkpoint::open(&model)?.replacing(&other)?;
    /// assert_eq!(checkpoint.read_vector("norm.weight")?, array![3.0, 4.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replacing(mut self, file: impl AsRef<Path>) -> Result<Self> {
        let loaded = directory::open_mapped(MappedFile::open(file.as_ref())?)?;
        for (name, entry) in loaded.tensors {
            let (found, there) = (&entry.info, &self.entry(&name)?.info);
            if found.shape != there.shape {
                let (planned, found) = (there.shape.clone(), found.shape.clone());
                return Err(Error::ShapeMismatch { tensor: name, planned, found });
            }
            if found.dtype != there.dtype {
                let what = format!("to replace {name}, a tensor of {}", there.dtype);
                return Err(Error::Unsupported {
                    file: found.file.clone(),
                    what,
                    value: format!("one of {}", found.dtype),
                });
            }
            self.tensors.insert(name, Entry { file: self.files.len(), ..entry });
        }
        self.files.extend(loaded.files);
        self.content_hash = OnceLock::new();
        Ok(self)
    }

    /// What of the checkpoint is not as usual, or contradicts itself, and how it is read; empty for most.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Names of the tensors that the model does not read: masks, buffers, weights of parts that are not there. Empty for
    /// models of no known family.
    ///
    /// Formats of safetensors carry them over as they are; GGUF has no place for them.
    pub fn unused(&self) -> &BTreeSet<String> {
        let find = || -> Option<BTreeSet<String>> {
            let config = self.config.as_ref()?;
            let family = match &self.synthesised {
                Some(synthesised) => synthesised.family,
                None => family::of_model_type(self.families, config.get("model_type")?.as_str()?)?,
            };
            let read = family.reads(config, &|name| self.contains(name))?;
            Some(self.tensors.keys().filter(|name| !read.contains(*name)).cloned().collect())
        };
        self.unused.get_or_init(|| find().unwrap_or_default())
    }

    /// Looks for NaN and infinity in a tensor, without a copy of it as f32 where it is stored as it is presented.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn check_finite(&self, name: &str) -> Result<()> {
        let entry = self.entry(name)?;
        if entry.packed.is_some() || entry.arrangement != Arrangement::AsPresented {
            return self.read(name).map(drop);
        }
        check_decodable(&entry.info)?;
        let found = tensor::find_non_finite(entry.info.dtype, self.raw(entry)?);
        self.files[entry.file].release(&entry.range);
        found.map_or(Ok(()), |(position, value)| Err(non_finite(&entry.info, position, value)))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The families of models given to [`open_with`](Self::open_with).
    pub fn families(&self) -> Families {
        self.families
    }

    /// What kind of files the tensors come from.
    pub fn format(&self) -> SourceFormat {
        if self.synthesised.is_some() { SourceFormat::Gguf } else { SourceFormat::Safetensors }
    }

    /// The weight files that are symbolic links, each with the file it leads to. Links are followed, as caches of
    /// downloaded models are made of them; this says where they lead.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be resolved.
    pub fn links(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        let links = self.files.iter().map(MappedFile::path).filter(|path| path.is_symlink());
        links
            .map(|path| Ok((path.to_path_buf(), std::fs::canonicalize(path).map_err(Error::io("resolve", path))?)))
            .collect()
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.values().map(|entry| &entry.info)
    }

    /// One tensor's description.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|entry| &entry.info)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Reads a tensor as f32, whatever its type on disk; large ones on all threads of the current rayon pool, with the
    /// same result for any number.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Shrunk`]; [`Error::NotDecodable`] for 8-bit floats; [`Error::NonFinite`] if any
    /// value is NaN or infinite; [`Error::OutOfMemory`].
    pub fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        let entry = self.entry(name)?;
        let info = &entry.info;
        let values = if let (Some(packed), &[rows, width]) = (&entry.packed, info.shape.as_slice()) {
            let values = packed.dequantize(&self.files, rows, width)?;
            check_finite(info, &values)?;
            packed.release(&self.files);
            values
        } else {
            read_entry(&self.files, entry)?
        };
        ArrayD::from_shape_vec(IxDyn(&info.shape), values).map_err(|_| {
            let reason = "it does not match the number of its elements";
            Error::tensor(&info.file, name, Fault::BadShape { shape: info.shape.clone(), reason })
        })
    }

    /// What stands beside the codes of a weight of the [coded format](crate::codec::coded); none of another weight.
    pub fn coded_form(&self, name: &str) -> Option<CodedForm> {
        self.tensors.get(name)?.packed.as_ref()?.coded_form()
    }

    /// The codes of a weight of the [coded format](crate::codec::coded), and what stands beside them; none of another weight.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Coding`] for damaged codes.
    pub fn read_coded(&self, name: &str) -> Result<Option<DecodedWeight>> {
        let entry = self.entry(name)?;
        match (&entry.packed, entry.info.shape.as_slice()) {
            (Some(packed), &[rows, width]) => packed.decoded(&self.files, rows, width),
            _ => Ok(None),
        }
    }

    /// Reads a tensor of two dimensions, `[rows, columns]`, as f32.
    ///
    /// # Errors
    /// [`Error::Rank`] if it has another number of dimensions, and those of [`read`](Self::read).
    pub fn read_matrix(&self, name: &str) -> Result<Array2<f32>> {
        self.check_rank(name, 2)?;
        self.read(name)?.into_dimensionality().map_err(|_| self.rank_error(name, 2))
    }

    /// Reads a tensor of one dimension as f32.
    ///
    /// # Errors
    /// [`Error::Rank`] if it has another number of dimensions, and those of [`read`](Self::read).
    pub fn read_vector(&self, name: &str) -> Result<Array1<f32>> {
        self.check_rank(name, 1)?;
        self.read(name)?.into_dimensionality().map_err(|_| self.rank_error(name, 1))
    }

    /// Reads the weight of one linear layer, `[rows, in]`, that is a part of a tensor, as f32: no more of the tensor is
    /// decoded than that, unless its features are not rows on disk, or it is stored in several parts itself.
    ///
    /// # Errors
    /// [`Error::Rank`] if the part does not lie inside the tensor, and those of [`read`](Self::read).
    pub fn read_part(&self, part: &TensorPart, rows: usize) -> Result<Array2<f32>> {
        let entry = self.entry(&part.tensor)?;
        let outside = || self.rank_error(&part.tensor, 2);
        let [all, width] = part.features().filter(|_| entry.info.shape == part.shape).ok_or_else(outside)?;
        if !part.holds([rows, width]) {
            return Err(outside());
        }
        let wanted = part.first_row..part.first_row + rows;
        let has_rows = match entry.arrangement {
            Arrangement::AsPresented => !part.transposed && rows < all,
            // Turned twice is not at all.
            Arrangement::Transposed => part.transposed,
            Arrangement::Interleaved(_) | Arrangement::Offset(_) => false,
        };
        if has_rows && entry.packed.is_none() {
            let bytes = self.raw(entry)?;
            let row_bytes = bytes.len().checked_div(all).unwrap_or(0);
            let mut info = entry.info.clone();
            info.shape = vec![rows, width];
            let wanted = wanted.start * row_bytes..wanted.end * row_bytes;
            let values = decode_plain(&info, &bytes[wanted.clone()])?;
            self.files[entry.file].release(&(entry.range.start + wanted.start..entry.range.start + wanted.end));
            return Array2::from_shape_vec((rows, width), values).map_err(|_| outside());
        }
        if let (Arrangement::Interleaved(interleaving), None, false) =
            (entry.arrangement, &entry.packed, part.transposed)
        {
            let mut info = entry.info.clone();
            info.shape = vec![rows, width];
            check_decodable(&info)?;
            let source = |row: usize| interleaving.source_row(wanted.start + row);
            let values = checked(&info, tensor::decode_reordered(info.dtype, self.raw(entry)?, rows, width, source))?;
            self.files[entry.file].release(&entry.range);
            return Array2::from_shape_vec((rows, width), values).map_err(|_| outside());
        }
        let whole = self.read(&part.tensor)?;
        let whole = if part.transposed { whole.reversed_axes() } else { whole };
        let matrix = whole.to_shape((all, width)).map_err(|_| outside())?;
        Ok(matrix.slice(s![wanted, ..]).as_standard_layout().into_owned())
    }

    /// The rows of the weight of one linear layer, `[rows, in]`, which stay as they are stored and are decoded when they are
    /// asked for. None where rows cannot be decoded one by one: entropy-coded codes, and matrices stored as `[in, out]`.
    ///
    /// Decodes everything once, to find NaN and infinity.
    ///
    /// # Errors
    /// Those of [`read_part`](Self::read_part).
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use sparq_tensor::{Checkpoint, TensorData, TensorPart, write_safetensors_file};
    /// let directory = tempfile::tempdir()?;
    /// let file = directory.path().join("model.safetensors");
    /// let weight = array![[1.0f32, 2.0], [3.0, 4.0]].into_dyn();
    /// write_safetensors_file(&file, &[("w", TensorData::F32(weight.view()))])?;
    /// let checkpoint = std::sync::Arc::new(Checkpoint::open(&file)?);
    /// let rows = checkpoint.stored_rows(&TensorPart::whole("w", [2, 2]), 2)?.expect("plain rows");
    /// let mut row = [0.0; 2];
    /// rows.decode(1, &mut row)?;
    /// assert_eq!(row, [3.0, 4.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stored_rows(self: &Arc<Self>, part: &TensorPart, rows: usize) -> Result<Option<StoredRows>> {
        let entry = self.entry(&part.tensor)?;
        let outside = || self.rank_error(&part.tensor, 2);
        let [all, width] = part.features().filter(|_| entry.info.shape == part.shape).ok_or_else(outside)?;
        if !part.holds([rows, width]) {
            return Err(outside());
        }
        if part.transposed {
            return Ok(None);
        }
        let stored = StoredRows::new(self, entry, (part.first_row, all), [rows, width])?;
        stored.as_ref().map_or(Ok(()), StoredRows::check_finite)?;
        Ok(stored)
    }

    /// A tensor's bytes in its type on disk, little-endian, rows in Hugging Face order; borrowed from the file unless
    /// rows had to be moved.
    ///
    /// This is the way to copy a tensor unchanged: nothing is decoded or checked. Only a weight with a
    /// [`packing`](TensorInfo::packing) is decoded, and encoded in the type its values have.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Unsupported`] for block types in matrices that are presented the other way
    /// round than the file has them ([`GgufWriter::copy`](crate::GgufWriter::copy) copies those); for a weight with a
    /// packing those of [`read`](Self::read).
    pub fn read_bytes(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        let entry = self.entry(name)?;
        if entry.packed.is_some() {
            let values = self.read(name)?;
            let mut bytes = Vec::new();
            let info = &entry.info;
            let values = values.as_slice().unwrap_or_default();
            plain::encode(info.dtype, values, &mut bytes).map_err(|at| Error::NotRepresentable {
                tensor: name.to_owned(),
                index: tensor::unravel(at, &info.shape),
                value: values[at],
                dtype: info.dtype,
            })?;
            return Ok(Cow::Owned(bytes));
        }
        let (bytes, info) = (self.raw(entry)?, &entry.info);
        entry.arrangement.presented(bytes, &info.shape, info.dtype).ok_or_else(|| Error::Unsupported {
            file: info.file.clone(),
            what: format!("the bytes of {name} in another order than the file's"),
            value: format!("blocks of {}, which run along the other dimension", info.dtype),
        })
    }

    /// The model's configuration: the contents of `config.json`, or its equivalent made from GGUF metadata.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if there is no `config.json` beside the weights.
    pub fn config(&self) -> Result<&Value> {
        self.config.as_ref().ok_or_else(|| Error::MissingFile {
            file: self.directory.join("config.json"),
            needed_for: "it describes the model's architecture".into(),
        })
    }

    /// The contents of `tokenizer.json` with the tokens that `tokenizer_config.json` alone declares, or its equivalent made from
    /// `vocab.json` and `merges.txt` or from GGUF metadata; `None` if the checkpoint has no tokenizer.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Malformed`] if a file cannot be read or is far too large; [`Error::Unsupported`] if the
    /// tokenizer is of another kind, or a GGUF file's has no equivalent here.
    pub fn tokenizer_json(&self) -> Result<Option<Vec<u8>>> {
        match &self.synthesised {
            Some(synthesised) => synthesised.tokenizer_json(self.files[0].bytes()),
            None => tokenizer_files::tokenizer_json(&self.directory, self.config.as_ref()),
        }
    }

    /// The contents of `tokenizer_config.json`, or its equivalent made from GGUF metadata; `None` if there is neither.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Malformed`] if the file cannot be read or is not JSON.
    pub fn tokenizer_config(&self) -> Result<Option<Value>> {
        if let Some(synthesised) = &self.synthesised {
            synthesised.tokenizer_config(self.files[0].bytes())
        } else {
            let path = self.directory.join("tokenizer_config.json");
            if path.exists() { files::read_json(&path, "tokenizer_config.json").map(Some) } else { Ok(None) }
        }
    }

    /// The files to be carried over, byte for byte, into a directory made from this checkpoint: configuration,
    /// generation settings, tokenizer and chat template, sorted by name. For GGUF these are `config.json`,
    /// `tokenizer.json` and `tokenizer_config.json` made from its metadata (the tokenizer's only if it has an
    /// equivalent).
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Malformed`] if a file cannot be read or is far too large.
    pub fn side_files(&self) -> Result<Vec<SideFile>> {
        match &self.synthesised {
            Some(synthesised) => side_files::from_gguf(synthesised, self.files[0].bytes()),
            None => side_files::from_directory(&self.directory, self.config.as_ref(), self.config_differs),
        }
    }

    /// A hash of what the checkpoint says: SHA-256, in hexadecimal, over the weight files in order of their names,
    /// and what there is of `config.json`, `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and
    /// `quantize_config.json`, each preceded by its role and length. Directory and file names do not
    /// matter.
    ///
    /// The first call reads everything: count on a second or two per gigabyte. Later ones return what it found.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Malformed`] if one of them cannot be read.
    pub fn content_hash(&self) -> Result<String> {
        if let Some(hash) = self.content_hash.get() {
            return Ok(hash.clone());
        }
        let mut beside = Vec::new();
        if self.synthesised.is_none() {
            // Those that decide what weights, tokens or the end of a text are.
            let deciding = [
                "config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "generation_config.json",
                "quantize_config.json",
            ];
            for name in deciding {
                beside.extend(self.optional_file(name)?.map(|bytes| (name, bytes)));
            }
        }
        let hash = content_hash(&self.files, &beside)?;
        Ok(self.content_hash.get_or_init(|| hash).clone())
    }

    /// Where the files beside the weights are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A GGUF file's own, with the file's bytes.
    pub(crate) fn gguf(&self) -> Option<(&Synthesised, &[u8])> {
        self.synthesised.as_ref().map(|synthesised| (synthesised, self.files[0].bytes()))
    }

    /// A tensor as it is on disk.
    pub(crate) fn stored(&self, name: &str) -> Result<(&Entry, &[u8])> {
        let entry = self.entry(name)?;
        Ok((entry, self.raw(entry)?))
    }

    pub(crate) fn files(&self) -> &[MappedFile] {
        &self.files
    }

    pub(crate) fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| Error::UnknownTensor { path: self.path.clone(), tensor: name.to_owned() })
    }

    pub(crate) fn raw(&self, entry: &Entry) -> Result<&[u8]> {
        raw(&self.files, entry)
    }

    fn check_rank(&self, name: &str, expected: usize) -> Result<()> {
        if self.entry(name)?.info.shape.len() == expected { Ok(()) } else { Err(self.rank_error(name, expected)) }
    }

    fn rank_error(&self, name: &str, expected: usize) -> Error {
        match self.entry(name) {
            Ok(Entry { info, .. }) => {
                Error::Rank { file: info.file.clone(), tensor: name.to_owned(), shape: info.shape.clone(), expected }
            }
            Err(error) => error,
        }
    }

    fn optional_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.directory.join(name);
        if path.exists() { files::read_unmarked(&path, limits::SIDE_FILE_BYTES).map(Some) } else { Ok(None) }
    }
}

fn open_file(path: &Path, families: Families) -> Result<(Loaded, Option<Synthesised>)> {
    let file = MappedFile::open(path)?;
    match content::container_of(path, file.bytes()) {
        Some(Container::Safetensors) => Ok((directory::open_mapped(file)?, None)),
        Some(Container::Gguf) => gguf::open(file, families).map(|(loaded, made)| (loaded, Some(made))),
        None => Err(Error::NotACheckpoint {
            path: path.to_path_buf(),
            reason: "it is no directory, and its first bytes are neither safetensors nor GGUF".into(),
        }),
    }
}

fn open_directory(path: &Path, families: Families) -> Result<(Loaded, Option<Synthesised>)> {
    let single = path.join(safetensors::SINGLE_FILE);
    if single.exists() {
        return open_file(&single, families);
    }
    if let Some(loaded) = directory::open_index(path)? {
        return Ok((loaded, None));
    }
    let (mut safetensors_files, mut gguf_files, mut has_pickles) = (Vec::new(), Vec::new(), false);
    for item in std::fs::read_dir(path).map_err(Error::io("list", path))? {
        let file = item.map_err(Error::io("list", path))?.path();
        match content::container_at(&file) {
            Some(Container::Gguf) => gguf_files.push(file),
            Some(Container::Safetensors) => safetensors_files.push(file),
            None => {
                let is_pickle = |ending: &std::ffi::OsStr| ["bin", "pt", "pth"].iter().any(|known| ending == *known);
                has_pickles |= file.extension().is_some_and(is_pickle);
            }
        }
    }
    // The parts of one model are opened by the first.
    gguf_files.retain(|file| !parts::is_later_part(file));
    match (safetensors_files.as_slice(), gguf_files.as_slice()) {
        ([one], []) | ([], [one]) => return open_file(one, families),
        _ => {}
    }
    let (single, index) = (safetensors::SINGLE_FILE, safetensors::INDEX_FILE);
    let mut reason = match (safetensors_files.len(), gguf_files.len()) {
        (0, 0) => format!("it holds neither {single}, nor {index}, nor a GGUF file"),
        (0, many) => format!("it holds {many} GGUF files; name one of them"),
        (many, 0) => format!("it holds {many} safetensors files, but not {index}, which says what is in them"),
        _ => format!("it holds safetensors and GGUF files, but neither {single} nor {index}; name one of them"),
    };
    if has_pickles && safetensors_files.is_empty() && gguf_files.is_empty() {
        reason.push_str("; PyTorch files are not read, convert them to safetensors");
    }
    Err(Error::NotACheckpoint { path: path.to_path_buf(), reason })
}

fn read_config(directory: &Path) -> Result<Option<Value>> {
    let path = directory.join("config.json");
    if !path.exists() {
        return Ok(None);
    }
    let value = files::read_json(&path, "config.json")?;
    if !value.is_object() {
        let reason = "it is not an object".to_owned();
        return Err(Error::malformed(&path, Fault::Json { what: "config.json", reason }));
    }
    Ok(Some(value))
}
