//! The coded format, sparq's own: weights as entropy-coded integer codes. docs/formats.md specifies it.
//!
//! A weight `X.weight` is stored as `X.codes`, a stream of `sparq-coding` (docs/coding.md), with either `X.rows` and
//! `X.steps`, and then it is `rows[i] · (steps[j] · code)`, or with `X.scales` and perhaps `X.zeros` (a stream as well), and
//! then it is `scales[i, j / group_size] · code`: codes are counted from the zero point already.

use std::path::Path;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::packed::{Packed, Part, SCALE_TYPES};
use super::settings::{get, invalid};
use super::{plain, tensor};
use crate::entry::Loaded;
use crate::mmap::MappedFile;
use crate::size::checked_elements;
use crate::{DType, Error, Packing, Result, TensorSpec};

/// What `quant_method` says.
pub const METHOD: &str = "sparq";
/// The only version of the format.
const VERSION: u64 = 1;

/// Integer codes and what they are multiplied with.
#[derive(Debug, Clone, Copy)]
pub enum CodedWeight<'a> {
    /// Codes in steps of input channels, with a factor for each output channel: `rows[i] · (steps[j] · code)`.
    Steps {
        /// Signed codes, `[out, in]`.
        codes: ArrayView2<'a, i16>,
        /// Factors, `[out]`, stored as bfloat16.
        rows: &'a [f32],
        /// Steps, `[in]`, stored as bfloat16.
        steps: &'a [f32],
    },
    /// Codes in groups of input channels that share a scale.
    Groups {
        /// Codes less the zero points of their groups, `[out, in]`.
        codes: ArrayView2<'a, i16>,
        /// Scales, `[out, groups]`.
        scales: ArrayView2<'a, f32>,
        /// The type they are stored in: F16, BF16 or F32.
        scale_type: DType,
        /// Zero points of unsigned codes, `[out, groups]`; none if they lie in the middle. Values do not depend on them.
        zeros: Option<ArrayView2<'a, u8>>,
    },
}

impl CodedWeight<'_> {
    /// The tensors that stand for the weight of `module`, with their bytes.
    ///
    /// # Errors
    /// [`Error::Coding`] for a matrix that is too large to be coded.
    pub fn encode(&self, module: &str) -> Result<Vec<(TensorSpec, Vec<u8>)>> {
        let name = |part: &str| format!("{module}.{part}");
        let coded = |part: &str, codes: ArrayView2<'_, i16>| {
            let bytes = encode_codes(&name(part), codes)?;
            Ok::<_, Error>((TensorSpec::new(name(part), [bytes.len()], DType::U8), bytes))
        };
        let floats = |spec: TensorSpec, values: &[f32]| {
            let mut bytes = Vec::new();
            plain::encode(spec.dtype, values, &mut bytes).map_err(|at| Error::NotRepresentable {
                tensor: spec.name.clone(),
                index: tensor::unravel(at, &spec.shape),
                value: values[at],
                dtype: spec.dtype,
            })?;
            Ok::<_, Error>((spec, bytes))
        };
        match *self {
            Self::Steps { codes, rows, steps } => {
                let bytes = encode_codes(&name("codes"), codes)?;
                let [of_codes, of_rows, of_steps] = step_specs(module, [rows.len(), steps.len()], bytes.len());
                Ok(vec![(of_codes, bytes), floats(of_rows, rows)?, floats(of_steps, steps)?])
            }
            Self::Groups { codes, scales, scale_type, zeros } => {
                let spec = TensorSpec::new(name("scales"), [scales.nrows(), scales.ncols()], scale_type);
                let scales: Vec<f32> = scales.iter().copied().collect();
                let mut tensors = vec![coded("codes", codes)?, floats(spec, &scales)?];
                if let Some(zeros) = zeros {
                    tensors.push(coded("zeros", zeros.mapv(i16::from).view())?);
                }
                Ok(tensors)
            }
        }
    }
}

