//! Reading one tensor from mapped files.

use crate::arrangement::{Arrangement, transposed};
use crate::codec::{plain, tensor};
use crate::entry::Entry;
use crate::mmap::MappedFile;
use crate::{Error, Result, TensorInfo};

/// A tensor's bytes on disk.
pub(crate) fn raw<'a>(files: &'a [MappedFile], entry: &Entry) -> Result<&'a [u8]> {
    Ok(&files[entry.file].checked_bytes()?[entry.range.clone()])
}

/// Reads one tensor and gives its pages back.
pub(crate) fn read_entry(files: &[MappedFile], entry: &Entry) -> Result<Vec<f32>> {
    let values = decode_entry(entry, raw(files, entry)?)?;
    files[entry.file].release(&entry.range);
    Ok(values)
}

/// Decodes one tensor and refuses non-finite values.
pub(crate) fn decode_entry(entry: &Entry, bytes: &[u8]) -> Result<Vec<f32>> {
    let info = &entry.info;
    match entry.arrangement {
        Arrangement::AsPresented => decode_plain(info, bytes),
        Arrangement::Offset(offset) => {
            let mut values = decode_plain(info, bytes)?;
            for value in &mut values {
                *value -= offset;
            }
            Ok(values)
        }
        Arrangement::Interleaved(interleaving) => {
            check_decodable(info)?;
            let rows = info.shape.first().copied().unwrap_or(1);
            let columns = info.elements().checked_div(rows).unwrap_or(0);
            let values = tensor::decode_reordered(info.dtype, bytes, rows, columns, |row| interleaving.source_row(row));
            checked(info, values)
        }
        Arrangement::Transposed => {
            check_decodable(info)?;
            let values = tensor::decode(info.dtype, bytes, info.elements());
            let (Some(values), &[width, rows]) = (&values, info.shape.as_slice()) else { return checked(info, values) };
            checked(info, transposed(values, rows, width))
        }
    }
}

/// Decodes what is stored in the order of its elements.
pub(crate) fn decode_plain(info: &TensorInfo, bytes: &[u8]) -> Result<Vec<f32>> {
    check_decodable(info)?;
    checked(info, tensor::decode(info.dtype, bytes, info.elements()))
}

pub(crate) fn check_decodable(info: &TensorInfo) -> Result<()> {
    if plain::is_decodable(info.dtype) {
        return Ok(());
    }
    Err(Error::NotDecodable { file: info.file.clone(), tensor: info.name.clone(), dtype: info.dtype })
}

pub(crate) fn checked(info: &TensorInfo, values: Option<Vec<f32>>) -> Result<Vec<f32>> {
    let values = values.ok_or_else(|| Error::out_of_memory(&info.name, info.elements()))?;
    check_finite(info, &values)?;
    Ok(values)
}

pub(crate) fn check_finite(info: &TensorInfo, values: &[f32]) -> Result<()> {
    let found = tensor::first_non_finite(values);
    found.map_or(Ok(()), |position| Err(non_finite(info, position, values[position])))
}

pub(crate) fn non_finite(info: &TensorInfo, position: usize, value: f32) -> Error {
    let index = tensor::unravel(position, &info.shape);
    Error::NonFinite { file: info.file.clone(), tensor: info.name.clone(), index, value }
}
