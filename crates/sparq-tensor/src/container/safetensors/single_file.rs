//! Single safetensors files of plain arrays, for tools that exchange a few matrices.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::directory;
use super::layout::{check_names, layout};
use crate::codec::{plain, tensor};
use crate::read::read_entry;
use crate::whole_files::replace_file;
use crate::{DType, Error, Fault, Result, TensorSpec};

/// One array of a file read by [`read_safetensors_file`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FileTensor {
    /// The element type on disk.
    pub dtype: DType,
    /// The values.
    pub values: ArrayD<f32>,
}

/// Reads every array of one safetensors file as f32.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] and [`Error::MalformedTensor`] if the header contradicts the format or the
/// file's size; [`Error::NotDecodable`], [`Error::NonFinite`], [`Error::OutOfMemory`] for a tensor's values.
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use sparq_tensor::{TensorData, read_safetensors_file, write_safetensors_file};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("layer.safetensors");
/// let weight = array![[1.0f32, -2.0]].into_dyn();
/// let mask = array![[1u8, 0]].into_dyn();
/// write_safetensors_file(&path, &[("weight", TensorData::F32(weight.view())), ("mask", TensorData::U8(mask.view()))])?;
/// let arrays = read_safetensors_file(&path)?;
/// assert_eq!(arrays["weight"].values, weight);
/// assert_eq!(arrays["mask"].values, array![[1.0, 0.0]].into_dyn());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_safetensors_file(path: impl AsRef<Path>) -> Result<BTreeMap<String, FileTensor>> {
    let loaded = directory::open_file(path.as_ref())?;
    let mut arrays = BTreeMap::new();
    for (name, entry) in &loaded.tensors {
        let values = read_entry(&loaded.files, entry)?;
        let shape = &entry.info.shape;
        let values = ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| {
            let reason = "it does not match the number of its elements";
            Error::tensor(&entry.info.file, name, Fault::BadShape { shape: shape.clone(), reason })
        })?;
        arrays.insert(name.clone(), FileTensor { dtype: entry.info.dtype, values });
    }
    Ok(arrays)
}

/// An array to be written by [`write_safetensors_file`], in the type it has.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TensorData<'a> {
    /// Singles.
    F32(ArrayViewD<'a, f32>),
    /// Singles, stored as IEEE halves.
    AsF16(ArrayViewD<'a, f32>),
    /// Singles, stored as brain floats.
    AsBF16(ArrayViewD<'a, f32>),
    /// Unsigned bytes.
    U8(ArrayViewD<'a, u8>),
    /// Signed bytes.
    I8(ArrayViewD<'a, i8>),
    /// Signed 32-bit integers.
    I32(ArrayViewD<'a, i32>),
    /// Signed 64-bit integers.
    I64(ArrayViewD<'a, i64>),
}

impl TensorData<'_> {
    /// The element type on disk.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::AsF16(_) => DType::F16,
            Self::AsBF16(_) => DType::BF16,
            Self::U8(_) => DType::U8,
            Self::I8(_) => DType::I8,
            Self::I32(_) => DType::I32,
            Self::I64(_) => DType::I64,
        }
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(view) | Self::AsF16(view) | Self::AsBF16(view) => view.shape(),
            Self::U8(view) => view.shape(),
            Self::I8(view) => view.shape(),
            Self::I32(view) => view.shape(),
            Self::I64(view) => view.shape(),
        }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        Ok(match self {
            Self::F32(view) | Self::AsF16(view) | Self::AsBF16(view) => {
                let values: Vec<f32> = view.iter().copied().collect();
                let mut bytes = Vec::with_capacity(values.len() * self.dtype().block_bytes());
                plain::encode(self.dtype(), &values, &mut bytes).map_err(|at| Error::NotRepresentable {
                    tensor: name.to_owned(),
                    index: tensor::unravel(at, view.shape()),
                    value: values[at],
                    dtype: self.dtype(),
                })?;
                bytes
            }
            Self::U8(view) => view.iter().copied().collect(),
            Self::I8(view) => view.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I32(view) => view.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I64(view) => view.iter().flat_map(|value| value.to_le_bytes()).collect(),
        })
    }
}

/// Writes one safetensors file, replacing an existing one by renaming: readers see the old file or the new one, never
/// half of it.
///
/// # Errors
/// [`Error::InvalidPlan`] for names that occur twice; [`Error::NotRepresentable`] for floats that are not finite or
/// would not be after rounding; [`Error::Io`]. After an error the old file, if any, is untouched.
///
/// # Examples
///
/// See [`read_safetensors_file`].
pub fn write_safetensors_file(path: impl AsRef<Path>, tensors: &[(&str, TensorData<'_>)]) -> Result<()> {
    let path = path.as_ref();
    let specs: Vec<TensorSpec> =
        tensors.iter().map(|(name, data)| TensorSpec::new(*name, data.shape(), data.dtype())).collect();
    check_names(&specs)?;
    let layout = layout(&specs.iter().collect::<Vec<_>>())?;
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| layout.positions[i]); // of several empty tensors at one place any order will do

    replace_file(path, |file| {
        file.write_all(&layout.header).map_err(Error::io("write", path))?;
        for i in order {
            let (name, data) = &tensors[i];
            file.write_all(&data.bytes(name)?).map_err(Error::io("write", path))?;
        }
        Ok(())
    })
}
