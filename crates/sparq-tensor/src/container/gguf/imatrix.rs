//! Importance matrices: per input channel, the sum of squared activations, as llama.cpp's quantizer takes them.

use std::path::Path;

use super::key_values::{KeyValues, put_tensor};
use super::parse;
use super::reader::Reader;
use crate::codec::tensor;
use crate::content::{self, Container};
use crate::mmap::MappedFile;
use crate::{DType, Error, Fault, Result, limits, whole_files};

/// What calibration has seen of one linear layer's inputs: the diagonal of `XᵀX`.
///
/// # Examples
///
/// ```
/// use sparq_tensor::{Importance, read_imatrix, write_imatrix};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("imatrix.gguf");
/// let layer = Importance {
///     tensor: "blk.0.ffn_down.weight".into(),
///     sums: vec![4.0, 0.5, 9.0],
///     tokens: 16,
/// };
/// write_imatrix(&path, std::slice::from_ref(&layer), "calibration.txt", 512)?;
/// assert_eq!(read_imatrix(&path)?, [layer]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// GGUF's name of the weight, such as `blk.3.ffn_down.weight`.
    pub tensor: String,
    /// Sum of squares of every input channel, `[in]`.
    pub sums: Vec<f32>,
    /// Tokens summed over.
    pub tokens: u64,
}

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
/// ggml's number of the type.
const F32: u32 = 0;

/// Writes an importance matrix in llama.cpp's GGUF form, replacing an existing file by renaming. `dataset` names the
/// calibration text, `chunk_size` the tokens of one sequence. `llama-quantize --imatrix` reads it.
///
/// # Errors
/// [`Error::InvalidPlan`] for sums that are not finite; [`Error::Io`].
pub fn write_imatrix(path: impl AsRef<Path>, layers: &[Importance], dataset: &str, chunk_size: u32) -> Result<()> {
    let mut entries = KeyValues::default();
    entries.string("general.type", "imatrix");
    entries.strings("imatrix.datasets", [dataset].into_iter());
    let tokens = layers.iter().map(|layer| layer.tokens).max().unwrap_or(0);
    let chunks = tokens.div_ceil(u64::from(chunk_size.max(1)));
    entries.u32("imatrix.chunk_count", u32::try_from(chunks).unwrap_or(u32::MAX));
    entries.u32("imatrix.chunk_size", chunk_size);

    let mut tensors = Vec::new();
    for layer in layers {
        let name = &layer.tensor;
        if layer.sums.is_empty() || layer.sums.iter().any(|sum| !sum.is_finite()) {
            let reason = "its sums of squares must be finite numbers".to_owned();
            return Err(Error::InvalidPlan { tensor: name.clone(), reason });
        }
        let bytes = layer.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect::<Vec<u8>>();
        tensors.push((format!("{name}{SUMS}"), layer.sums.len(), bytes));
        tensors.push((format!("{name}{COUNTS}"), 1, (layer.tokens as f32).to_le_bytes().to_vec()));
    }
    let mut header = entries.into_header(tensors.len());
    let mut offset = 0u64;
    for (name, columns, bytes) in &tensors {
        put_tensor(&mut header, name, &[1, *columns], F32, offset); // the first counts experts
        offset += (bytes.len() as u64).next_multiple_of(32);
    }
    header.resize(header.len().next_multiple_of(32), 0);
    whole_files::write_file_with(path, |file| {
        file.write_all(&header)?;
        for (_, _, bytes) in &tensors {
            file.write_all(bytes)?;
            file.write_all(&[0; 32][..bytes.len().next_multiple_of(32) - bytes.len()])?;
        }
        Ok(())
    })
    .map(drop)
}

