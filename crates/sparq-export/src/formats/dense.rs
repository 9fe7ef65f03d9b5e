use crate::float_type::round_all;
use crate::{ExportContext, ExportFormat, ExportTensor, Result, SolvedLayers, config};
use ndarray::ArrayD;
use sparq_tensor::{CheckpointWriter, DType, PlannedSize, StagedCheckpoint, TensorInfo, TensorSpec};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Hugging Face safetensors with every weight at full width: removed weights are stored zeros, rounded ones the nearest
/// float of the chosen type. Loads everywhere, saves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dense;

impl ExportFormat for Dense {
    fn name(&self) -> Cow<'static, str> {
        "dense".into()
    }

    fn check(&self, _: &ExportContext<'_>) -> Result<()> {
        Ok(())
    }

    fn holds_steps(&self) -> bool {
        true
    }

    fn planned_size(&self, context: &ExportContext<'_>) -> Result<PlannedSize> {
        let names = context.tensors().map(|info| info.name.as_str());
        planned_size(context, names.zip(plan(context)).collect())
    }

    fn stage(
        &self,
        context: &ExportContext<'_>,
        solved: &dyn SolvedLayers,
        destination: &Path,
    ) -> Result<StagedCheckpoint> {
        let source = context.source;
        let mut writer = CheckpointWriter::create(destination, plan(context), context.settings.write_options())?;
        for info in context.tensors() {
            write(context, solved, &mut writer, info)?;
        }
        let types: BTreeSet<DType> =
            context.tensors().filter(|info| !context.is_unused(info)).map(|info| stored_type(context, info)).collect();
        config::write_side_files(&mut writer, source, &types, None)?;
        Ok(writer.stage()?)
    }

    fn expected(&self, context: &ExportContext<'_>, tensor: &ExportTensor<'_>) -> Result<ArrayD<f32>> {
        Ok(match tensor {
            ExportTensor::Solved(shape, layer) => {
                let source = context.source.get(&shape.weight_name());
                round_all(
                    source.map_or(DType::F32, |info| stored_type(context, info)),
                    shape.as_stored(layer.weight.clone()),
                )
            }
            ExportTensor::Copied(info, values) => round_all(stored_type(context, info), values.to_owned()),
        })
    }

    fn engines(&self, _: &ExportContext<'_>) -> String {
        "Everything that loads Hugging Face safetensors loads it. Zeros and rounded weights are stored at full width: the \
         file is not smaller and runs no faster; what was saved shows only in a format that stores codes."
            .into()
    }
}

/// Writes a tensor of the source, or the layer that replaces it.
pub(super) fn write(
    context: &ExportContext<'_>,
    solved: &dyn SolvedLayers,
    writer: &mut CheckpointWriter,
    info: &TensorInfo,
) -> Result<()> {
    let Some(shape) = context.layer_of(&info.name) else {
        return copy(context, writer, &info.name, info.dtype, stored_type(context, info));
    };
    let layer = solved.layer(&shape.name)?;
    shape.check(&layer)?;
    Ok(writer.write_f32(&info.name, shape.as_stored(layer.weight).view())?)
}

/// How a tensor of the source is stored.
pub(super) fn spec(context: &ExportContext<'_>, info: &TensorInfo) -> TensorSpec {
    TensorSpec::new(&info.name, info.shape.clone(), stored_type(context, info))
}

/// The type a tensor of the source gets.
pub(super) fn stored_type(context: &ExportContext<'_>, info: &TensorInfo) -> DType {
    if context.is_unused(info) { info.dtype } else { context.settings.float_type.of(info.dtype) }
}

/// The tensors of the source, in its order.
fn plan(context: &ExportContext<'_>) -> Vec<TensorSpec> {
    context.tensors().map(|info| spec(context, info)).collect()
}

/// What these tensors take, each with the name of the tensor of the source that it stands for.
pub(super) fn planned_size(context: &ExportContext<'_>, plan: Vec<(&str, TensorSpec)>) -> Result<PlannedSize> {
    let mut tensors: BTreeMap<String, u64> = BTreeMap::new();
    for (name, spec) in &plan {
        *tensors.entry((*name).to_owned()).or_default() += spec.bytes()?;
    }
    let specs: Vec<TensorSpec> = plan.into_iter().map(|(_, spec)| spec).collect();
    let file_bytes = CheckpointWriter::file_bytes(&specs, &context.settings.write_options())?;
    Ok(PlannedSize { file_bytes, tensors })
}

/// Copies a tensor of the source, bytes as they are where the type stays.
pub(super) fn copy(
    context: &ExportContext<'_>,
    writer: &mut CheckpointWriter,
    name: &str,
    from: DType,
    to: DType,
) -> Result<()> {
    if from == to {
        writer.write_bytes(name, &context.source.read_bytes(name)?)?;
    } else {
        writer.write_f32(name, context.source.read(name)?.view())?;
    }
    Ok(())
}
