//! Writing a GGUF file, one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::ArrayViewD;
use tempfile::TempDir;

use super::conventions::Role;
use super::family::Layout;
use super::key_values::{KeyValues, put_tensor};
use super::model::Sizes;
use super::names::to_gguf;
use super::parts;
use super::to_metadata::{self, Description};
use crate::arrangement::{Arrangement, HeadInterleaving};
use crate::codec::{plain, tensor};
use crate::container::safetensors::writer::for_each_chunk;
use crate::destination::{check_destination, check_file_destination, sync_directory, temporary_directory};
use crate::{Checkpoint, DType, Error, PlannedSize, Result, StagedCheckpoint, TensorInfo};

/// Alignment of the data section and of every tensor in it.
const ALIGNMENT: u64 = 32;

/// Writes a model as one GGUF file (version 3). Tensors may arrive in any order, under their Hugging Face names and in
/// Hugging Face's row order; names, the row order of query and key projections, matrices that are the other way round,
/// configuration, tokenizer and chat template are translated here.
///
/// Everything goes to a temporary file beside the destination, which [`finish`](Self::finish) renames into place.
///
/// # Examples
///
/// ```no_run
/// use sparq_tensor::{DType, GgufWriter};
///
/// let source = sparq_model::open_checkpoint("models/SmolLM2-135M")?;
/// // Vectors must be F32; matrices may have any of GGUF's types.
/// let types = |tensor: &sparq_tensor::TensorInfo| if tensor.shape.len() == 1 { DType::F32 } else { DType::F16 };
/// let mut writer = GgufWriter::create("model.gguf", &source, types, Some(1), false)?;
/// for tensor in source.tensors() {
///     writer.write_f32(&tensor.name, source.read(&tensor.name)?.view())?;
/// }
/// writer.finish()?;
/// # Ok::<(), sparq_tensor::Error>(())
/// ```
#[derive(Debug)]
pub struct GgufWriter {
    destination: PathBuf,
    overwrite: bool,
    temporary: TempDir,
    /// The file, or the parts it is cut into.
    parts: Vec<(PathBuf, File)>,
    /// Whether the destination is a directory of the parts.
    in_directory: bool,
    slots: BTreeMap<String, Slot>,
    bytes: u64,
}

#[derive(Debug)]
struct Slot {
    dtype: DType,
    /// As the source has it.
    shape: Vec<usize>,
    /// Index of the part.
    part: usize,
    position: u64,
    bytes: u64,
    arrangement: Arrangement,
    written: bool,
}

impl Slot {
    fn check_size(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (planned, found) = (self.bytes, bytes.len() as u64);
        if planned == found { Ok(()) } else { Err(Error::SizeMismatch { tensor: name.to_owned(), planned, found }) }
    }
}

/// A tensor of the file before it has a place.
struct Planned {
    gguf_name: String,
    shape: Vec<usize>,
    dtype: DType,
    bytes: u64,
}

/// What a file will consist of.
struct FilePlan {
    description: Description,
    /// In the order of the file.
    tensors: Vec<Planned>,
    /// By Hugging Face name, with the index of the tensor; positions count from the beginning of that tensor.
    slots: BTreeMap<String, (Slot, usize)>,
    /// Values of tensors that the source does not have, by their index.
    made: Vec<(usize, Vec<f32>)>,
}

impl GgufWriter {
    /// Whether a file can be made from `source`, with the types that `dtype` says: architecture, tokenizer, names and
    /// types of tensors.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) that do not concern the destination.
    pub fn check(source: &Checkpoint, dtype: impl Fn(&TensorInfo) -> DType) -> Result<()> {
        plan(source, dtype).map(drop)
    }