/// The tensors of a weight of this shape, `[out, in]`, in steps, whose codes take so many bytes: codes, rows, steps.
pub fn step_specs(module: &str, [rows, width]: [usize; 2], bytes: usize) -> [TensorSpec; 3] {
    [("codes", bytes, DType::U8), ("rows", rows, DType::BF16), ("steps", width, DType::BF16)]
        .map(|(part, length, dtype)| TensorSpec::new(format!("{module}.{part}"), [length], dtype))
}

/// The stream of a matrix of codes; `tensor` is its name for errors.
///
/// # Errors
/// [`Error::Coding`] for a matrix that is too large to be coded.
pub fn encode_codes(tensor: &str, codes: ArrayView2<'_, i16>) -> Result<Vec<u8>> {
    let (shape, codes) = (codes.dim(), codes.as_standard_layout());
    let bytes = sparq_coding::encode_matrix(codes.as_slice().unwrap_or_default(), shape);
    bytes.map_err(|source| Error::Coding { tensor: tensor.to_owned(), source })
}

/// The codes of a stream, a matrix of this shape; `tensor` is its name for errors.
///
/// # Errors
/// [`Error::Coding`] if it is damaged or holds another matrix.
pub fn decode_codes(tensor: &str, bytes: &[u8], shape: (usize, usize)) -> Result<Array2<i16>> {
    let failed = |source| Error::Coding { tensor: tensor.to_owned(), source };
    let decoder = sparq_coding::Decoder::new(bytes, shape).map_err(failed)?;
    let mut codes = Array2::zeros(shape);
    // A new matrix is row-major.
    decoder.decode_rows(0..shape.0, codes.as_slice_mut().unwrap_or_default()).map_err(failed)?;
    Ok(codes)
}

/// What stands beside the codes of a weight, known before they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodedForm {
    /// Steps of input channels and factors of output channels.
    Steps,
    /// Scales of groups.
    Groups {
        /// Bits of the codes that were coded.
        bits: u8,
        /// Input channels that share a scale; none for all of a row.
        group_size: Option<usize>,
        /// The type of the scales.
        scale_type: DType,
        /// Whether there are zero points; else they lie in the middle.
        asymmetric: bool,
    },
}

/// A coded weight as it was before it was coded.
#[derive(Debug, Clone, PartialEq)]
pub enum DecodedWeight {
    /// Codes with factors and steps.
    Steps {
        /// Signed codes, `[out, in]`.
        codes: Array2<i16>,
        /// Factors, `[out]`.
        rows: Vec<f32>,
        /// Steps, `[in]`.
        steps: Vec<f32>,
    },
    /// Codes with scales and zero points.
    Groups {
        /// Codes less the zero points of their groups, `[out, in]`.
        codes: Array2<i16>,
        /// Scales, `[out, groups]`.
        scales: Array2<f32>,
        /// Zero points, `[out, groups]`; none if they lie in the middle.
        zeros: Option<Array2<i16>>,
    },
}

/// Grids that some weights of a coded file have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodedGrid {
    /// Bits of the codes that were coded, 2 to 8.
    pub bits: u8,
    /// Input channels that share a scale; none for all of a row.
    pub group_size: Option<usize>,
    /// The modules.
    pub modules: Vec<String>,
}

/// The object for config.json that announces a coded file.
pub fn quantization_config(grids: &[CodedGrid]) -> Value {
    let grids: Vec<Value> = grids
        .iter()
        .map(|grid| json!({ "bits": grid.bits, "group_size": grid.group_size, "modules": grid.modules }))
        .collect();
    let mut config = json!({ "quant_method": METHOD, "version": VERSION });
    if !grids.is_empty() {
        config["grids"] = grids.into();
    }
    config
}

