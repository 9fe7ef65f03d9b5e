//! What the formats of packed codes in safetensors share.

use super::dense::copy;
use crate::float_type::scale_dtype;
use crate::{Error, ExportContext, FloatType, Result, SolvedLayers, SolvedShape, config};
use ndarray::Array2;
use serde_json::Value;
use sparq_core::{Granularity, QuantScheme, Quantized, ScaleType};
use sparq_tensor::{CheckpointWriter, DType, StagedCheckpoint, TensorInfo, TensorSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How one format lays out the parts of a quantized weight.
pub(super) trait Parts {
    /// The tensors that replace the weight of a layer on this grid.
    fn specs(&self, shape: &SolvedShape, scheme: QuantScheme) -> Vec<TensorSpec>;

    /// Writes them.
    fn write(&self, writer: &mut CheckpointWriter, shape: &SolvedShape, quantized: &Quantized) -> Result<()>;
}

/// Writes a checkpoint: codes where there are codes, floats of type `dtype` elsewhere.
pub(super) fn stage(
    context: &ExportContext<'_>,
    solved: &dyn SolvedLayers,
    destination: &Path,
    dtype: DType,
    parts: &dyn Parts,
    quantization: &Value,
    extra_file: Option<&str>,
) -> Result<StagedCheckpoint> {
    let source = context.source;
    let specs = plan(context, dtype, parts).into_iter().map(|(_, spec)| spec).collect();
    let mut writer = CheckpointWriter::create(destination, specs, context.settings.write_options())?;
    for info in context.tensors() {
        let Some(shape) = context.layer_of(&info.name) else {
            copy(context, &mut writer, &info.name, info.dtype, kept_dtype(context, info, dtype))?;
            continue;
        };
        let layer = solved.layer(&shape.name)?;
        shape.check(&layer)?;
        match layer.quantized() {
            Some(quantized) => parts.write(&mut writer, shape, quantized)?,
            None => writer.write_f32(&info.name, layer.weight.view().into_dyn())?,
        }
    }
    config::write_side_files(&mut writer, source, &BTreeSet::from([dtype]), Some(quantization))?;
    if let Some(name) = extra_file {
        writer.write_side_file(name, format!("{quantization:#}\n").as_bytes())?;
    }
    Ok(writer.stage()?)
}

/// What [`stage`] writes for each tensor of the source.
pub(super) fn plan<'a>(context: &ExportContext<'a>, dtype: DType, parts: &dyn Parts) -> Vec<(&'a str, TensorSpec)> {
    let mut plan = Vec::new();
    for info in context.tensors() {
        let specs = match context.layer_of(&info.name).and_then(|shape| shape.scheme().map(|scheme| (shape, scheme))) {
            Some((shape, scheme)) => parts.specs(shape, scheme),
            None => vec![TensorSpec::new(&info.name, info.shape.clone(), kept_dtype(context, info, dtype))],
        };
        plan.extend(specs.into_iter().map(|spec| (info.name.as_str(), spec)));
    }
    plan
}

/// The type of a tensor that holds no codes: integers stay, and what is not read; floats become `wanted`.
pub(super) fn kept_dtype(context: &ExportContext<'_>, info: &TensorInfo, wanted: DType) -> DType {
    let is_wanted = (info.dtype.is_float() || info.dtype.is_block_quantized()) && !context.is_unused(info);
    if is_wanted { wanted } else { info.dtype }
}

/// The one float type of the whole checkpoint. Without a wish it is the most frequent of the source, unless that cannot
/// hold the scales: then theirs, or single precision if they have several.
pub(super) fn uniform_type(context: &ExportContext<'_>) -> DType {
    let wished = context.settings.float_type;
    if wished != FloatType::Source {
        return wished.of(DType::F32);
    }
    let mut elements: BTreeMap<DType, usize> = BTreeMap::new();
    let is_float = |info: &&TensorInfo| info.dtype.is_float() || info.dtype.is_block_quantized();
    for info in context.tensors().filter(|info| !context.is_unused(info)).filter(is_float) {
        *elements.entry(wished.of(info.dtype)).or_default() += info.elements();
    }
    let frequent = elements.into_iter().max_by_key(|&(_, count)| count).map_or(DType::F32, |(dtype, _)| dtype);
    let scales: BTreeSet<DType> = schemes(context).filter_map(|(_, scheme)| scale_dtype(scheme.scale_type)).collect();
    if frequent == DType::F32 || scales.iter().all(|&scale| scale == frequent) {
        return frequent;
    }
    match scales.into_iter().collect::<Vec<_>>().as_slice() {
        [one] => *one,
        _ => DType::F32,
    }
}

/// Layers that have a grid, with it.
pub(super) fn schemes<'a>(context: &ExportContext<'a>) -> impl Iterator<Item = (&'a SolvedShape, QuantScheme)> {
    context.layers.iter().filter_map(|shape| shape.scheme().map(|scheme| (shape, scheme)))
}

