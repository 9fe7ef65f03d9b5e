use crate::float_type::round_all;
use crate::{Error, ExportContext, ExportFormat, ExportTensor, FloatType, Result, SolvedLayers, SolvedShape};
use half::f16;
use ndarray::{Array1, Array2, ArrayD};
use sparq_core::{CompressedLayer, Granularity, QuantScheme, Quantized, ScaleType};
use sparq_tensor::packing::gguf::{decode_rows, pack_rows, quantize_rows, type_of_grid};
use sparq_tensor::{DType, GgufWriter, Importance, StagedCheckpoint, TensorInGguf, TensorInfo};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// The types matrices get in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GgufTypes {
    /// Codes of the solver in the 32-element type that holds them; other matrices in the float type asked for, or as
    /// they are in a GGUF source.
    #[default]
    Exact,
    /// Every matrix in this type (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q6_K), or the next larger one
    /// that its width allows. Block types choose codes anew, from the compressed weights.
    All(DType),
    /// The mixture that llama.cpp calls Q4_K_M, by our own search.
    Q4KM,
}

/// GGUF version 3, for llama.cpp and what is built on it.
///
/// Grids of 4, 5 or 8 bits (8 only symmetric) whose groups are multiples of 32 channels go into Q4_0, Q4_1, Q5_0, Q5_1
/// and Q8_0 as they are. Other types are quantized anew and lose exact zeros where they have a minimum; the report
/// counts them.
#[derive(Debug, Clone, Default)]
pub struct Gguf {
    types: GgufTypes,
    importance: BTreeMap<String, Array1<f32>>,
}

impl Gguf {
    /// With these types.
    pub fn new(types: GgufTypes) -> Self {
        Self { types, importance: BTreeMap::new() }
    }

    /// Weighs the errors of Q4_K and Q6_K by what calibration has seen of each input channel.
    pub fn importance(mut self, layers: impl IntoIterator<Item = Importance>) -> Self {
        self.importance = layers.into_iter().map(|layer| (layer.layer, Array1::from(layer.sums))).collect();
        self
    }

    /// The type of a tensor in the file.
    fn dtype(&self, context: &ExportContext<'_>, info: &TensorInfo) -> DType {
        let Some(there) = TensorInGguf::of(context.source, &info.name) else { return DType::F32 };
        if info.shape.len() < 2 || stays_in_floats(&there.name) {
            return DType::F32;
        }
        let width = if there.transposed { info.shape.first() } else { info.shape.last() };
        let width = width.copied().unwrap_or(1);
        let is_head = there.name == head(context);
        match self.types {
            GgufTypes::Exact => match context.layer_of(&info.name).and_then(exact_type) {
                Some(dtype) => dtype,
                None if context.settings.float_type == FloatType::Source && info.dtype.is_block_quantized() => {
                    // Only what was not compressed is still what the source says.
                    if context.layer_of(&info.name).is_some() { DType::F16 } else { info.dtype }
                }
                None => context.settings.float_type.of(info.dtype),
            },
            GgufTypes::All(DType::Q4_K) if is_head => wide_enough(DType::Q6_K, width),
            GgufTypes::All(dtype) => wide_enough(dtype, width),
            GgufTypes::Q4KM => {
                let gets_more = is_head || gets_more_bits(context, &there.name);
                wide_enough(if gets_more { DType::Q6_K } else { DType::Q4_K }, width)
            }
        }
    }

