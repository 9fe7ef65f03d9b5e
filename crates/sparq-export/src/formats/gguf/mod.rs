mod types;

pub use types::GgufTypes;

use crate::float_type::round_all;
use crate::{Error, ExportContext, ExportFormat, ExportTensor, Result, SolvedLayers, SolvedShape};
use half::f16;
use ndarray::{Array1, Array2, ArrayD};
use sparq_core::{CompressedLayer, Granularity, Grid, QuantScheme, Quantized, ScaleType};
use sparq_tensor::codec::decode_rows;
use sparq_tensor::codec::ggml::{is_encodable, pack_rows, pack_super_rows, quantize_rows, type_of_grid};
use sparq_tensor::{DType, GgufWriter, Importance, PlannedSize, StagedCheckpoint, TensorInGguf, TensorInfo};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use types::row_width;

/// GGUF version 3, for llama.cpp and what is built on it.
///
/// Grids of 4, 5 or 8 bits (8 only symmetric) whose groups are multiples of 32 channels go into Q4_0, Q4_1, Q5_0, Q5_1
/// and Q8_0 as they are, those of [`QuantScheme::of_ggml`] of 3 and 6 bits into Q3_K and Q6_K. Other types are quantized anew and lose exact zeros where they have a minimum; the report
/// counts them.
#[derive(Debug, Clone)]
pub struct Gguf {
    types: GgufTypes,
    /// Of embedding and output matrix.
    vocabulary: DType,
    /// By the name of the tensor in the file.
    importance: BTreeMap<String, Array1<f32>>,
    /// Whether it is a directory of parts.
    in_parts: bool,
}

impl Gguf {
    /// With these types.
    pub fn new(types: GgufTypes) -> Self {
        Self { types, vocabulary: DType::Q8_0, importance: BTreeMap::new(), in_parts: false }
    }

    /// Embedding and output matrix in this type (Q8_0 unless this is called), or the next larger one that their width allows.
    /// It concerns [`GgufTypes::Exact`] alone, and matrices that the source has in floats of no type that was
    /// [asked for](crate::ExportSettings::float_type).
    #[must_use]
    pub fn vocabulary(self, dtype: DType) -> Self {
        Self { vocabulary: dtype, ..self }
    }

    /// A directory of parts named as `llama-gguf-split` does, each with at most
    /// [`max_shard_bytes`](crate::ExportSettings::max_shard_bytes) of tensors, instead of one file.
    #[must_use]
    pub fn in_parts(self, on: bool) -> Self {
        Self { in_parts: on, ..self }
    }

    fn type_of(&self, context: &ExportContext<'_>, info: &TensorInfo) -> DType {
        self.types.of(self.vocabulary, context, info)
    }

    /// Weighs the errors of types that are searched for (IQ4_NL, Q3_K to Q6_K) by what calibration has seen of each input channel.
    pub fn importance(mut self, layers: impl IntoIterator<Item = Importance>) -> Self {
        self.importance = layers.into_iter().map(|layer| (layer.tensor, Array1::from(layer.sums))).collect();
        self
    }

    /// Refuses an importance matrix of another model.
    fn check_importance(&self, context: &ExportContext<'_>) -> Result<()> {
        let matrices = context.source.tensors().filter_map(|info| {
            let there = TensorInGguf::of(context.source, &info.name)?;
            let sums = self.importance.get(&there.name)?;
            Some((there.name.clone(), sums.len(), row_width(&there, info)))
        });
        let mut known = false;
        for (layer, sums, width) in matrices {
            known = true;
            if sums != width {
                return Err(Error::Unfit {
                    format: "gguf".into(),
                    layer,
                    reason: format!("the importance matrix has {sums} channels for it, the model {width}"),
                    instead: "use the importance matrix of this model".into(),
                });
            }
        }
        if !known && let Some(layer) = self.importance.keys().next() {
            return Err(Error::Unfit {
                format: "gguf".into(),
                layer: layer.clone(),
                reason: "no layer of this model has a name of the importance matrix".into(),
                instead: "use the importance matrix of this model, or none".into(),
            });
        }
        Ok(())
    }

    /// A matrix quantized anew.
    fn quantize(&self, there: &TensorInGguf, dtype: DType, values: &Array2<f32>) -> Result<Vec<u8>> {
        let importance = self.importance.get(&there.name);
        let unfit = || Error::Unfit {
            format: "gguf".into(),
            layer: there.presented.clone(),
            reason: format!("{} columns, or their importance, do not fit {dtype}", values.ncols()),
            instead: "use f16, or an importance matrix of this model".into(),
        };
        quantize_rows(dtype, values.view(), importance.map(|list| list.view())).ok_or_else(unfit)
    }