/// Reads what [`quantization_config`] wrote.
fn parse(path: &Path, config: &Value) -> Result<Vec<CodedGrid>> {
    match get(config, "version").and_then(Value::as_u64) {
        Some(VERSION) => {}
        _ => return Err(invalid(path, "version", "1", config.get("version").unwrap_or(&Value::Null))),
    }
    let Some(grids) = get(config, "grids") else { return Ok(Vec::new()) };
    let bad = |found: &Value| invalid(path, "grids", "a list of objects with bits, group_size and modules", found);
    let grid = |grid: &Value| {
        let bits = grid["bits"].as_u64().filter(|bits| (2..=8).contains(bits))? as u8;
        let group_size = match &grid["group_size"] {
            Value::Null => None,
            size => Some(size.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0)?),
        };
        let names = grid["modules"].as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
        Some(CodedGrid { bits, group_size, modules: names.collect::<Option<_>>()? })
    };
    grids.as_array().ok_or_else(|| bad(grids))?.iter().map(|found| grid(found).ok_or_else(|| bad(found))).collect()
}

/// Replaces the parts of coded weights in `loaded` by the weights. `path` is the file that `config` is from.
pub(crate) fn present(loaded: &mut Loaded, path: &Path, config: &Value) -> Result<()> {
    let grids = parse(path, config)?;
    for module in loaded.modules(".codes") {
        let name = |part| format!("{module}.{part}");
        let Some(codes) = loaded.take(&name("codes")) else { continue };
        codes.check_type(&[DType::U8], "the type of coded weights")?;
        let (form, shape) = if let Some(steps) = loaded.take(&name("steps")) {
            let rows = loaded.take_needed(&name("rows"), &codes)?;
            let length = |part: &Part| {
                part.check_type(&[DType::BF16], "the type of steps and factors")?;
                match *part.info.shape.as_slice() {
                    [length] if length > 0 => Ok(length),
                    _ => Err(part.bad_shape("steps and factors are lists")),
                }
            };
            let shape = [length(&rows)?, length(&steps)?];
            (Form::Steps { rows, steps }, shape)
        } else {
            let scales = loaded.take_needed(&name("scales"), &codes)?;
            scales.check_type(&SCALE_TYPES, "the type of scales")?;
            let &[rows, groups] = scales.info.shape.as_slice() else {
                return Err(scales.bad_shape("scales are a matrix"));
            };
            let grid = grids.iter().find(|grid| grid.modules.contains(&module)).ok_or_else(|| {
                invalid(path, "grids", "an entry for every module with scales", &Value::from(module.as_str()))
            })?;
            // How wide the matrix is only its codes say; the checks of their header come when they are read.
            let width = stated_width(&codes, loaded)?;
            let group_size = grid.group_size.unwrap_or(width);
            if rows == 0 || width == 0 || width.div_ceil(group_size) != groups {
                return Err(scales.bad_shape("it has not the rows and groups of its codes"));
            }
            let zeros = loaded.take(&name("zeros"));
            let row = grid.group_size.is_none();
            (Form::Groups { scales, zeros, group_size, row, bits: grid.bits }, [rows, width])
        };
        checked_elements(&shape).map_err(|fault| codes.fault(fault))?;
        loaded.insert(&module, shape, Coded { codes, form })?;
    }
    Ok(())
}

/// The columns that the header of a stream of codes states.
fn stated_width(codes: &Part, loaded: &Loaded) -> Result<usize> {
    let bytes = codes.bytes(&loaded.files)?;
    let shape = sparq_coding::stated_shape(bytes);
    Ok(shape.map_err(|source| coding(codes, source))?.1)
}

fn coding(part: &Part, source: sparq_coding::Error) -> Error {
    Error::Coding { tensor: part.info.name.clone(), source }
}

/// A coded weight; shapes and types of its parts are checked when it is made, contents when it is read.
#[derive(Debug)]
struct Coded {
    codes: Part,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Steps {
        rows: Part,
        steps: Part,
    },
    Groups {
        scales: Part,
        zeros: Option<Part>,
        group_size: usize,
        /// Whether a group is all of a row, whatever its size.
        row: bool,
        bits: u8,
    },
}

impl Coded {
    fn floats(part: &Part, files: &[MappedFile]) -> Result<Vec<f32>> {
        let elements = part.info.elements();
        tensor::decode(part.info.dtype, part.bytes(files)?, elements)
            .ok_or_else(|| Error::out_of_memory(&part.info.name, elements))
    }
}