    /// ggml's number for the mixture.
    fn file_type(&self, context: &ExportContext<'_>) -> Option<u32> {
        let dtype = match self.types {
            GgufTypes::Q4KM => return Some(15),
            GgufTypes::All(dtype) => dtype,
            GgufTypes::Exact => {
                let mut counts: BTreeMap<DType, usize> = BTreeMap::new();
                for info in context.source.tensors().filter(|info| info.shape.len() > 1) {
                    *counts.entry(self.dtype(context, info)).or_default() += 1;
                }
                counts.into_iter().max_by_key(|&(_, count)| count)?.0
            }
        };
        Some(match dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q8_0 => 7,
            DType::Q5_0 => 8,
            DType::Q5_1 => 9,
            DType::Q4_K => 14,
            DType::Q6_K => 18,
            DType::BF16 => 32,
            _ => return None,
        })
    }

    /// A matrix quantized anew.
    fn quantize(&self, name: &str, dtype: DType, values: &Array2<f32>) -> Result<Vec<u8>> {
        let importance = name.strip_suffix(".weight").and_then(|layer| self.importance.get(layer));
        let unfit = || Error::Unfit {
            format: "gguf".into(),
            layer: name.to_owned(),
            reason: format!("{} columns, or their importance, do not fit {dtype}", values.ncols()),
            instead: "use f16, or an importance matrix of this model".into(),
        };
        quantize_rows(dtype, values.view(), importance.map(|list| list.view())).ok_or_else(unfit)
    }

    /// The values of a matrix quantized anew.
    fn quantized_again(&self, name: &str, dtype: DType, values: &Array2<f32>) -> Result<Array2<f32>> {
        let bytes = self.quantize(name, dtype, values)?;
        let decoded = decode_rows(dtype, &bytes, values.len()).ok_or_else(|| no_matrix(name, dtype))?;
        Array2::from_shape_vec(values.dim(), decoded).map_err(|_| no_matrix(name, dtype))
    }

    fn write(
        &self,
        writer: &mut GgufWriter,
        context: &ExportContext<'_>,
        info: &TensorInfo,
        solved: &dyn SolvedLayers,
    ) -> Result<()> {
        let (name, dtype) = (&info.name, self.dtype(context, info));
        let Some(there) = TensorInGguf::of(context.source, name) else { return Ok(()) };
        let Some(shape) = context.layer_of(name) else {
            if dtype == info.dtype {
                return Ok(writer.copy(context.source, name)?);
            }
            if dtype.is_block_quantized() {
                let rows = turned(context.source.read_matrix(name)?, there.transposed);
                return Ok(writer.write_rows(name, &self.quantize(name, dtype, &rows)?)?);
            }
            return Ok(writer.write_f32(name, context.source.read(name)?.view())?);
        };
        let layer = solved.layer(&shape.name)?;
        shape.check(&layer)?;
        if let Some(quantized) = self.exact(&layer) {
            let size = quantized.scheme.granularity.size(shape.shape[1]);
            let (codes, scales, zeros) = (quantized.codes.view(), quantized.scales.view(), quantized.zeros.view());
            let bytes = pack_rows(dtype, codes, scales, zeros, size).ok_or_else(|| not_whole_blocks(shape))?;
            return Ok(writer.write_rows(name, &bytes)?);
        }
        if dtype.is_block_quantized() {
            return Ok(writer.write_rows(name, &self.quantize(name, dtype, &layer.weight)?)?);
        }
        Ok(writer.write_f32(name, shape.as_stored(layer.weight).view())?)
    }

    /// The codes, if they are to be kept.
    fn exact<'a>(&self, layer: &'a CompressedLayer) -> Option<&'a Quantized> {
        layer.quantized.as_ref().filter(|_| self.types == GgufTypes::Exact)
    }
}

