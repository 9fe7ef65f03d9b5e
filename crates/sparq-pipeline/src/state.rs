//! What an unfinished run keeps on disk beside its solution.

use crate::fingerprint::Fingerprint;
use crate::matrix_io::{read_matrix, write_matrix};
use crate::{Activations, Error, LayerReport, Progress, Result};
use ndarray::{CowArray, Ix2};
use serde::{Deserialize, Serialize};
use sparq_export::SolutionContents;
use sparq_tensor::{file_sha256, read_file, remove_unfinished_files, write_file, write_file_with};
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const PROGRESS: &str = "progress.json";
/// Structure of `progress.json`; another one is not read.
const SCHEMA: u32 = 2;
/// Bytes of `progress.json` at most: some hundred for each layer of the largest models.
const PROGRESS_BYTES: u64 = 256 << 20;

/// A committed state: files it names are whole, files it does not name are leftovers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) blocks: usize,
    pub(crate) of: usize,
    pub(crate) seconds: f64,
    pub(crate) layers: Vec<LayerReport>,
    pub(crate) contents: SolutionContents,
    pub(crate) activations: Option<ActivationFile>,
}

/// Where the activations that enter the next block are: `f32`, little-endian, one matrix after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActivationFile {
    name: String,
    sha256: String,
    shapes: Vec<(usize, usize)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<T> {
    schema: u32,
    state: T,
}

impl State {
    /// Whether every block is done.
    pub(crate) fn is_finished(&self) -> bool {
        self.blocks == self.of
    }

    /// What is in `directory`; none if no block was ever committed.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(PROGRESS);
        if !path.is_file() {
            return Ok(None);
        }
        let bad = |reason: String| Error::State { path: path.clone(), reason };
        let bytes = read_file(&path, PROGRESS_BYTES)?;
        let envelope: Envelope<Self> = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if envelope.schema != SCHEMA {
            return Err(bad(format!("it was written by another version (schema {})", envelope.schema)));
        }
        Ok(Some(envelope.state))
    }

    /// Makes this the committed state, and removes the activations of the one before.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(PROGRESS);
        let envelope = Envelope { schema: SCHEMA, state: self };
        let json = serde_json::to_vec(&envelope)
            .map_err(|error| Error::State { path: path.clone(), reason: error.to_string() })?;
        write_file(&path, &json)?;
        remove_leftovers(directory, self.activations.as_ref().map(|file| file.name.as_str()))
    }

    /// Removes progress and activations: the run is finished.
    pub(crate) fn remove(directory: &Path) -> Result<()> {
        remove_leftovers(directory, None)?;
        let path = directory.join(PROGRESS);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(sparq_tensor::Error::io("remove", &path)(error).into())
            }
            _ => Ok(()),
        }
    }
}

/// Removes activation files other than `keep`, and what a killed process left half-written.
fn remove_leftovers(directory: &Path, keep: Option<&str>) -> Result<()> {
    remove_unfinished_files(directory)?;
    for entry in std::fs::read_dir(directory).map_err(sparq_tensor::Error::io("list", directory))? {
        let path = entry.map_err(sparq_tensor::Error::io("list", directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(ACTIVATIONS_PREFIX) && Some(name.as_ref()) != keep {
            std::fs::remove_file(&path).map_err(sparq_tensor::Error::io("remove", &path))?;
        }
    }
    Ok(())
}

const ACTIVATIONS_PREFIX: &str = "activations-";

/// Writes what enters the next block; nothing if there is none, or no next block.
pub(crate) fn write_activations(directory: &Path, progress: &Progress<'_>) -> Result<Option<ActivationFile>> {
    let activations = progress.activations;
    if activations.batches() == 0 || progress.blocks == progress.of {
        return Ok(None);
    }
    let name = format!("{ACTIVATIONS_PREFIX}{:05}.f32", progress.blocks);
    let path = directory.join(&name);
    let mut shapes = Vec::new();
    let mut failed = Ok(());
    let written = write_file_with(&path, |file| {
        for index in 0..activations.batches() {
            match activations.batch(index) {
                Ok(matrix) => {
                    shapes.push(matrix.dim());
                    write_matrix(file, matrix.view())?;
                }
                Err(error) => {
                    failed = Err(error);
                    return Err(std::io::Error::other("activations could not be read"));
                }
            }
        }
        Ok(())
    });
    failed?;
    Ok(Some(ActivationFile { name, sha256: written?, shapes }))
}

/// What enters the block after the state's last, left in its file until it is asked for.
#[derive(Debug)]
pub(crate) struct SavedActivations {
    path: PathBuf,
    file: File,
    shapes: Vec<(usize, usize)>,
}

impl Activations for SavedActivations {
    fn batches(&self) -> usize {
        self.shapes.len()
    }

    fn batch(&self, index: usize) -> Result<CowArray<'_, f32, Ix2>> {
        let before: usize = self.shapes.iter().take(index).map(|(tokens, width)| tokens * width).sum();
        let read = || {
            let mut reader = BufReader::with_capacity(1 << 20, &self.file);
            reader.seek(SeekFrom::Start(4 * before as u64))?;
            read_matrix(&mut reader, self.shapes.get(index).copied().unwrap_or_default())
        };
        Ok(read().map_err(sparq_tensor::Error::io("read", &self.path))?.into())
    }
}

/// Opens what enters the block after the state's last.
pub(crate) fn open_activations(directory: &Path, state: &State) -> Result<Box<dyn Activations>> {
    let Some(file) = &state.activations else { return Ok(Box::new(Vec::new())) };
    let path = plain(directory, &file.name)?;
    let bad = |reason: &str| Error::State { path: path.clone(), reason: reason.to_owned() };
    if file.shapes.iter().any(|&(tokens, width)| tokens == 0 || width == 0) {
        return Err(bad("it claims empty activations"));
    }
    let mut sizes = file.shapes.iter().map(|&(tokens, width)| tokens.checked_mul(width));
    let total = sizes.try_fold(0_usize, |sum, size| sum.checked_add(size?)).and_then(|sum| sum.checked_mul(4));
    let total = total.ok_or_else(|| bad("it claims impossible shapes"))?;
    let length = std::fs::metadata(&path).map_err(sparq_tensor::Error::io("examine", &path))?.len();
    if length != total as u64 || file_sha256(&path)? != file.sha256 {
        return Err(bad("it is not the file that was written: it was changed or damaged"));
    }
    let opened = File::open(&path).map_err(sparq_tensor::Error::io("open", &path))?;
    Ok(Box::new(SavedActivations { path, file: opened, shapes: file.shapes.clone() }))
}

fn plain(directory: &Path, name: &str) -> Result<PathBuf> {
    if Path::new(name).file_name().and_then(|plain| plain.to_str()) == Some(name) {
        return Ok(directory.join(name));
    }
    Err(Error::State { path: directory.join(PROGRESS), reason: format!("{name:?} is not a plain file name") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_shapes_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("activations-00001.f32"), b"").expect("written");
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for shape in [[0, 1_usize << 60], [1 << 60, 0], [1 << 40, 1 << 40], [1, 1]] {
            let state = serde_json::json!({
                "fingerprint": {}, "blocks": 1, "of": 2, "seconds": 0.0, "layers": [], "contents": SolutionContents::default(),
                "activations": { "name": "activations-00001.f32", "sha256": nothing, "shapes": [shape] },
            });
            let state: State = serde_json::from_value(state).expect("of that structure");
            assert!(matches!(open_activations(directory.path(), &state), Err(Error::State { .. })), "{shape:?}");
        }
    }
}