    /// What the file that [`create`](Self::create) lays out takes, or, with `most`, the files of
    /// [`create_parts`](Self::create_parts) together.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn planned_size(
        source: &Checkpoint,
        dtype: impl Fn(&TensorInfo) -> DType,
        file_type: Option<u32>,
        most: Option<u64>,
    ) -> Result<PlannedSize> {
        let FilePlan { description, tensors, slots, .. } = plan(source, dtype)?;
        let file_bytes = lay_out(description.entries, &tensors, file_type, most)?.iter().map(|part| part.bytes).sum();
        let with_padding = |(name, (slot, tensor)): (String, (Slot, usize))| {
            // Behind the experts of a block there is padding once.
            let all = tensors[tensor].bytes;
            let padding = if slot.position == 0 { all.next_multiple_of(ALIGNMENT) - all } else { 0 };
            (name, slot.bytes + padding)
        };
        Ok(PlannedSize { file_bytes, tensors: slots.into_iter().map(with_padding).collect() })
    }

    /// Lays out a file for all tensors of `source` that its model [reads](Checkpoint::unused), each in the type that `dtype` says. `file_type` is what
    /// `general.file_type` will be: ggml's number for the mixture of types.
    ///
    /// The metadata of a GGUF source is carried over; that of another source is made from its configuration and
    /// tokenizer. Matrices of the experts of one block become one tensor, and must have one type.
    ///
    /// # Errors
    /// [`Error::DestinationExists`], or [`Error::NotOverwritable`] if overwriting was allowed but what is there is not
    /// a GGUF file; [`Error::UnsupportedArchitecture`], [`Error::Unsupported`], [`Error::MissingMetadata`] and
    /// [`Error::InvalidMetadata`] for models and tokenizers that GGUF has no word for here; [`Error::InvalidPlan`] for
    /// tensors without a name there, and types that do not fit; [`Error::Io`].
    pub fn create(
        destination: impl AsRef<Path>,
        source: &Checkpoint,
        dtype: impl Fn(&TensorInfo) -> DType,
        file_type: Option<u32>,
        overwrite: bool,
    ) -> Result<Self> {
        let destination = destination.as_ref();
        check_file_destination(destination, overwrite)?;
        Self::start(destination, plan(source, dtype)?, file_type, overwrite, None)
    }

    /// As [`create`](Self::create), for a directory of parts named as `llama-gguf-split` does,
    /// `model-00001-of-00003.gguf`, each with at most `most` bytes of tensors, or one tensor. Readers open the first.
    ///
    /// # Errors
    /// Those of [`create`](Self::create), for a directory; [`Error::InvalidPlan`] if there would be more than 65,535 parts.
    pub fn create_parts(
        destination: impl AsRef<Path>,
        source: &Checkpoint,
        dtype: impl Fn(&TensorInfo) -> DType,
        file_type: Option<u32>,
        overwrite: bool,
        most: u64,
    ) -> Result<Self> {
        let destination = destination.as_ref();
        check_destination(destination, overwrite)?;
        Self::start(destination, plan(source, dtype)?, file_type, overwrite, Some(most))
    }

    fn start(
        destination: &Path,
        plan: FilePlan,
        file_type: Option<u32>,
        overwrite: bool,
        most: Option<u64>,
    ) -> Result<Self> {
        let FilePlan { description, tensors, slots, made } = plan;
        let temporary = temporary_directory(destination)?;
        let (mut files, mut places) = (Vec::new(), Vec::with_capacity(tensors.len()));
        for Part { name, header, offsets, bytes } in lay_out(description.entries, &tensors, file_type, most)? {
            let path = temporary.path().join(name);
            let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
            file.write_all(&header).map_err(Error::io("write", &path))?;
            file.set_len(bytes).map_err(Error::io("extend", &path))?;
            places.extend(offsets.into_iter().map(|offset| (files.len(), header.len() as u64 + offset)));
            files.push((path, file));
        }
        for (tensor, values) in made {
            let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let (part, position) = places[tensor];
            let (path, file) = &mut files[part];
            file.seek(SeekFrom::Start(position)).map_err(Error::io("seek", path))?;
            file.write_all(&raw).map_err(Error::io("write", path))?;
        }
        let bytes = tensors.iter().map(|planned| planned.bytes).sum();
        let placed = |(name, (slot, tensor)): (String, (Slot, usize))| {
            let (part, position) = places[tensor];
            (name, Slot { part, position: position + slot.position, ..slot })
        };
        let slots = slots.into_iter().map(placed).collect();
        let (destination, in_directory) = (destination.to_path_buf(), most.is_some());
        Ok(Self { destination, overwrite, temporary, parts: files, in_directory, slots, bytes })
    }

    /// Writes a tensor's bytes in its planned type, in the source's shape, rows in Hugging Face's order.
    ///
    /// # Errors
    /// [`Error::NotPlanned`], [`Error::WrittenTwice`], [`Error::SizeMismatch`], [`Error::Io`]; [`Error::InvalidPlan`] for
    /// a block type in a matrix that the file has the other way round, for which there is
    /// [`write_rows`](Self::write_rows). After an error the tensor counts as not written.
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let slot = self.free_slot(name)?;
        slot.check_size(name, bytes)?;
        let stored = slot.arrangement.stored(bytes, &slot.shape, slot.dtype).ok_or_else(|| {
            let reason = format!("the file has it as [out, in], and blocks of {} cannot be turned", slot.dtype);
            Error::InvalidPlan { tensor: name.to_owned(), reason }
        })?;
        self.put(name, &stored)
    }

    /// As [`write_bytes`](Self::write_bytes), for the rows of a linear layer, `[out, in]`, whichever way round the
    /// source has them.
    ///
    /// # Errors
    /// [`Error::NotPlanned`], [`Error::WrittenTwice`], [`Error::SizeMismatch`], [`Error::Io`]. After an error the tensor
    /// counts as not written.
    pub fn write_rows(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let slot = self.free_slot(name)?;
        if slot.arrangement != Arrangement::Transposed {
            return self.write_bytes(name, bytes);
        }
        slot.check_size(name, bytes)?;
        self.put(name, bytes)
    }

    /// Copies a tensor of `source` that has its planned type already, whatever the type.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::InvalidPlan`] if it has another type, and those of
    /// [`write_bytes`](Self::write_bytes).
    pub fn copy(&mut self, source: &Checkpoint, name: &str) -> Result<()> {
        let slot = self.free_slot(name)?;
        let (entry, bytes) = source.stored(name)?;
        if entry.info.dtype != slot.dtype {
            let reason = format!("it is planned as {}, the source has it as {}", slot.dtype, entry.info.dtype);
            return Err(Error::InvalidPlan { tensor: name.to_owned(), reason });
        }
        if entry.arrangement == slot.arrangement && entry.packed.is_none() {
            slot.check_size(name, bytes)?;
            return self.put(name, bytes);
        }
        self.write_bytes(name, &source.read_bytes(name)?)
    }

    /// The place of a tensor that is not written yet.
    fn free_slot(&self, name: &str) -> Result<&Slot> {
        match self.slots.get(name) {
            None => Err(Error::NotPlanned { path: self.destination.clone(), tensor: name.to_owned() }),
            Some(slot) if slot.written => Err(Error::WrittenTwice { tensor: name.to_owned() }),
            Some(slot) => Ok(slot),
        }
    }

    /// Writes what the file is to have.
    fn put(&mut self, name: &str, stored: &[u8]) -> Result<()> {
        let Some(slot) = self.slots.get_mut(name) else {
            return Err(Error::NotPlanned { path: self.destination.clone(), tensor: name.to_owned() });
        };
        let (path, file) = &mut self.parts[slot.part];
        file.seek(SeekFrom::Start(slot.position)).map_err(Error::io("seek", path))?;
        file.write_all(stored).map_err(Error::io("write", path))?;
        slot.written = true;
        Ok(())
    }

    /// Writes a tensor in its planned float type (F32, F16 or BF16), rounding to nearest with ties to even.
    ///
    /// # Errors
    /// Those of [`write_bytes`](Self::write_bytes); [`Error::ShapeMismatch`]; [`Error::NotRepresentable`] for the first
    /// value that is not finite or would not be after rounding; [`Error::InvalidPlan`] for other types.
    pub fn write_f32(&mut self, name: &str, values: ArrayViewD<'_, f32>) -> Result<()> {
        let Some(slot) = self.slots.get(name) else {
            return Err(Error::NotPlanned { path: self.destination.clone(), tensor: name.to_owned() });
        };
        if slot.shape != values.shape() {
            let (planned, found) = (slot.shape.clone(), values.shape().to_vec());
            return Err(Error::ShapeMismatch { tensor: name.to_owned(), planned, found });
        }
        if !plain::is_encodable(slot.dtype) {
            let reason = format!("f32 values cannot be written as {}; use write_bytes", slot.dtype);
            return Err(Error::InvalidPlan { tensor: name.to_owned(), reason });
        }
        let (dtype, shape) = (slot.dtype, slot.shape.clone());
        let encoded = |start: usize, chunk: &[f32]| {
            let mut bytes = Vec::with_capacity(chunk.len() * dtype.block_bytes());
            plain::encode(dtype, chunk, &mut bytes).map_err(|at| Error::NotRepresentable {
                tensor: name.to_owned(),
                index: tensor::unravel(start + at, &shape),
                value: chunk[at],
                dtype,
            })?;
            Ok(bytes)
        };
        if slot.arrangement == Arrangement::AsPresented {
            // Without a second copy of what may be an embedding.
            let Slot { part, position, .. } = *self.free_slot(name)?;
            let (path, file) = &mut self.parts[part];
            file.seek(SeekFrom::Start(position)).map_err(Error::io("seek", path))?;
            for_each_chunk(&values, |start, chunk| {
                file.write_all(&encoded(start, chunk)?).map_err(Error::io("write", path))
            })?;
            if let Some(slot) = self.slots.get_mut(name) {
                slot.written = true;
            }
            return Ok(());
        }
        let values: Vec<f32> = values.iter().copied().collect();
        let bytes = encoded(0, &values)?;
        self.write_bytes(name, &bytes)
    }

    /// Checks that every tensor was written, makes the file durable, and renames it into place.
    ///
    /// # Errors
    /// [`Error::NotWritten`]; [`Error::DestinationExists`] if somebody else has created the destination meanwhile;
    /// [`Error::Io`]. After an error nothing is left behind and the destination is as it was.
    pub fn finish(self) -> Result<crate::Written> {
        self.stage()?.publish()
    }

    /// As [`finish`](Self::finish), but for the last step.
    ///
    /// # Errors
    /// [`Error::NotWritten`], [`Error::Io`].
    pub fn stage(self) -> Result<StagedCheckpoint> {
        let missing: Vec<String> =
            self.slots.iter().filter(|(_, slot)| !slot.written).map(|(name, _)| name.clone()).collect();
        if !missing.is_empty() {
            return Err(Error::NotWritten { missing });
        }
        let written = crate::Written { path: self.destination, bytes: self.bytes, shards: self.parts.len() };
        let mut paths = Vec::with_capacity(self.parts.len());
        for (path, file) in self.parts {
            file.sync_all().map_err(Error::io("flush", &path))?;
            paths.push(path); // an open file cannot be renamed on every system
        }
        sync_directory(self.temporary.path())?;
        Ok(match paths.into_iter().next().filter(|_| !self.in_directory) {
            Some(file) => StagedCheckpoint::file(self.temporary, file, written, self.overwrite),
            None => StagedCheckpoint::directory(self.temporary, written, self.overwrite),
        })
    }
}