/// Linear layers that stay in floats, by module name: every matrix that is no embedding, and the output head even where
/// it is tied to the embedding and has no tensor.
pub(super) fn float_linears(context: &ExportContext<'_>) -> Vec<String> {
    let is_coded = |name: &str| context.layer_of(name).is_some_and(|shape| shape.codes.is_some());
    let mut names: BTreeSet<String> = context
        .tensors()
        .filter(|info| info.shape.len() >= 2 && !is_coded(&info.name))
        .filter_map(|info| info.name.strip_suffix(".weight"))
        .filter(|module| !module.ends_with("embed_tokens"))
        .map(str::to_owned)
        .collect();
    if !is_coded("lm_head.weight") {
        names.insert("lm_head".into());
    }
    names.into_iter().collect()
}

/// Refuses exports without a single code.
pub(super) fn check_any_codes(context: &ExportContext<'_>, format: &str) -> Result<()> {
    if schemes(context).next().is_some() {
        return Ok(());
    }
    let layer = context.layers.first().map_or_else(|| "these layers".to_owned(), |layer| layer.name.clone());
    let reason = "no layer is quantized, so that there are no codes to pack".to_owned();
    Err(Error::Unfit {
        format: format.to_owned(),
        layer,
        reason,
        instead: "use dense, or gguf with 16-bit floats".into(),
    })
}

/// Refuses layers whose tensors no loader of the packed formats knows.
pub(super) fn check_layout(shape: &SolvedShape, format: &str) -> Result<()> {
    let Some(part) = &shape.part else { return Ok(()) };
    let reason = if part.transposed {
        "it is a Conv1D layer, stored as [in, out], and loaders of the format know linear layers only"
    } else {
        "all experts are one tensor of several dimensions, and loaders of the format want a matrix for each"
    };
    Err(Error::Unfit {
        format: format.to_owned(),
        layer: shape.name.clone(),
        reason: reason.to_owned(),
        instead: "use dense".into(),
    })
}

/// Refuses groups that do not divide a row: readers take `in / groups` for their size.
pub(super) fn check_groups(shape: &SolvedShape, scheme: QuantScheme, format: &str) -> Result<()> {
    let width = shape.shape[1];
    let Granularity::Group(size) = scheme.granularity else { return Ok(()) };
    if size >= width || width.is_multiple_of(size) {
        return Ok(());
    }
    let nearest = (1..=size).rev().find(|size| width.is_multiple_of(*size)).unwrap_or(1);
    Err(Error::Unfit {
        format: format.to_owned(),
        layer: shape.name.clone(),
        reason: format!("its {width} input channels do not divide into groups of {size}"),
        instead: format!("solve with groups of {nearest} or one scale per channel, or use dense"),
    })
}

/// Scales in `[out, groups]` as a file has them: one number for a whole tensor.
pub(super) fn little_endian(words: &Array2<i32>) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Whether scales of this storage type are exact in tensors of this type.
pub(super) fn holds(dtype: DType, scale: ScaleType) -> bool {
    dtype == DType::F32 || scale_dtype(scale) == Some(dtype)
}

/// `scale · (code − zero)`, computed in `dtype`.
pub(super) fn computed_in(dtype: DType, quantized: &Quantized) -> Array2<f32> {
    let mut values = quantized.dequantize();
    if dtype != DType::F32 {
        values.mapv_inplace(|value| dtype.rounded(value));
    }
    values
}

/// A sentence for layers that engines run as one and that have different grids; empty if there are none.
pub(super) fn fused_siblings(context: &ExportContext<'_>) -> String {
    match fused(context).into_iter().find(Siblings::differ) {
        None => String::new(),
        Some(Siblings { parent, .. }) => format!(
            " vLLM runs q/k/v and gate/up as one matrix each and needs one grid for them: it will refuse {parent}."
        ),
    }
}

/// Layers that engines run as one matrix.
pub(super) struct Siblings {
    /// The module that they are in.
    pub(super) parent: String,
    /// What engines call the one.
    pub(super) name: &'static str,
    /// The grids of its parts; none of a part in floats.
    schemes: Vec<Option<QuantScheme>>,
}

impl Siblings {
    /// The grid of all parts, if that is one and the same.
    pub(super) fn scheme(&self) -> Option<QuantScheme> {
        if self.differ() { None } else { self.schemes.first().copied().flatten() }
    }

    /// Whether the parts have different grids, or some of them one and others none.
    pub(super) fn differ(&self) -> bool {
        self.schemes.windows(2).any(|two| two[0] != two[1])
    }
}

/// What of the model engines run as one.
pub(super) fn fused(context: &ExportContext<'_>) -> Vec<Siblings> {
    const FUSED: [(&str, &[&str]); 3] = [
        ("qkv_proj", &["q_proj", "k_proj", "v_proj"]),
        ("gate_up_proj", &["gate_proj", "up_proj"]),
        ("w13", &["w1", "w3"]),
    ];
    let mut found: BTreeMap<(String, &str), Vec<Option<QuantScheme>>> = BTreeMap::new();
    for info in context.tensors() {
        let Some((parent, module)) = info.name.strip_suffix(".weight").and_then(|name| name.rsplit_once('.')) else {
            continue;
        };
        if let Some((name, _)) = FUSED.iter().find(|(_, parts)| parts.contains(&module)) {
            let scheme = context.layer_of(&info.name).and_then(SolvedShape::scheme);
            found.entry((parent.to_owned(), name)).or_default().push(scheme);
        }
    }
    let siblings = |((parent, name), schemes)| Siblings { parent, name, schemes };
    found.into_iter().map(siblings).collect()
}
