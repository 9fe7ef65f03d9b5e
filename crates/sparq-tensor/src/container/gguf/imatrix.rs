//! Importance matrices: per input channel, the sum of squared activations, as llama.cpp's quantizer takes them.

use std::path::Path;

use super::key_values::{KeyValues, put_string};
use super::parse;
use crate::codec::tensor;
use crate::mmap::MappedFile;
use crate::{DType, Error, Fault, Result, whole_files};

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
        tensors.push((format!("{name}{SUMS}"), layer.sums.len() as u64, bytes));
        tensors.push((format!("{name}{COUNTS}"), 1, (layer.tokens as f32).to_le_bytes().to_vec()));
    }
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend(entries.count.to_le_bytes());
    header.extend(entries.bytes);
    let mut offset = 0u64;
    for (name, columns, bytes) in &tensors {
        put_string(&mut header, name);
        header.extend(2u32.to_le_bytes());
        header.extend([*columns, 1].into_iter().flat_map(u64::to_le_bytes)); // the second counts experts
        header.extend(0u32.to_le_bytes()); // F32
        header.extend(offset.to_le_bytes());
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

/// Reads an importance matrix in GGUF form, in the order of the file. Sums of experts, a row for each in one tensor, are left
/// out.
///
/// # Errors
/// [`Error::Malformed`], [`Error::MalformedTensor`], [`Error::Unsupported`] if it is a GGUF file of another kind,
/// [`Error::NonFinite`], [`Error::Io`].
pub fn read_imatrix(path: impl AsRef<Path>) -> Result<Vec<Importance>> {
    let path = path.as_ref();
    let file = MappedFile::open(path)?;
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
        let no_memory = || Error::OutOfMemory { tensor: tensor.name.clone(), bytes: 4 * elements as u64 };
        let values = tensor::decode(DType::F32, bytes, elements).ok_or_else(no_memory)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => Err(Error::NonFinite {
                file: path.to_path_buf(),
                tensor: tensor.name.clone(),
                index: vec![at],
                value: values[at],
            }),
        }
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