    /// The values of a matrix quantized anew.
    fn quantized_again(&self, there: &TensorInGguf, dtype: DType, values: &Array2<f32>) -> Result<Array2<f32>> {
        let bytes = self.quantize(there, dtype, values)?;
        let decoded = decode_rows(dtype, &bytes, values.len()).ok_or_else(|| no_matrix(&there.presented, dtype))?;
        Array2::from_shape_vec(values.dim(), decoded).map_err(|_| no_matrix(&there.presented, dtype))
    }

    fn write(
        &self,
        writer: &mut GgufWriter,
        context: &ExportContext<'_>,
        info: &TensorInfo,
        solved: &dyn SolvedLayers,
    ) -> Result<()> {
        let (name, dtype) = (&info.name, self.type_of(context, info));
        let Some(there) = TensorInGguf::of(context.source, name) else { return Ok(()) };
        let Some(shape) = context.layer_of(name) else {
            if dtype == info.dtype {
                return Ok(writer.copy(context.source, name)?);
            }
            if dtype.is_block_quantized() {
                let rows = turned(context.source.read_matrix(name)?, there.transposed);
                return Ok(writer.write_rows(name, &self.quantize(&there, dtype, &rows)?)?);
            }
            return Ok(writer.write_f32(name, context.source.read(name)?.view())?);
        };
        let layer = solved.layer(&shape.name)?;
        shape.check(&layer)?;
        if let Some(quantized) = self.exact(&layer) {
            return Ok(writer.write_rows(name, &blocks(dtype, quantized).ok_or_else(|| not_whole_blocks(shape))?)?);
        }
        if dtype.is_block_quantized() {
            return Ok(writer.write_rows(name, &self.quantize(&there, dtype, &layer.weight)?)?);
        }
        Ok(writer.write_f32(name, shape.as_stored(layer.weight).view())?)
    }

    /// The codes, if they are to be kept.
    fn exact<'a>(&self, layer: &'a CompressedLayer) -> Option<&'a Quantized> {
        layer.quantized().filter(|_| self.types == GgufTypes::Exact)
    }
}

impl Default for Gguf {
    /// With [`GgufTypes::Exact`].
    fn default() -> Self {
        Self::new(GgufTypes::default())
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

    fn holds_steps(&self) -> bool {
        self.types != GgufTypes::Exact // values are quantized anew
    }

    fn is_one_file(&self) -> bool {
        !self.in_parts
    }

    fn check(&self, context: &ExportContext<'_>) -> Result<()> {
        let writable = GgufWriter::check(context.source, |info| self.type_of(context, info));
        if matches!(writable, Ok(()) | Err(sparq_tensor::Error::InvalidPlan { .. })) {
            // Of a layer whose type does not fit these say more.
            context.layers.iter().try_for_each(|shape| self.check_layer(shape))?;
        }
        writable?;
        let dtype = if let GgufTypes::All(dtype) = self.types { dtype } else { self.vocabulary };
        if dtype.is_block_quantized() && !is_encodable(dtype) {
            return Err(Error::Unfit {
                format: "gguf".into(),
                layer: "every matrix".into(),
                reason: format!("there is no encoder for {dtype} here"),
                instead: "use Q4_K, Q6_K, Q8_0 or a float type".into(),
            });
        }
        self.check_importance(context)
    }

    fn check_layer(&self, shape: &SolvedShape) -> Result<()> {
        if self.types == GgufTypes::Exact { check_exact(shape) } else { Ok(()) }
    }

    fn planned_size(&self, context: &ExportContext<'_>) -> Result<PlannedSize> {
        let types = |info: &TensorInfo| self.type_of(context, info);
        let file_type = self.types.file_type(self.vocabulary, context);
        let most = self.in_parts.then_some(context.settings.max_shard_bytes);
        Ok(GgufWriter::planned_size(context.source, types, file_type, most)?)
    }

    fn stage(
        &self,
        context: &ExportContext<'_>,
        solved: &dyn SolvedLayers,
        destination: &Path,
    ) -> Result<StagedCheckpoint> {
        let types = |info: &TensorInfo| self.type_of(context, info);
        let (file_type, overwrite) = (self.types.file_type(self.vocabulary, context), context.settings.overwrite);
        let mut writer = if self.in_parts {
            let most = context.settings.max_shard_bytes;
            GgufWriter::create_parts(destination, context.source, types, file_type, overwrite, most)?
        } else {
            GgufWriter::create(destination, context.source, types, file_type, overwrite)?
        };
        for info in context.source.tensors() {
            self.write(&mut writer, context, info, solved)?;
        }
        Ok(writer.stage()?)
    }

    fn expected(&self, context: &ExportContext<'_>, tensor: &ExportTensor<'_>) -> Result<ArrayD<f32>> {
        match tensor {
            ExportTensor::Copied(info, values) => {
                let dtype = self.type_of(context, info);
                let there = found(context, &info.name)?;
                let (offset, transposed) = (there.offset, there.transposed);
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
                let again = self.quantized_again(&there, dtype, &turned(matrix, transposed))?;
                Ok(turned(again, transposed).into_dyn())
            }
            ExportTensor::Solved(shape, layer) => {
                if let Some(quantized) = self.exact(layer) {
                    return Ok(shape.as_stored(as_blocks_say(quantized)));
                }
                let name = shape.weight_name();
                let dtype = context.source.get(&name).map_or(DType::F32, |info| self.type_of(context, info));
                if !dtype.is_block_quantized() {
                    return Ok(round_all(dtype, shape.as_stored(layer.weight.clone())));
                }
                Ok(shape.as_stored(self.quantized_again(&found(context, &name)?, dtype, &layer.weight)?))
            }
        }
    }

    fn rows_stand_alone(&self, context: &ExportContext<'_>, info: &TensorInfo) -> bool {
        // Blocks lie along the file's rows.
        !TensorInGguf::of(context.source, &info.name).is_some_and(|there| there.transposed)
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
                && matches!(self.type_of(context, info), DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K)
        };
        if context.source.tensors().any(has_minima) {
            text.push_str(
                " Types with a minimum have no exact zero: pruned weights come back as small numbers (see zeros lost).",
            );
        }
        text
    }
}