impl Packed for Coded {
    fn coded_form(&self) -> Option<CodedForm> {
        Some(match &self.form {
            Form::Steps { .. } => CodedForm::Steps,
            Form::Groups { scales, zeros, group_size, row, bits } => CodedForm::Groups {
                bits: *bits,
                group_size: (!row).then_some(*group_size),
                scale_type: scales.info.dtype,
                asymmetric: zeros.is_some(),
            },
        })
    }

    fn decoded(&self, files: &[MappedFile], rows: usize, width: usize) -> Result<Option<DecodedWeight>> {
        let decoded = |part: &Part, shape| decode_codes(&part.info.name, part.bytes(files)?, shape);
        let codes = decoded(&self.codes, (rows, width))?;
        Ok(Some(match &self.form {
            Form::Steps { rows, steps } => {
                DecodedWeight::Steps { codes, rows: Self::floats(rows, files)?, steps: Self::floats(steps, files)? }
            }
            Form::Groups { scales, zeros, group_size, .. } => {
                let shape = (rows, width.div_ceil(*group_size));
                let zeros = zeros.as_ref().map(|zeros| decoded(zeros, shape)).transpose()?;
                let values = Array2::from_shape_vec(shape, Self::floats(scales, files)?);
                let scales = values.map_err(|_| scales.bad_shape("it has not the rows and groups of its codes"))?;
                DecodedWeight::Groups { codes, scales, zeros }
            }
        }))
    }

