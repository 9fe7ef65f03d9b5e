//! Writing a checkpoint directory, one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ndarray::ArrayViewD;
use tempfile::TempDir;

use super::directory::is_plain_file_name;
use super::layout::{TensorSpec, check_names, layout};
use super::{INDEX_FILE, SINGLE_FILE};
use crate::codec::{plain, tensor};
use crate::destination::{check_destination, sync_directory, temporary_directory};
use crate::staged::{StagedCheckpoint, Written};
use crate::{Error, Result};

/// Elements encoded at a time: bounds the memory a write takes beyond the tensor itself.
const CHUNK: usize = 1 << 16;

/// How a checkpoint is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// The most bytes of tensors in one file; a larger single tensor gets a file of its own. Default: 5·10⁹.
    pub max_shard_bytes: u64,
    /// Replace the destination if it is an empty directory or a checkpoint directory. Default: no.
    pub overwrite: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { max_shard_bytes: 5_000_000_000, overwrite: false }
    }
}

/// Writes a safetensors checkpoint directory in which tensors may arrive in any order and only one needs to be in
/// memory.
///
/// The plan fixes the headers, so every tensor has its place from the start. Everything goes to a temporary directory
/// beside the destination, which [`finish`](Self::finish) renames into place; until then the destination does not
/// exist (or is untouched), and dropping the writer removes the temporary directory.
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use sparq_tensor::{Checkpoint, CheckpointWriter, DType, TensorSpec, WriteOptions};
///
/// let parent = tempfile::tempdir()?;
/// let destination = parent.path().join("model");
/// let plan = vec![TensorSpec::new("a", [2, 2], DType::BF16), TensorSpec::new("b", [1], DType::F32)];
/// let mut writer = CheckpointWriter::create(&destination, plan, WriteOptions::default())?;
/// writer.write_f32("b", array![0.1f32].into_dyn().view())?;
/// writer.write_f32("a", array![[1.0f32, 2.0], [3.0, 4.0]].into_dyn().view())?;
/// writer.write_side_file("config.json", b"{}")?;
/// assert!(!destination.exists());
/// writer.finish()?;
/// assert_eq!(Checkpoint::open(&destination)?.read_vector("b")?, array![0.1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CheckpointWriter {
    destination: PathBuf,
    overwrite: bool,
    temporary: TempDir,
    shards: Vec<Shard>,
    slots: BTreeMap<String, Slot>,
    plan_order: Vec<String>,
    side_files: BTreeSet<String>,
    bytes: u64,
}

#[derive(Debug)]
struct Shard {
    name: String,
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct Slot {
    spec: TensorSpec,
    shard: usize,
    position: u64,
    written: bool,
}

impl CheckpointWriter {
    /// Lays out the files of the plan and creates them in a temporary directory beside `destination`, whose missing
    /// parents are created.
    ///
    /// Tensors are distributed over shards in the order of the plan.
    ///
    /// # Errors
    /// [`Error::DestinationExists`], or [`Error::NotOverwritable`] if overwriting was allowed but what is there is not
    /// a checkpoint directory; [`Error::InvalidPlan`] for names that occur twice, types that safetensors does not have
    /// and sizes that overflow; [`Error::Io`].
    pub fn create(destination: impl AsRef<Path>, plan: Vec<TensorSpec>, options: WriteOptions) -> Result<Self> {
        let destination = destination.as_ref();
        check_destination(destination, options.overwrite)?;
        check_names(&plan)?;
        let groups = split(&plan, options.max_shard_bytes)?;
        // Everything that can be wrong with the plan is known before the first file is made.
        let layouts = groups.iter().map(|group| layout(group)).collect::<Result<Vec<_>>>()?;

        let temporary = temporary_directory(destination)?;
        let mut shards = Vec::with_capacity(groups.len());
        let mut slots = BTreeMap::new();
        let mut bytes = 0;
        for (number, (group, layout)) in groups.iter().zip(layouts).enumerate() {
            let name = shard_name(number, groups.len());
            let path = temporary.path().join(&name);
            let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
            file.write_all(&layout.header).map_err(Error::io("write", &path))?;
            file.set_len(layout.file_bytes).map_err(Error::io("extend", &path))?;
            for (spec, position) in group.iter().zip(layout.positions) {
                bytes += spec.bytes()?;
                let slot = Slot { spec: (*spec).clone(), shard: number, position, written: false };
                slots.insert(spec.name.clone(), slot);
            }
            shards.push(Shard { name, path, file });
        }
        Ok(Self {
            destination: destination.to_path_buf(),
            overwrite: options.overwrite,
            temporary,
            shards,
            slots,
            plan_order: plan.into_iter().map(|spec| spec.name).collect(),
            side_files: BTreeSet::new(),
            bytes,
        })
    }