impl ExportFormat for Gguf {
    fn name(&self) -> Cow<'static, str> {
        match self.types {
            GgufTypes::Exact => "gguf".into(),
            GgufTypes::All(dtype) => format!("gguf {dtype}").into(),
            GgufTypes::Q4KM => "gguf Q4_K_M".into(),
        }
    }

    fn check(&self, context: &ExportContext<'_>) -> Result<()> {
        GgufWriter::check(context.source, |info| self.dtype(context, info))?;
        if let GgufTypes::All(dtype) = self.types {
            let is_known = matches!(
                dtype,
                DType::F32
                    | DType::F16
                    | DType::BF16
                    | DType::Q4_0
                    | DType::Q4_1
                    | DType::Q5_0
                    | DType::Q5_1
                    | DType::Q8_0
                    | DType::Q4_K
                    | DType::Q6_K
            );
            if !is_known {
                return Err(Error::Unfit {
                    format: "gguf".into(),
                    layer: "every matrix".into(),
                    reason: format!("there is no encoder for {dtype} here"),
                    instead: "use Q4_K, Q6_K, Q8_0 or a float type".into(),
                });
            }
        }
        if self.types != GgufTypes::Exact {
            return Ok(());
        }
        context.layers.iter().try_for_each(check_exact)
    }

    fn stage(
        &self,
        context: &ExportContext<'_>,
        solved: &dyn SolvedLayers,
        destination: &Path,
    ) -> Result<StagedCheckpoint> {
        let types = |info: &TensorInfo| self.dtype(context, info);
        let (file_type, overwrite) = (self.file_type(context), context.settings.overwrite);
        let mut writer = GgufWriter::create(destination, context.source, types, file_type, overwrite)?;
        for info in context.source.tensors() {
            self.write(&mut writer, context, info, solved)?;
        }
        Ok(writer.stage()?)
    }

    fn expected(&self, context: &ExportContext<'_>, tensor: &ExportTensor<'_>) -> Result<ArrayD<f32>> {
        match tensor {
            ExportTensor::Copied(info, values) => {
                let dtype = self.dtype(context, info);
                let there = TensorInGguf::of(context.source, &info.name);
                let (offset, transposed) = there.map_or((0.0, false), |there| (there.offset, there.transposed));
                if offset != 0.0 {
                    return Ok(values.mapv(|value| (value + offset) - offset));
                }
                if dtype == info.dtype {
                    return Ok(values.to_owned());
                }
                if !dtype.is_block_quantized() {
                    return Ok(round_all(dtype, values.to_owned()));
                }
                let matrix = values.to_owned().into_dimensionality().map_err(|_| no_matrix(&info.name, dtype))?;
                let again = self.quantized_again(&info.name, dtype, &turned(matrix, transposed))?;
                Ok(turned(again, transposed).into_dyn())
            }
            ExportTensor::Solved(shape, layer) => {
                if let Some(quantized) = self.exact(layer) {
                    return Ok(shape.as_stored(as_blocks_say(quantized)));
                }
                let name = shape.weight_name();
                let dtype = context.source.get(&name).map_or(DType::F32, |info| self.dtype(context, info));
                if !dtype.is_block_quantized() {
                    return Ok(round_all(dtype, shape.as_stored(layer.weight.clone())));
                }
                Ok(shape.as_stored(self.quantized_again(&name, dtype, &layer.weight)?))
            }
        }
    }

    fn presented_name(&self, context: &ExportContext<'_>, info: &TensorInfo) -> Option<String> {
        TensorInGguf::of(context.source, &info.name).map(|there| there.presented)
    }

    fn engines(&self, context: &ExportContext<'_>) -> String {
        let mut text = String::from(
            "llama.cpp and what is built on it load the file as it is, on processors and graphics cards. Codes are \
             stored at the width of their type; zeros of pruned weights take the same space, and no engine skips them.",
        );
        let has_minima = |info: &TensorInfo| {
            context.layer_of(&info.name).is_some_and(|shape| shape.pruned)
                && matches!(self.dtype(context, info), DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K)
        };
        if context.source.tensors().any(has_minima) {
            text.push_str(
                " Types with a minimum have no exact zero: pruned weights come back as small numbers (see zeros lost).",
            );
        }
        text
    }
}

fn no_matrix(name: &str, dtype: DType) -> Error {
    Error::MismatchedTensors { tensor: name.to_owned(), what: format!("no matrix of {dtype}") }
}

/// A matrix the other way round, if it is to be.
fn turned(matrix: Array2<f32>, transposed: bool) -> Array2<f32> {
    if transposed { matrix.reversed_axes().as_standard_layout().into_owned() } else { matrix }
}

