use super::contents::Manifest;
use super::packed::unpack;
use super::{FORMAT, LayerEntry, MANIFEST, MANIFEST_BYTES, SCHEMA, SolutionContents};
use crate::{Error, Result, SolvedLayers, SolvedShape};
use ndarray::Array2;
use sparq_core::{CodeLayout, Codes, CompressedLayer, Mask, QuantScheme, Quantized, Stepped};
use sparq_tensor::codec::coded::decode_codes;
use sparq_tensor::{Checkpoint, file_sha256, read_file};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A finished solve, opened for reading; layers are read one at a time.
///
/// See [`SolutionWriter`](super::SolutionWriter) for an example.
#[derive(Debug)]
pub struct Solution {
    directory: PathBuf,
    manifest: Manifest,
    shapes: Vec<SolvedShape>,
}

impl Solution {
    /// Opens the solution in `directory`: reads its manifest and checks that its files are there and say what was
    /// written (SHA-256; count on a second or two per gigabyte).
    ///
    /// # Errors
    /// [`Error::Solution`] for a directory without a finished solution, a manifest that contradicts itself, and a file
    /// that is missing or damaged; [`Error::Tensor`] if one cannot be read.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        let path = directory.join(MANIFEST);
        let bad = |reason: String| Error::Solution { path: path.clone(), reason };
        if !path.is_file() {
            return Err(bad("there is no finished solution here; `compress` writes one".into()));
        }
        let manifest: Manifest =
            serde_json::from_slice(&read_file(&path, MANIFEST_BYTES)?).map_err(|error| bad(error.to_string()))?;
        if manifest.format != FORMAT || manifest.schema != SCHEMA {
            return Err(bad(format!("it is {} {}, not {FORMAT} {SCHEMA}", manifest.format, manifest.schema)));
        }
        check_files(&directory, &manifest.contents)?;
        let shapes = manifest.contents.layers.iter().map(|entry| entry.layer.clone()).collect();
        Ok(Self { directory, manifest, shapes })
    }

    /// What it was made with: model, calibration, recipe, version.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.manifest.settings
    }

    /// Its layers, with the story of each solve.
    pub fn entries(&self) -> &[LayerEntry] {
        &self.manifest.contents.layers
    }

    fn read(&self, entry: &LayerEntry) -> Result<CompressedLayer> {
        let path = self.directory.join(&entry.file);
        let file = Checkpoint::open(&path)?;
        let SolvedShape { name, shape: [rows, width], codes: layout, pruned, .. } = &entry.layer;
        let bits_of = |part: &str, bits: u8| -> Result<Array2<u8>> {
            let bytes = file.read_bytes(&format!("{name}.{part}"))?;
            unpack(&bytes, *rows, *width, bits).ok_or_else(|| Error::Solution {
                path: path.clone(),
                reason: format!("{name}.{part} has another size than the manifest says"),
            })
        };
        let codes = match layout {
            Some(CodeLayout::Grid(scheme)) => {
                let scales = file.read_matrix(&format!("{name}.scales"))?;
                let zeros = zeros(&file, &entry.layer, scheme)?;
                let grids = Quantized::grids_of(scales.view(), zeros.view()).ok_or_else(|| Error::Inconsistent {
                    layer: name.clone(),
                    what: "the shape of its scales",
                    found: format!("{:?}", scales.dim()),
                    expected: format!("{:?}", zeros.dim()),
                })?;
                let codes = bits_of("codes", scheme.bits.get())?;
                Some(Codes::Grid(Quantized { scheme: *scheme, codes, grids }))
            }
            Some(CodeLayout::Steps) => {
                let part =
                    |part: &str| Ok::<_, Error>(file.read(&format!("{name}.{part}"))?.into_raw_vec_and_offset().0);
                let codes = decode_codes(name, &file.read_bytes(&format!("{name}.codes"))?, (*rows, *width))?;
                Some(Codes::Steps(Stepped { codes, rows: part("rows")?, columns: part("steps")? }))
            }
            Some(_) => return Err(Error::Solution { path, reason: format!("{name} has codes of an unknown form") }),
            None => None,
        };
        let weight = match &codes {
            Some(codes) => {
                entry.layer.check_codes(codes)?;
                codes.dequantize()
            }
            None => file.read_matrix(&format!("{name}.weight"))?,
        };
        let mask = pruned.then(|| bits_of("mask", 1)).transpose()?.map(|mask| Mask::new(mask.mapv(|bit| bit == 1)));
        let layer = CompressedLayer { weight, mask, codes, report: entry.report.clone() };
        entry.layer.check(&layer)?;
        Ok(layer)
    }
}

/// Zero points as codes, `[out, groups]`.
fn zeros(file: &Checkpoint, layer: &SolvedShape, scheme: &QuantScheme) -> Result<Array2<u8>> {
    let shape = (layer.shape[0], scheme.granularity.groups(layer.shape[1]));
    if scheme.symmetric {
        return Ok(Array2::from_elem(shape, scheme.bits.midpoint()));
    }
    let bytes = file.read_bytes(&format!("{}.zeros", layer.name))?.into_owned();
    Array2::from_shape_vec(shape, bytes).map_err(|_| Error::Inconsistent {
        layer: layer.name.clone(),
        what: "the number of its zero points",
        found: "another".into(),
        expected: (shape.0.saturating_mul(shape.1)).to_string(),
    })
}

impl SolvedLayers for Solution {
    fn tensors(&self) -> Option<PathBuf> {
        self.manifest.contents.tensors.as_ref().map(|file| self.directory.join(file))
    }

    fn layers(&self) -> &[SolvedShape] {
        &self.shapes
    }

    fn layer(&self, name: &str) -> Result<CompressedLayer> {
        let entry = self.entries().iter().find(|entry| entry.layer.name == name);
        let entry = entry.ok_or_else(|| Error::UnknownLayer { layer: name.to_owned() })?;
        self.read(entry)
    }
}

/// Checks the names in `contents`, and each file against its hash.
pub(super) fn check_files(directory: &Path, contents: &SolutionContents) -> Result<()> {
    let bad = |reason: String| Err(Error::Solution { path: directory.to_path_buf(), reason });
    let mut names = BTreeSet::new();
    for LayerEntry { file, layer, .. } in &contents.layers {
        let [rows, width] = layer.shape;
        let fits = rows.checked_mul(width).and_then(|weights| weights.checked_mul(8)).is_some();
        if !names.insert(&layer.name) || !contents.files.contains_key(file) || !fits {
            return bad(format!("layer {:?} is there twice, has no file, or an impossible shape", layer.name));
        }
    }
    if let Some(file) = contents.tensors.as_ref().filter(|file| !contents.files.contains_key(*file)) {
        return bad(format!("{file}, the file of tensors besides layers, is not among its files"));
    }
    for (name, hash) in &contents.files {
        if Path::new(name).file_name().and_then(|plain| plain.to_str()) != Some(name) {
            return bad(format!("{name:?} is not a plain file name"));
        }
        let path = directory.join(name);
        if !path.is_file() {
            return bad(format!("{name} is missing"));
        }
        if file_sha256(&path)? != *hash {
            return bad(format!("{name} is not the file that was written: it was changed or damaged"));
        }
    }
    Ok(())
}
