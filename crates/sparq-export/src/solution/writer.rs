use super::contents::Manifest;
use super::packed::PackedLayer;
use super::{LayerEntry, MANIFEST, SCHEMA, SolutionContents, TENSORS};
use crate::{Error, Result, SolvedShape};
use sparq_core::CompressedLayer;
use sparq_tensor::{TensorData, file_sha256, remove_unfinished_files, write_file, write_safetensors_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Writes a solution, one file after the other.
///
/// Layers are [added](Self::add) and wait, packed, until [`commit`](Self::commit) writes them as one file. What
/// [`contents`](Self::contents) then names is safe on disk; an interrupted solve hands the same contents to
/// [`resume`](Self::resume) and goes on.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Bits, LayerCompressor, LayerProblem, QuantScheme};
/// use sparq_export::{SolutionWriter, SolvedLayers, SolvedShape};
///
/// let weight = array![[0.5_f32, -1.0, 0.25, 0.0]];
/// let problem = LayerProblem::uncalibrated("model.layers.0.mlp.up_proj", weight.view())?;
/// let layer = sparq_quant::Rtn::new(QuantScheme::new(Bits::B4)).compress(&problem)?;
///
/// let directory = tempfile::tempdir()?;
/// let mut writer = SolutionWriter::create(directory.path().join("solution"))?;
/// writer.add(SolvedShape::of(problem.name(), &layer, false), &layer)?;
/// writer.commit("block-00000.safetensors")?;
/// let solution = writer.finish(Default::default())?;
/// assert_eq!(solution.layer(problem.name())?, layer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SolutionWriter {
    directory: PathBuf,
    contents: SolutionContents,
    pending: Vec<(LayerEntry, PackedLayer)>,
}

impl SolutionWriter {
    /// An empty solution in `directory`, which is created if it is missing.
    ///
    /// # Errors
    /// [`Error::Tensor`] if it cannot be created.
    pub fn create(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory).map_err(sparq_tensor::Error::io("create", &directory))?;
        Self::in_directory(directory, SolutionContents::default())
    }

    /// The solution in `directory` as far as `contents` goes. Files it does not name are leftovers and are written
    /// over.
    ///
    /// # Errors
    /// [`Error::Solution`] if a file is missing or is not the one that was written.
    pub fn resume(directory: impl Into<PathBuf>, contents: SolutionContents) -> Result<Self> {
        let directory = directory.into();
        super::reader::check_files(&directory, &contents)?;
        Self::in_directory(directory, contents)
    }

    fn in_directory(directory: PathBuf, contents: SolutionContents) -> Result<Self> {
        remove_unfinished_files(&directory)?;
        Ok(Self { directory, contents, pending: Vec::new() })
    }

    /// Takes a layer in, to be written by the next [`commit`](Self::commit).
    ///
    /// # Errors
    /// [`Error::Tensor`] if its codes are too many to be coded.
    pub fn add(&mut self, shape: SolvedShape, layer: &CompressedLayer) -> Result<()> {
        let packed = PackedLayer::new(&shape.name, layer)?;
        self.pending.push((LayerEntry { file: String::new(), layer: shape, report: layer.report.clone() }, packed));
        Ok(())
    }

    /// Writes `tensors`, by their names in the source, which belong to no layer and take the place of the source's.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn tensors(&mut self, tensors: &[(&str, TensorData<'_>)]) -> Result<()> {
        let path = self.directory.join(TENSORS);
        write_safetensors_file(&path, tensors)?;
        self.contents.files.insert(TENSORS.to_owned(), file_sha256(&path)?);
        self.contents.tensors = Some(TENSORS.to_owned());
        Ok(())
    }

    /// Writes the layers taken in since the last time as `file`; without any, writes nothing.
    ///
    /// # Errors
    /// [`Error::Tensor`]; then the layers still wait.
    pub fn commit(&mut self, file: &str) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let path = self.directory.join(file);
        {
            let tensors: Vec<_> = self.pending.iter().flat_map(|(_, packed)| packed.tensors()).collect();
            let named: Vec<_> = tensors.iter().map(|(name, data)| (name.as_str(), data.clone())).collect();
            write_safetensors_file(&path, &named)?;
        }
        self.contents.files.insert(file.to_owned(), file_sha256(&path)?);
        for (entry, _) in self.pending.drain(..) {
            self.contents.layers.push(LayerEntry { file: file.to_owned(), ..entry });
        }
        Ok(())
    }

    /// What is on disk.
    pub fn contents(&self) -> &SolutionContents {
        &self.contents
    }

    /// Where the solution is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Declares the solution finished, made with `settings`, and opens it.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the manifest cannot be written; those of [`Solution::open`](super::Solution::open).
    pub fn finish(self, settings: BTreeMap<String, String>) -> Result<super::Solution> {
        let manifest = Manifest { format: super::FORMAT.to_owned(), schema: SCHEMA, settings, contents: self.contents };
        let path = self.directory.join(MANIFEST);
        let mut json = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::Solution { path: path.clone(), reason: error.to_string() })?;
        json.push(b'\n');
        write_file(&path, &json)?;
        super::Solution::open(self.directory)
    }
}