    fn packing(&self) -> Packing {
        match self.form {
            Form::Steps { .. } => Packing::Coded { bits: None },
            Form::Groups { bits, .. } => Packing::Coded { bits: Some(bits) },
        }
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn parts(&self) -> Vec<&Part> {
        let mut parts = vec![&self.codes];
        match &self.form {
            Form::Steps { rows, steps } => parts.extend([rows, steps]),
            Form::Groups { scales, zeros, .. } => parts.extend([scales].into_iter().chain(zeros)),
        }
        parts
    }

    fn dequantize(&self, files: &[MappedFile], rows: usize, width: usize) -> Result<Vec<f32>> {
        let elements = rows * width;
        let decoder = sparq_coding::Decoder::new(self.codes.bytes(files)?, (rows, width));
        let decoder = decoder.map_err(|source| coding(&self.codes, source))?;
        let no_memory = || Error::out_of_memory(&self.codes.info.name, elements);
        let mut values = tensor::zeros(elements).ok_or_else(no_memory)?;
        // A block of rows at a time: codes never exist all at once.
        let mut rest = values.as_mut_slice();
        let mut tasks = Vec::new();
        for block in decoder.blocks() {
            let (values, after) = rest.split_at_mut(block.len() * width);
            tasks.push((block, values));
            rest = after;
        }
        let decode =
            |values: &mut [f32], block: std::ops::Range<usize>, value: &(dyn Fn(usize, usize, f32) -> f32 + Sync)| {
                let mut codes = vec![0_i16; values.len()];
                decoder.decode_rows(block.clone(), &mut codes).map_err(|source| coding(&self.codes, source))?;
                for (row, (values, codes)) in block.zip(values.chunks_exact_mut(width).zip(codes.chunks_exact(width))) {
                    for (column, (found, &code)) in values.iter_mut().zip(codes).enumerate() {
                        // Adding zero turns a negative zero into a positive one.
                        *found = value(row, column, f32::from(code)) + 0.0;
                    }
                }
                Ok(())
            };
        match &self.form {
            Form::Steps { rows: factors, steps } => {
                let (factors, steps) = (Self::floats(factors, files)?, Self::floats(steps, files)?);
                let value = |row: usize, column: usize, code: f32| factors[row] * (steps[column] * code);
                tasks.into_par_iter().try_for_each(|(block, values)| decode(values, block, &value))?;
            }
            Form::Groups { scales, group_size, .. } => {
                let groups = width.div_ceil(*group_size);
                let scales = Self::floats(scales, files)?;
                let value = |row: usize, column: usize, code: f32| scales[row * groups + column / group_size] * code;
                tasks.into_par_iter().try_for_each(|(block, values)| decode(values, block, &value))?;
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, CheckpointWriter, WriteOptions};
    use ndarray::array;

    fn written(directory: &Path, weights: &[(&str, CodedWeight<'_>)], grids: &[CodedGrid]) -> Checkpoint {
        let encoded: Vec<_> = weights.iter().flat_map(|(name, weight)| weight.encode(name).unwrap()).collect();
        let specs = encoded.iter().map(|(spec, _)| spec.clone()).collect();
        let to = directory.join("coded");
        let mut writer = CheckpointWriter::create(&to, specs, WriteOptions::default()).unwrap();
        for (spec, bytes) in &encoded {
            writer.write_bytes(&spec.name, bytes).unwrap();
        }
        let config = json!({ "model_type": "llama", "quantization_config": quantization_config(grids) });
        writer.write_side_file("config.json", config.to_string().as_bytes()).unwrap();
        writer.finish().unwrap();
        Checkpoint::open(&to).unwrap()
    }

    #[test]
    fn both_forms_come_back_as_dense_weights() {
        let directory = tempfile::tempdir().unwrap();
        let steps = array![[1_i16, -2, 0], [300, 0, 7]];
        let grid = array![[-8_i16, 7, 1], [0, 3, -1]];
        let (scales, zeros) = (array![[0.5_f32, 2.0], [0.25, 1.0]], array![[8_u8, 8], [5, 9]]);
        let weights = [
            ("a", CodedWeight::Steps { codes: steps.view(), rows: &[1.0, 0.5], steps: &[0.5, 1.0, 2.0] }),
            (
                "b",
                CodedWeight::Groups {
                    codes: grid.view(),
                    scales: scales.view(),
                    scale_type: DType::F16,
                    zeros: Some(zeros.view()),
                },
            ),
        ];
        let grids = [CodedGrid { bits: 4, group_size: Some(2), modules: vec!["b".into()] }];
        let checkpoint = written(directory.path(), &weights, &grids);
        assert_eq!(checkpoint.read_matrix("a.weight").unwrap(), array![[0.5, -2.0, 0.0], [75.0, 0.0, 7.0]]);
        assert_eq!(checkpoint.read_matrix("b.weight").unwrap(), array![[-4.0, 3.5, 2.0], [0.0, 0.75, -1.0]]);
        assert_eq!(checkpoint.get("a.weight").unwrap().packing, Some(Packing::Coded { bits: None }));
        assert_eq!(checkpoint.get("b.weight").unwrap().packing, Some(Packing::Coded { bits: Some(4) }));
        assert!(checkpoint.config().unwrap().get("quantization_config").is_none());
        assert!(!checkpoint.contains("a.codes") && !checkpoint.contains("b.zeros"));
    }

    #[test]
    fn what_a_file_does_not_say_rightly_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (codes, scales) = (array![[1_i16, 2, 3]], array![[1.0_f32, 1.0]]);
        let weight =
            CodedWeight::Groups { codes: codes.view(), scales: scales.view(), scale_type: DType::F32, zeros: None };
        let grid = |size| CodedGrid { bits: 4, group_size: Some(size), modules: vec!["a".into()] };
        let good = written(directory.path(), &[("a", weight)], &[grid(2)]);
        let to = good.path().to_owned();
        drop(good);
        let refusal = |change: &dyn Fn(&mut Value)| {
            let path = to.join("config.json");
            let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let before = config.to_string();
            change(&mut config["quantization_config"]);
            std::fs::write(&path, config.to_string()).unwrap();
            let found = Checkpoint::open(&to).expect_err("refused").to_string();
            std::fs::write(&path, before).unwrap();
            found
        };
        assert!(refusal(&|config| config["version"] = json!(2)).contains("version"));
        assert!(refusal(&|config| config["grids"] = json!([])).contains("grids"));
        assert!(refusal(&|config| config["grids"][0]["group_size"] = json!(1)).contains("groups of its codes"));
        assert!(refusal(&|config| config["grids"][0]["bits"] = json!(99)).contains("bits"));
    }
}