    /// Bytes of the weight files that [`create`](Self::create) would lay out for this plan, headers among them.
    ///
    /// # Errors
    /// [`Error::InvalidPlan`], as there.
    pub fn file_bytes(plan: &[TensorSpec], options: &WriteOptions) -> Result<u64> {
        check_names(plan)?;
        let groups = split(plan, options.max_shard_bytes)?;
        groups.iter().map(|group| Ok(layout(group)?.file_bytes)).sum()
    }

    /// Writes a tensor in its planned float type, rounding to nearest with ties to even. The view may have any strides.
    ///
    /// # Errors
    /// [`Error::NotPlanned`], [`Error::WrittenTwice`], [`Error::ShapeMismatch`]; [`Error::NotRepresentable`] for the
    /// first value that is not finite or would not be after rounding; [`Error::InvalidPlan`] if the planned type is
    /// not F32, F16 or BF16; [`Error::Io`]. After an error the tensor counts as not written.
    pub fn write_f32(&mut self, name: &str, values: ArrayViewD<'_, f32>) -> Result<()> {
        let slot = self.slot(name)?;
        let spec = slot.spec.clone();
        if spec.shape != values.shape() {
            let (planned, found) = (spec.shape, values.shape().to_vec());
            return Err(Error::ShapeMismatch { tensor: name.to_owned(), planned, found });
        }
        if !plain::is_encodable(spec.dtype) {
            let reason = format!("f32 values cannot be written as {}; use write_bytes", spec.dtype);
            return Err(Error::InvalidPlan { tensor: name.to_owned(), reason });
        }
        let (shard, position) = (slot.shard, slot.position);
        let Shard { path, file, .. } = &mut self.shards[shard];
        file.seek(SeekFrom::Start(position)).map_err(Error::io("seek", path))?;
        for_each_chunk(&values, |start, chunk| {
            let mut bytes = Vec::with_capacity(chunk.len() * spec.dtype.block_bytes());
            plain::encode(spec.dtype, chunk, &mut bytes).map_err(|at| Error::NotRepresentable {
                tensor: name.to_owned(),
                index: tensor::unravel(start + at, &spec.shape),
                value: chunk[at],
                dtype: spec.dtype,
            })?;
            file.write_all(&bytes).map_err(Error::io("write", path))
        })?;
        self.mark_written(name);
        Ok(())
    }

    /// Writes a tensor's little-endian bytes as they are.
    ///
    /// # Errors
    /// [`Error::NotPlanned`], [`Error::WrittenTwice`], [`Error::SizeMismatch`], [`Error::Io`]. After an error the
    /// tensor counts as not written.
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let slot = self.slot(name)?;
        let planned = slot.spec.bytes()?;
        if planned != bytes.len() as u64 {
            return Err(Error::SizeMismatch { tensor: name.to_owned(), planned, found: bytes.len() as u64 });
        }
        let (shard, position) = (slot.shard, slot.position);
        let Shard { path, file, .. } = &mut self.shards[shard];
        file.seek(SeekFrom::Start(position)).map_err(Error::io("seek", path))?;
        file.write_all(bytes).map_err(Error::io("write", path))?;
        self.mark_written(name);
        Ok(())
    }