fn nameless(info: &TensorInfo) -> Error {
    Error::InvalidPlan { tensor: info.name.clone(), reason: "GGUF has no name for it".into() }
}

fn plan(source: &Checkpoint, dtype: impl Fn(&TensorInfo) -> DType) -> Result<FilePlan> {
    let description = describe(source)?;
    let Description { family, layout: Layout { experts, .. }, .. } = description;
    let mut tensors: Vec<Planned> = Vec::new();
    let (mut slots, mut names) = (BTreeMap::new(), BTreeSet::new());
    for info in source.tensors().filter(|info| !source.unused().contains(&info.name)) {
        let invalid = |reason: String| Error::InvalidPlan { tensor: info.name.clone(), reason };
        let Some((gguf_name, role, expert)) = to_gguf(family, &info.name) else {
            return Err(nameless(info));
        };
        let dtype = dtype(info);
        let arrangement = arrangement(&description, role, info, dtype).map_err(invalid)?;
        let (shape, stored_shape) = (info.shape.clone(), arrangement.stored_shape(&info.shape));
        let bytes = dtype.checked_bytes(&stored_shape).map_err(|fault| invalid(fault.to_string()))?;
        if dtype.ggml_type().is_none() {
            return Err(invalid(format!("GGUF has no type {dtype}")));
        }
        if !(1..=4).contains(&shape.len()) || shape.contains(&0) {
            return Err(invalid(format!("a shape of {shape:?} is not possible in GGUF")));
        }
        let mut slot = Slot { dtype, shape, part: 0, position: 0, bytes, arrangement, written: false };
        let Some(expert) = expert else {
            if !names.insert(gguf_name.clone()) {
                return Err(invalid(format!("another tensor is {gguf_name} in GGUF")));
            }
            slots.insert(info.name.clone(), (slot, tensors.len()));
            tensors.push(Planned { gguf_name, shape: stored_shape, dtype, bytes });
            continue;
        };
        let all_shape = [&[experts as usize], stored_shape.as_slice()].concat();
        let all_bytes = bytes.checked_mul(experts).filter(|_| expert < experts);
        let all_bytes = all_bytes.ok_or_else(|| invalid(format!("there are {experts} experts")))?;
        slot.position = expert * bytes;
        let at = tensors.iter().position(|planned| planned.gguf_name == gguf_name).unwrap_or(tensors.len());
        if at == tensors.len() {
            tensors.push(Planned { gguf_name, shape: all_shape, dtype, bytes: all_bytes });
        } else if tensors[at].shape != all_shape || tensors[at].dtype != dtype {
            let reason = format!("the experts of a block are one tensor, and others have another type than {dtype}");
            return Err(invalid(reason));
        }
        slots.insert(info.name.clone(), (slot, at));
    }
    check_experts(&tensors, &slots, experts)?;
    let mut made = Vec::new();
    for (name, divisors) in &description.layout.rope_divisors {
        let (shape, bytes) = (vec![divisors.len()], 4 * divisors.len() as u64);
        made.push((tensors.len(), divisors.clone()));
        tensors.push(Planned { gguf_name: (*name).to_owned(), shape, dtype: DType::F32, bytes });
    }
    Ok(FilePlan { description, tensors, slots, made })
}