/// What a tensor that goes into the file becomes there.
fn found(context: &ExportContext<'_>, name: &str) -> Result<TensorInGguf> {
    let missing = || Error::MismatchedTensors { tensor: name.to_owned(), what: "without a name in GGUF".into() };
    TensorInGguf::of(context.source, name).ok_or_else(missing)
}

fn no_matrix(name: &str, dtype: DType) -> Error {
    Error::MismatchedTensors { tensor: name.to_owned(), what: format!("no matrix of {dtype}") }
}

/// A matrix the other way round, if it is to be.
fn turned(matrix: Array2<f32>, transposed: bool) -> Array2<f32> {
    if transposed { matrix.reversed_axes().as_standard_layout().into_owned() } else { matrix }
}

/// Codes of the solver as blocks of the type that holds them; none if they are no whole blocks of it.
fn blocks(dtype: DType, quantized: &Quantized) -> Option<Vec<u8>> {
    let (codes, grids, kind) = (quantized.codes.view(), &quantized.grids, quantized.scheme.scale_type);
    if kind.largest_multiple().is_none() {
        let size = quantized.scheme.granularity.size(codes.ncols());
        return pack_rows(dtype, codes, quantized.scales().view(), quantized.zeros().view(), size);
    }
    let (mut factors, mut multiples) = (Vec::new(), Vec::with_capacity(grids.len()));
    for row in grids.rows() {
        for sharing in row.as_slice()?.chunks(ScaleType::SHARED_BY) {
            let (factor, of_groups) = kind.factored(sharing)?;
            factors.push(factor);
            multiples.extend(of_groups);
        }
    }
    let multiples = Array2::from_shape_vec(grids.dim(), multiples).ok()?;
    let factors = Array2::from_shape_vec((codes.nrows(), codes.ncols() / 256), factors).ok()?;
    pack_super_rows(dtype, codes, multiples.view(), factors.view())
}

/// Refuses grids that no type holds.
fn check_exact(shape: &SolvedShape) -> Result<()> {
    let Some(scheme) = shape.scheme() else { return Ok(()) };
    let unfit = |reason: String, instead: &str| {
        Err(Error::Unfit { format: "gguf".into(), layer: shape.name.clone(), reason, instead: instead.into() })
    };
    let kind = if scheme.symmetric { "symmetric" } else { "asymmetric" };
    let of_ggml = QuantScheme::of_ggml(scheme.bits, scheme.symmetric);
    let width = shape.shape[1];
    if of_ggml.scale_type.largest_multiple().is_some() {
        // Q3_K and Q6_K.
        let bits = scheme.bits;
        if scheme != of_ggml {
            let reason = format!("its type of {bits} bits has groups of 16 and scales with a factor in common");
            return unfit(reason, "solve with ggml=true, which is the default with --format gguf, or use gptq");
        }
        if !width.is_multiple_of(256) {
            let reason = format!("its type of {bits} bits has blocks of 256, the layer {width} input channels");
            return unfit(reason, "use 4, 5 or 8 bits for it, or let a search for a size choose");
        }
        return Ok(());
    }
    if type_of_grid(scheme.bits.get().into(), scheme.symmetric).is_none() {
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
        let Grid { scale, zero } = quantized.grids[[row, column / size]];
        let minimum = f16::from_f32(-scale * f32::from(zero)).to_f32();
        f32::from(quantized.codes[[row, column]]) * scale + minimum
    })
}