    /// Writes a file beside the weights, such as `config.json`.
    ///
    /// # Errors
    /// [`Error::InvalidSideFile`] if the name is not a plain file name or is taken, also by a weight file;
    /// [`Error::Io`].
    pub fn write_side_file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let invalid = |reason| Err(Error::InvalidSideFile { name: name.to_owned(), reason });
        if !is_plain_file_name(name) {
            return invalid("it is not a plain file name");
        }
        if name == INDEX_FILE || self.shards.iter().any(|shard| shard.name == name) {
            return invalid("it is the name of a weight file");
        }
        if !self.side_files.insert(name.to_owned()) {
            return invalid("it was written already");
        }
        write_new_file(&self.temporary.path().join(name), bytes)
    }

    /// Checks that every planned tensor was written, makes the files durable, writes the index if there is more than
    /// one shard, and renames the directory into place.
    ///
    /// # Errors
    /// [`Error::NotWritten`]; [`Error::DestinationExists`] if somebody else has created the destination meanwhile;
    /// [`Error::Io`]. After an error nothing is left behind and the destination is as it was.
    pub fn finish(self) -> Result<Written> {
        self.stage()?.publish()
    }

    /// As [`finish`](Self::finish), but for the last step: the checkpoint is complete and can be opened for a check,
    /// and is not at its destination yet.
    ///
    /// # Errors
    /// [`Error::NotWritten`], [`Error::Io`].
    pub fn stage(self) -> Result<StagedCheckpoint> {
        let missing: Vec<String> = self.plan_order.iter().filter(|name| !self.slots[*name].written).cloned().collect();
        if !missing.is_empty() {
            return Err(Error::NotWritten { missing });
        }
        if self.shards.len() > 1 {
            write_new_file(&self.temporary.path().join(INDEX_FILE), &self.index())?;
        }
        for Shard { path, file, .. } in &self.shards {
            file.sync_all().map_err(Error::io("flush", path))?;
        }
        let shards = self.shards.len();
        drop(self.shards); // an open file cannot be renamed on every system
        sync_directory(self.temporary.path())?;
        let written = Written { path: self.destination, bytes: self.bytes, shards };
        Ok(StagedCheckpoint::directory(self.temporary, written, self.overwrite))
    }

    fn slot(&self, name: &str) -> Result<&Slot> {
        match self.slots.get(name) {
            None => Err(Error::NotPlanned { path: self.destination.clone(), tensor: name.to_owned() }),
            Some(slot) if slot.written => Err(Error::WrittenTwice { tensor: name.to_owned() }),
            Some(slot) => Ok(slot),
        }
    }

    fn mark_written(&mut self, name: &str) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.written = true;
        }
    }

    fn index(&self) -> Vec<u8> {
        let weight_map: BTreeMap<&str, &str> =
            self.slots.iter().map(|(name, slot)| (name.as_str(), self.shards[slot.shard].name.as_str())).collect();
        let index = serde_json::json!({ "metadata": { "total_size": self.bytes }, "weight_map": weight_map });
        format!("{index:#}\n").into_bytes()
    }
}

/// Cuts the plan into runs of at most `max_bytes`; one run even for an empty plan.
fn split(plan: &[TensorSpec], max_bytes: u64) -> Result<Vec<Vec<&TensorSpec>>> {
    let mut groups = vec![Vec::new()];
    let mut total = 0u64;
    for spec in plan {
        let bytes = spec.bytes()?;
        let is_full = total.checked_add(bytes).is_none_or(|total| total > max_bytes);
        if is_full && groups.last().is_some_and(|group| !group.is_empty()) {
            groups.push(Vec::new());
            total = 0;
        }
        total = total.saturating_add(bytes);
        if let Some(group) = groups.last_mut() {
            group.push(spec);
        }
    }
    Ok(groups)
}

fn shard_name(number: usize, count: usize) -> String {
    if count == 1 { SINGLE_FILE.into() } else { format!("model-{:05}-of-{count:05}.safetensors", number + 1) }
}

/// Calls `write` with runs of values in row-major order and the position of their first.
pub(crate) fn for_each_chunk(
    values: &ArrayViewD<'_, f32>,
    mut write: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    if let Some(values) = values.as_slice() {
        return values.chunks(CHUNK).enumerate().try_for_each(|(i, chunk)| write(i * CHUNK, chunk));
    }
    let mut buffer = Vec::with_capacity(CHUNK);
    let mut start = 0;
    for &value in values {
        buffer.push(value);
        if buffer.len() == CHUNK {
            write(start, &buffer)?;
            start += buffer.len();
            buffer.clear();
        }
    }
    write(start, &buffer)
}

fn write_new_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("flush", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn shards_follow_the_plan_and_the_limit() {
        let spec = |name: &str, n: usize| TensorSpec::new(name, [n], DType::U8);
        let plan = [spec("a", 4), spec("b", 4), spec("c", 5), spec("d", 100), spec("e", 1)];
        let names = |max| -> Vec<Vec<String>> {
            let groups = split(&plan, max).unwrap();
            groups.iter().map(|group| group.iter().map(|spec| spec.name.clone()).collect()).collect()
        };
        assert_eq!(names(8), [vec!["a", "b"], vec!["c"], vec!["d"], vec!["e"]]);
        assert_eq!(names(u64::MAX).len(), 1);
        assert_eq!(names(0).len(), 5);
        assert_eq!(split(&[], 8).unwrap().len(), 1);
        assert_eq!(shard_name(0, 1), "model.safetensors");
        assert_eq!(shard_name(1, 12), "model-00002-of-00012.safetensors");
    }

    #[test]
    fn chunks_of_a_transposed_view_are_in_logical_order() {
        let array = ndarray::Array2::from_shape_fn((300, 301), |(i, j)| (i * 301 + j) as f32);
        let transposed = array.t().into_dyn();
        let mut seen = Vec::new();
        for_each_chunk(&transposed, |start, chunk| {
            assert_eq!(start, seen.len());
            seen.extend_from_slice(chunk);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, transposed.iter().copied().collect::<Vec<_>>());
    }
}