/// One file of a model.
struct Part {
    name: String,
    header: Vec<u8>,
    /// Of its tensors, behind the header.
    offsets: Vec<u64>,
    /// Of the whole file.
    bytes: u64,
}

/// The file, or the parts it is cut into. The first has the metadata of the model.
fn lay_out(
    mut entries: KeyValues,
    tensors: &[Planned],
    mut file_type: Option<u32>,
    most: Option<u64>,
) -> Result<Vec<Part>> {
    let cuts = cut(tensors, most.unwrap_or(u64::MAX));
    let count = u16::try_from(cuts.len()).map_err(|_| {
        let reason = format!("there would be {} parts", cuts.len());
        Error::InvalidPlan { tensor: tensors.first().map_or(String::new(), |first| first.gguf_name.clone()), reason }
    })?;
    let part = |(part, range): (u16, Range<usize>)| {
        let name = if count == 1 { "model.gguf".to_owned() } else { parts::file_name("model", part, count) };
        if count > 1 {
            entries.u16("split.no", part);
            entries.u16("split.count", count);
            entries.i32("split.tensors.count", tensors.len() as i32);
        }
        let (header, offsets, bytes) = layout(std::mem::take(&mut entries), &tensors[range], file_type.take())?;
        Ok(Part { name, header, offsets, bytes })
    };
    (0..count).zip(cuts).map(part).collect()
}

