//! Rows of a weight that stays as it is stored.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::arrangement::{Arrangement, HeadInterleaving};
use crate::codec::packed::{Grid, PackedWeight};
use crate::codec::{ggml, tensor};
use crate::entry::Entry;
use crate::read::{check_decodable, non_finite};
use crate::{Checkpoint, Result, RowInputs};

/// Elements that are looked at for NaN and infinity at a time.
const CHECKED: usize = 1 << 16;

/// The rows of a linear layer's weight, `[out, in]`, decoded from the checkpoint's mapped files whenever they are asked for: a
/// weight that takes as much memory as its file.
///
/// Made by [`Checkpoint::stored_rows`]. Cloning is cheap.
#[derive(Clone)]
pub struct StoredRows {
    checkpoint: Arc<Checkpoint>,
    tensor: String,
    first: usize,
    shape: [usize; 2],
    form: Form,
}

/// Where rows are on disk.
#[derive(Debug, Clone)]
enum Form {
    /// One after the other, each of so many bytes.
    Rows { bytes: usize, interleaving: Option<HeadInterleaving> },
    /// As codes; scales and zero points are in memory.
    Codes { grid: Arc<Grid>, rows: usize },
}

impl fmt::Debug for StoredRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRows").field("tensor", &self.tensor).field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl StoredRows {
    /// Of `rows` rows from `first` on of a tensor that is `[all, width]`, if its rows can be decoded one by one.
    pub(crate) fn new(
        checkpoint: &Arc<Checkpoint>,
        entry: &Entry,
        (first, all): (usize, usize),
        shape: [usize; 2],
    ) -> Result<Option<Self>> {
        check_decodable(&entry.info)?;
        let Some(form) = form(checkpoint, entry, all, shape[1])? else { return Ok(None) };
        let (checkpoint, tensor) = (Arc::clone(checkpoint), entry.info.name.clone());
        Ok(Some(Self { checkpoint, tensor, first, shape, form }))
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Looks for NaN and infinity.
    pub(crate) fn check_finite(&self) -> Result<()> {
        let ([rows, width], opened) = (self.shape, self.open()?);
        let chunk = (CHECKED / width.max(1)).max(1);
        (0..rows.div_ceil(chunk)).into_par_iter().try_for_each(|at| {
            let (first, mut values) = (at * chunk, vec![0.0; chunk.min(rows - at * chunk) * width]);
            opened.decode(first, &mut values);
            let found = tensor::first_non_finite(&values);
            let place = |position: usize| (self.first + first) * width + position;
            found.map_or(Ok(()), |position| Err(non_finite(&opened.entry.info, place(position), values[position])))
        })
    }

    /// The rows, ready to be decoded: looked up, and the file's length checked, once for many of them.
    ///
    /// # Errors
    /// [`Error::Shrunk`](crate::Error::Shrunk) if the file has lost bytes since it was opened.
    pub fn open(&self) -> Result<OpenRows<'_>> {
        let entry = self.checkpoint.entry(&self.tensor)?;
        let packed = entry.packed.as_ref().and_then(|packed| packed.by_rows());
        let bytes = match packed {
            Some(packed) => packed.codes.bytes(self.checkpoint.files())?,
            None => self.checkpoint.raw(entry)?,
        };
        Ok(OpenRows { rows: self, entry, packed, bytes })
    }

    /// As [`OpenRows::decode`], for rows that are decoded once.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn decode(&self, first: usize, out: &mut [f32]) -> Result<()> {
        self.open()?.decode(first, out);
        Ok(())
    }
}

/// [`StoredRows`] at hand; made by [`StoredRows::open`].
pub struct OpenRows<'a> {
    rows: &'a StoredRows,
    entry: &'a Entry,
    packed: Option<&'a PackedWeight>,
    bytes: &'a [u8],
}

impl fmt::Debug for OpenRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRows").field("rows", self.rows).finish_non_exhaustive()
    }
}