/// The tensor of the file that makes logits: the output head, or the embedding it is tied to.
fn head(context: &ExportContext<'_>) -> &'static str {
    if context.source.contains("lm_head.weight") { "output.weight" } else { "token_embd.weight" }
}

/// Whether llama.cpp wants a matrix of the file in floats: what sends tokens to experts, and positions.
fn stays_in_floats(name: &str) -> bool {
    name == "position_embd.weight" || name.ends_with(".ffn_gate_inp.weight")
}

/// The type that holds the layer's codes.
fn exact_type(shape: &SolvedShape) -> Option<DType> {
    shape.scheme.and_then(|scheme| type_of_grid(scheme.bits.get().into(), scheme.symmetric))
}

/// Refuses grids that no 32-element type holds.
fn check_exact(shape: &SolvedShape) -> Result<()> {
    let Some(scheme) = shape.scheme else { return Ok(()) };
    let unfit = |reason: String, instead: &str| {
        Err(Error::Unfit { format: "gguf".into(), layer: shape.name.clone(), reason, instead: instead.into() })
    };
    let kind = if scheme.symmetric { "symmetric" } else { "asymmetric" };
    if exact_type(shape).is_none() {
        let reason = format!("no type stores {kind} codes of {} bits with one scale for each group", scheme.bits);
        return match scheme.bits.get() {
            2 | 3 => unfit(reason, "use gptq, which has them, or ask for a type such as Q4_K to quantize anew"),
            8 => unfit(reason, "use compressed-tensors or gptq, or solve on a symmetric grid"),
            _ => unfit(reason, "use compressed-tensors with any width allowed, or ask for a type such as Q8_0"),
        };
    }
    if scheme.scale_type != ScaleType::F16 {
        let reason = format!("its scales are half precision, those of the layer {:?}", scheme.scale_type);
        return unfit(reason, "solve with scales in f16, or use compressed-tensors");
    }
    let width = shape.shape[1];
    if !width.is_multiple_of(32) {
        return Err(not_whole_blocks(shape));
    }
    match scheme {
        QuantScheme { granularity: Granularity::Group(size), .. } if size < width && !size.is_multiple_of(32) => {
            let reason = format!("a block of 32 channels has one scale, and groups of {size} would need several");
            unfit(reason, "solve with groups of 32 or a multiple, or use gptq or compressed-tensors")
        }
        _ => Ok(()),
    }
}

fn not_whole_blocks(shape: &SolvedShape) -> Error {
    Error::Unfit {
        format: "gguf".into(),
        layer: shape.name.clone(),
        reason: format!("its {} input channels are no whole number of blocks of 32", shape.shape[1]),
        instead: "use compressed-tensors, or leave the layer out".into(),
    }
}

/// The values of the 32-element types: asymmetric ones add a minimum in half precision, scale times zero point.
fn as_blocks_say(quantized: &Quantized) -> Array2<f32> {
    if quantized.scheme.symmetric {
        return quantized.dequantize();
    }
    let size = quantized.scheme.granularity.size(quantized.codes.ncols());
    Array2::from_shape_fn(quantized.codes.dim(), |(row, column)| {
        let (scale, zero) = (quantized.scales[[row, column / size]], quantized.zeros[[row, column / size]]);
        let minimum = f16::from_f32(-scale * f32::from(zero)).to_f32();
        f32::from(quantized.codes[[row, column]]) * scale + minimum
    })
}

/// The type itself or the next larger one whose blocks divide a row.
fn wide_enough(dtype: DType, width: usize) -> DType {
    let fallback = match dtype {
        DType::Q4_K => DType::Q5_0,
        DType::Q6_K => DType::Q8_0,
        other => other,
    };
    let fits = |dtype: DType| width.is_multiple_of(dtype.block_size());
    [dtype, fallback].into_iter().find(|&dtype| fits(dtype)).unwrap_or(DType::F16)
}

/// Whether llama.cpp's Q4_K_M gives a matrix of the file six bits: values and down projections of a part of the blocks.
fn gets_more_bits(context: &ExportContext<'_>, name: &str) -> bool {
    let Some((block, module)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else { return false };
    let Ok(index) = block.parse::<u64>() else { return false };
    let Ok(config) = context.source.config() else { return false };
    let Some(count) = ["num_hidden_layers", "n_layer"].iter().find_map(|key| config[*key].as_u64()) else {
        return false;
    };
    let (eighth, is_one) = (count / 8, matches!(module, "attn_v.weight" | "ffn_down.weight"));
    is_one && (index < eighth || index >= 7_u64.saturating_mul(count) / 8 || (index - eighth) % 3 == 2)
}