/// Runs of tensors with at most so many bytes, or of one tensor; one run if there are no tensors.
fn cut(tensors: &[Planned], most: u64) -> Vec<Range<usize>> {
    let (mut cuts, mut start, mut held) = (Vec::new(), 0, 0u64);
    for (index, planned) in tensors.iter().enumerate() {
        if index > start && held.saturating_add(planned.bytes) > most {
            cuts.push(start..index);
            (start, held) = (index, 0);
        }
        held = held.saturating_add(planned.bytes);
    }
    cuts.push(start..tensors.len());
    cuts
}

/// How the file has the elements of a tensor, or why it cannot.
fn arrangement(description: &Description, role: Role, info: &TensorInfo, dtype: DType) -> Result<Arrangement, String> {
    let Description { family, layout: Layout { head_dimension, .. }, .. } = *description;
    let conventions = family.conventions();
    match role {
        Role::QueryOrKey if conventions.interleaves_heads => {
            let rows = info.shape.first().copied().unwrap_or(0);
            if !head_dimension.is_multiple_of(2) || head_dimension == 0 || !rows.is_multiple_of(head_dimension) {
                return Err(format!("its rows are no whole heads of {head_dimension}, an even number"));
            }
            Ok(Arrangement::Interleaved(HeadInterleaving { head_dimension }))
        }
        Role::Conv1d if info.name.ends_with(".weight") && info.shape.len() != 2 => {
            Err(format!("the weight of a linear layer is a matrix, not of shape {:?}", info.shape))
        }
        Role::Conv1d if info.name.ends_with(".weight") => Ok(Arrangement::Transposed),
        Role::Norm if conventions.norm_offset != 0.0 && dtype != DType::F32 => {
            Err(format!("a norm must be F32, not {dtype}"))
        }
        Role::Norm if conventions.norm_offset != 0.0 => Ok(Arrangement::Offset(conventions.norm_offset)),
        _ => Ok(Arrangement::AsPresented),
    }
}