impl OpenRows<'_> {
    /// Whether the rows are ggml's blocks, which [`products`](Self::products) multiplies.
    pub fn has_blocks(&self) -> bool {
        self.entry.info.dtype.is_block_quantized()
    }

    /// The sums of products of `inputs` with as many rows as `out` has elements, from row `first` on, on the calling thread: the
    /// weights are the values that [`decode`](Self::decode) gives. Rows that are not there or have no blocks leave their part of
    /// `out` as it is.
    pub fn products(&self, first: usize, inputs: &RowInputs, out: &mut [f32]) {
        for (rows, bytes) in self.runs(first, out.len() * self.rows.shape[1]) {
            ggml::products(self.entry.info.dtype, bytes, inputs, &mut out[rows]);
        }
    }

    /// Decodes as many rows as `out` holds, from row `first` on, on the calling thread: the values that
    /// [`Checkpoint::read_part`] gives. Rows beyond the last leave their part of `out` as it is.
    pub fn decode(&self, first: usize, out: &mut [f32]) {
        let width = self.rows.shape[1];
        if let (Form::Codes { grid, rows }, Some(packed)) = (&self.rows.form, self.packed) {
            let held = self.count(first, out.len()) * width;
            packed.decode(self.bytes, grid, [*rows, width], self.rows.first + first, &mut out[..held]);
        }
        for (rows, bytes) in self.runs(first, out.len()) {
            tensor::decode_serially(self.entry.info.dtype, bytes, &mut out[rows.start * width..rows.end * width]);
        }
    }

    /// How many of the rows from `first` on have room in `elements`.
    fn count(&self, first: usize, elements: usize) -> usize {
        let [rows, width] = self.rows.shape;
        rows.saturating_sub(first).min(elements.checked_div(width).unwrap_or(0))
    }

    /// The bytes of as many rows from `first` on as have room in `elements`, in runs that lie together; each with its rows,
    /// counted from `first`. There are none where rows are not whole on disk.
    fn runs(&self, first: usize, elements: usize) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        let (count, (row_bytes, interleaving)) = match self.rows.form {
            Form::Rows { bytes, interleaving } => (self.count(first, elements), (bytes, interleaving)),
            Form::Codes { .. } => (0, (0, None)),
        };
        let together = if interleaving.is_some() { 1 } else { count.max(1) };
        (0..count).step_by(together).map(move |row| {
            let on_disk = self.rows.first + first + row;
            let at = interleaving.map_or(on_disk, |interleaving| interleaving.source_row(on_disk)) * row_bytes;
            (row..row + together, &self.bytes[at..at + together * row_bytes])
        })
    }
}

fn form(checkpoint: &Checkpoint, entry: &Entry, all: usize, width: usize) -> Result<Option<Form>> {
    if let Some(packed) = &entry.packed {
        let Some(packed) = packed.by_rows() else { return Ok(None) };
        let grid = Arc::new(packed.grid(checkpoint.files(), all, width)?);
        return Ok(Some(Form::Codes { grid, rows: all }));
    }
    let interleaving = match entry.arrangement {
        Arrangement::AsPresented => None,
        Arrangement::Interleaved(interleaving) => Some(interleaving),
        Arrangement::Transposed | Arrangement::Offset(_) => return Ok(None),
    };
    let bytes = entry.range.len().checked_div(all).unwrap_or(0);
    Ok((bytes > 0 && width > 0).then_some(Form::Rows { bytes, interleaving }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, TensorData, TensorPart, write_safetensors_file};
    use ndarray::Array2;

    fn with(weight: &Array2<f32>) -> Arc<Checkpoint> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("model.safetensors");
        write_safetensors_file(&file, &[("w", TensorData::F32(weight.clone().into_dyn().view()))]).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        if let Some(value) = bytes.windows(4).position(|bytes| bytes == f32::MAX.to_le_bytes()) {
            bytes[value..value + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        std::fs::write(&file, bytes).unwrap();
        Arc::new(Checkpoint::open(&file).unwrap()) // the mapping keeps the file alive
    }

    #[test]
    fn a_value_that_is_not_finite_is_named_by_its_place_in_the_whole_tensor() {
        let mut weight = Array2::from_shape_fn((6, 4), |(row, column)| (row * 4 + column) as f32);
        weight[[4, 2]] = f32::MAX; // NaN once it is written
        let part = |first_row| TensorPart { first_row, ..TensorPart::whole("w", [6, 4]) };
        let checkpoint = with(&weight);
        assert!(checkpoint.stored_rows(&part(0), 4).unwrap().is_some());
        let error = checkpoint.stored_rows(&part(3), 3).unwrap_err();
        assert!(matches!(error, Error::NonFinite { ref index, .. } if index == &[4, 2]), "{error}");
    }

    #[test]
    fn a_part_has_its_own_first_row_and_no_rows_behind_its_last() {
        let weight = Array2::from_shape_fn((6, 4), |(row, column)| (row * 4 + column) as f32);
        let checkpoint = with(&weight);
        let part = TensorPart { first_row: 2, ..TensorPart::whole("w", [6, 4]) };
        let stored = checkpoint.stored_rows(&part, 3).unwrap().unwrap();
        let mut values = [-1.0; 12];
        stored.decode(2, &mut values).unwrap();
        assert_eq!(values[..5], [16.0, 17.0, 18.0, 19.0, -1.0]);
        assert!(checkpoint.stored_rows(&part, 5).is_err());
        let transposed = TensorPart { transposed: true, shape: vec![6, 4], ..TensorPart::whole("w", [6, 4]) };
        assert!(checkpoint.stored_rows(&transposed, 4).unwrap().is_none());
    }
}