/// Reads an importance matrix, in the order of the file: in GGUF form, or in the form (`.dat`) that llama.cpp wrote until
/// July 2025. Sums of experts, a row for each in one tensor, are left out.
///
/// # Errors
/// [`Error::Malformed`], [`Error::MalformedTensor`], also for values that are negative or not finite;
/// [`Error::Unsupported`] if it is a GGUF file of another kind; [`Error::Io`].
pub fn read_imatrix(path: impl AsRef<Path>) -> Result<Vec<Importance>> {
    let path = path.as_ref();
    let file = MappedFile::open(path)?;
    if content::container(file.bytes()) != Some(Container::Gguf) {
        return read_old(path, file.bytes());
    }
    let container = parse::parse(path, file.bytes())?;
    if container.metadata.string("general.type")? != Some("imatrix") {
        return Err(container.metadata.unsupported("general.type", "not an importance matrix"));
    }
    let values = |tensor: &parse::GgufTensor| -> Result<Vec<f32>> {
        if tensor.dtype != DType::F32 {
            let found = tensor.dtype.to_string();
            return Err(Error::tensor(path, &tensor.name, Fault::UnsupportedType { what: "element type", found }));
        }
        let elements = tensor.range.len() / 4;
        let bytes = &file.bytes()[tensor.range.clone()];
        let no_memory = || Error::out_of_memory(&tensor.name, elements);
        let values = tensor::decode(DType::F32, bytes, elements).ok_or_else(no_memory)?;
        check(path, &tensor.name, &values)?;
        Ok(values)
    };
    let mut layers = Vec::new();
    for tensor in &container.tensors {
        let Some(name) = tensor.name.strip_suffix(SUMS) else { continue };
        if tensor.shape.iter().rev().skip(1).any(|&rows| rows != 1) {
            continue;
        }
        let counts = container.tensors.iter().find(|other| other.name.strip_suffix(COUNTS) == Some(name));
        let counts = counts.map(&values).transpose()?;
        let tokens = counts.and_then(|counts| counts.first().copied()).unwrap_or(1.0);
        layers.push(Importance { tensor: name.to_owned(), sums: values(tensor)?, tokens: tokens.max(0.0) as u64 });
    }
    Ok(layers)
}

/// Refuses what no sum of squares can be.
fn check(path: &Path, tensor: &str, values: &[f32]) -> Result<()> {
    match values.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
        None => Ok(()),
        Some(value) => {
            let fault = Fault::BadValue { what: "a sum of squares", value: value.to_string() };
            Err(Error::tensor(path, tensor, fault))
        }
    }
}

/// The older form: a count of entries, each a name, the number of calls, and sums; lengths are `i32`. What follows, the
/// number of calls of the whole run and the name of the text, is not needed.
fn read_old(path: &Path, bytes: &[u8]) -> Result<Vec<Importance>> {
    let fault = |fault| Error::malformed(path, fault);
    let mut reader = Reader { bytes, at: 0 };
    let length = |reader: &mut Reader<'_>, what| {
        let value = reader.u32(what)?;
        // What is no imatrix at all has another number here.
        if value > i32::MAX as u32 { Err(Fault::BadValue { what, value: value.to_string() }) } else { Ok(value) }
    };
    let count = length(&mut reader, "the number of entries (neither GGUF nor an older imatrix?)").map_err(fault)?;
    let mut layers = Vec::new(); // grows with what is really there
    for _ in 0..count {
        let size = length(&mut reader, "the length of a name").map_err(fault)?;
        if u64::from(size) > limits::GGUF_NAME_BYTES {
            let (value, limit) = (size.into(), limits::GGUF_NAME_BYTES);
            return Err(fault(Fault::TooLarge { what: "the length of a name", value, limit }));
        }
        let name = reader.take(size.into(), "a name").map_err(fault)?;
        let name = std::str::from_utf8(name).map_err(|_| fault(Fault::NotUtf8 { what: "a name" }))?.to_owned();
        let calls = length(&mut reader, "the number of calls").map_err(fault)?;
        let values = length(&mut reader, "the number of sums").map_err(fault)?;
        let sums = reader.take(4 * u64::from(values), "sums of squares").map_err(fault)?.as_chunks::<4>().0;
        let sums: Vec<f32> = sums.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        check(path, &name, &sums)?;
        if !name.ends_with("_exps.weight") {
            layers.push(Importance { tensor: name, sums, tokens: calls.into() });
        }
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(entries: &[(&str, i32, &[f32])]) -> Vec<u8> {
        let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
        for (name, calls, sums) in entries {
            bytes.extend((name.len() as i32).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(calls.to_le_bytes());
            bytes.extend((sums.len() as i32).to_le_bytes());
            bytes.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
        }
        bytes.extend(7i32.to_le_bytes());
        bytes.extend(4i32.to_le_bytes());
        bytes.extend(b"text");
        bytes
    }

    #[test]
    fn the_older_form_is_read_and_its_values_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("im.dat");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_imatrix(&path)
        };
        let good = old(&[("blk.0.attn_q.weight", 3, &[1.0, 0.0]), ("blk.0.ffn_up_exps.weight", 1, &[2.0; 4])]);
        let layer = Importance { tensor: "blk.0.attn_q.weight".into(), sums: vec![1.0, 0.0], tokens: 3 };
        assert_eq!(read(&good).unwrap(), [layer]);
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            let error = read(&old(&[("a", 1, &[0.0, bad])])).unwrap_err();
            let names_it =
                matches!(&error, Error::MalformedTensor { tensor, fault: Fault::BadValue { .. }, .. } if tensor == "a");
            assert!(names_it, "{error}");
        }
        for length in 0..good.len() - 12 {
            assert!(matches!(read(&good[..length]), Err(Error::Malformed { .. })), "{length}");
        }
        assert!(read(b"not an importance matrix").is_err());
    }
}