/// Refuses blocks in which an expert is missing.
fn check_experts(tensors: &[Planned], slots: &BTreeMap<String, (Slot, usize)>, experts: u64) -> Result<()> {
    let mut counts = vec![0_u64; tensors.len()];
    for (_, tensor) in slots.values() {
        counts[*tensor] += 1;
    }
    match tensors.iter().zip(counts).find(|(planned, count)| planned.shape.len() == 3 && *count != experts) {
        None => Ok(()),
        Some((planned, count)) => {
            let reason = format!("the source has {count} of {experts} experts");
            Err(Error::InvalidPlan { tensor: planned.gguf_name.clone(), reason })
        }
    }
}

/// Metadata of the source's own, if it is a GGUF file, or made for it.
fn describe(source: &Checkpoint) -> Result<Description> {
    let Some((source_file, file)) = source.gguf() else {
        return to_metadata::describe(source, source.directory());
    };
    let mut entries = KeyValues::default();
    entries.copy(source_file.metadata(), file, is_kept);
    let Sizes { head_dimension, experts, .. } = source_file.sizes;
    let layout = Layout { head_dimension, experts, rope_divisors: source_file.rope_factors.clone() };
    Ok(Description { entries, family: source_file.family, layout })
}

/// Whether an entry of another file's metadata is true of a file with other types and a layout of its own.
fn is_kept(key: &str) -> bool {
    let is_own = matches!(key, "general.alignment" | "general.file_type" | "general.quantization_version");
    !is_own && !key.starts_with("split.") && !key.starts_with("quantize.")
}

/// The bytes before the data section, the tensors' offsets in it, and the size of the file.
fn layout(mut entries: KeyValues, plan: &[Planned], file_type: Option<u32>) -> Result<(Vec<u8>, Vec<u64>, u64)> {
    if let Some(file_type) = file_type {
        entries.u32("general.file_type", file_type);
    }
    if plan.iter().any(|planned| planned.dtype.is_block_quantized()) {
        entries.u32("general.quantization_version", 2);
    }
    let mut header = entries.into_header(plan.len());
    let mut offsets = Vec::with_capacity(plan.len());
    let mut end = 0u64;
    for planned in plan {
        let Some(ggml_type) = planned.dtype.ggml_type() else {
            let reason = format!("GGUF has no type {}", planned.dtype);
            return Err(Error::InvalidPlan { tensor: planned.gguf_name.clone(), reason });
        };
        put_tensor(&mut header, &planned.gguf_name, &planned.shape, ggml_type, end);
        offsets.push(end);
        end = end.checked_add(planned.bytes).and_then(|end| end.checked_next_multiple_of(ALIGNMENT)).ok_or_else(
            || {
                let reason = "the file would be too large".to_owned();
                Error::InvalidPlan { tensor: planned.gguf_name.clone(), reason }
            },
        )?;
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    let file_bytes = header.len() as u64 + end;
    Ok((header, offsets, file_bytes))
}
