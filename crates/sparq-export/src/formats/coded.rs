use super::dense::{Dense, spec, stored_type, write};
use super::packed::check_layout;
use crate::float_type::scale_dtype;
use crate::{Error, ExportContext, ExportFormat, ExportTensor, Result, SolvedLayers, SolvedShape, config};
use ndarray::ArrayD;
use sparq_core::{CodeLayout, Codes, Granularity, QuantScheme};
use sparq_tensor::codec::coded::{CodedGrid, CodedWeight, quantization_config, step_specs};
use sparq_tensor::{CheckpointWriter, DType, PlannedSize, StagedCheckpoint, TensorInfo, TensorSpec};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

const NAME: &str = "coded";

/// sparq's own: safetensors in a Hugging Face directory in which codes are entropy-coded, each in as many bits as it is rare.
///
/// It holds what every solver leaves, without loss: codes of fixed width on grids as well as codes without a width. What it
/// takes is known once the codes are. sparq reads it wherever a checkpoint goes; docs/formats.md says how others can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coded;

impl ExportFormat for Coded {
    fn name(&self) -> Cow<'static, str> {
        NAME.into()
    }

    fn check(&self, context: &ExportContext<'_>) -> Result<()> {
        coded(context).try_for_each(|shape| check_layout(shape, NAME))
    }

    fn planned_size(&self, context: &ExportContext<'_>) -> Result<PlannedSize> {
        let layer = context.layers.first().map_or_else(String::new, |layer| layer.name.clone());
        let reason = "how long codes are when they are coded is known once there are codes".to_owned();
        let instead = "give a rate instead of a width".to_owned();
        Err(Error::Unfit { format: NAME.into(), layer, reason, instead })
    }

    fn holds_steps(&self) -> bool {
        true
    }

    fn stage(
        &self,
        context: &ExportContext<'_>,
        solved: &dyn SolvedLayers,
        destination: &Path,
    ) -> Result<StagedCheckpoint> {
        // A layer is encoded twice: for its size, on which places in the file depend, and to be written.
        let mut specs = Vec::new();
        for info in context.tensors() {
            match coded_layer(context, info) {
                Some(shape) => specs.extend(encode(shape, solved)?.into_iter().map(|(spec, _)| spec)),
                None => specs.push(spec(context, info)),
            }
        }
        let mut writer = CheckpointWriter::create(destination, specs, context.settings.write_options())?;
        for info in context.tensors() {
            let Some(shape) = coded_layer(context, info) else {
                write(context, solved, &mut writer, info)?;
                continue;
            };
            for (spec, bytes) in encode(shape, solved)? {
                writer.write_bytes(&spec.name, &bytes)?;
            }
        }
        let is_float = |info: &&TensorInfo| !context.is_unused(info) && context.layer_of(&info.name).is_none();
        let types: BTreeSet<DType> =
            context.tensors().filter(is_float).map(|info| stored_type(context, info)).collect();
        let quantization = quantization_config(&grids(context));
        config::write_side_files(&mut writer, context.source, &types, Some(&quantization))?;
        Ok(writer.stage()?)
    }

    fn expected(&self, context: &ExportContext<'_>, tensor: &ExportTensor<'_>) -> Result<ArrayD<f32>> {
        match tensor {
            ExportTensor::Solved(_, layer) if layer.codes.is_some() => Ok(layer.weight.clone().into_dyn()),
            _ => Dense.expected(context, tensor),
        }
    }

    fn engines(&self, _: &ExportContext<'_>) -> String {
        "sparq evaluates, generates from and exports it; no other engine reads it. Codes take the bits of their entropy: \
         zeros and small codes are what makes the file smaller."
            .into()
    }
}

impl Coded {
    /// Bytes of the weight files besides what codes, factors, scales and zero points take: headers, and what is carried over.
    pub(crate) fn bytes_besides_codes(context: &ExportContext<'_>) -> Result<u64> {
        let mut specs = Vec::new();
        let mut left_out = 0;
        for info in context.tensors() {
            let Some(shape) = coded_layer(context, info) else {
                specs.push(spec(context, info));
                continue;
            };
            // The header says how long a stream is: as many digits as it will have.
            let [rows, width] = shape.shape;
            for spec in step_specs(&shape.name, shape.shape, rows * width / 2) {
                left_out += spec.bytes()?;
                specs.push(spec);
            }
        }
        Ok(CheckpointWriter::file_bytes(&specs, &context.settings.write_options())?.saturating_sub(left_out))
    }
}

/// Layers that have codes.
fn coded<'a>(context: &ExportContext<'a>) -> impl Iterator<Item = &'a SolvedShape> {
    context.layers.iter().filter(|shape| shape.codes.is_some())
}

/// The layer with codes that replaces a tensor of the source.
fn coded_layer<'a>(context: &ExportContext<'a>, info: &TensorInfo) -> Option<&'a SolvedShape> {
    context.layer_of(&info.name).filter(|shape| shape.codes.is_some())
}

/// The tensors of a layer that has codes.
fn encode(shape: &SolvedShape, solved: &dyn SolvedLayers) -> Result<Vec<(TensorSpec, Vec<u8>)>> {
    let layer = solved.layer(&shape.name)?;
    shape.check(&layer)?;
    match &layer.codes {
        Some(Codes::Steps(stepped)) => {
            let weight =
                CodedWeight::Steps { codes: stepped.codes.view(), rows: &stepped.rows, steps: &stepped.columns };
            Ok(weight.encode(&shape.name)?)
        }
        Some(Codes::Grid(quantized)) => {
            let (steps, scales, zeros) = (quantized.steps(), quantized.scales(), quantized.zeros());
            let weight = CodedWeight::Groups {
                codes: steps.view(),
                scales: scales.view(),
                scale_type: scale_dtype(quantized.scheme.scale_type).unwrap_or(DType::F32),
                zeros: (!quantized.scheme.symmetric).then(|| zeros.view()),
            };
            Ok(weight.encode(&shape.name)?)
        }
        None => Ok(Vec::new()),
    }
}

/// The grids of layers that have one, with their modules.
fn grids(context: &ExportContext<'_>) -> Vec<CodedGrid> {
    let mut grids: Vec<CodedGrid> = Vec::new();
    for shape in coded(context) {
        let Some(CodeLayout::Grid(QuantScheme { bits, granularity, .. })) = shape.codes else { continue };
        let group_size = match granularity {
            Granularity::Group(size) => Some(size),
            _ => None,
        };
        let bits = bits.get();
        match grids.iter_mut().find(|grid| (grid.bits, grid.group_size) == (bits, group_size)) {
            Some(grid) => grid.modules.push(shape.name.clone()),
            None => grids.push(CodedGrid { bits, group_size, modules: vec![shape.name.clone()] }),
        }
    }
    grids
}
