use crate::joined::{Joined, join};
use crate::{
    Coded, Error, ExportContext, ExportFormat, ExportReport, ExportSettings, ExportTensor, Result, SolvedLayers,
    SolvedShape, verify,
};
use ndarray::Array2;
use sparq_core::CodeLayout;
use sparq_tensor::{Checkpoint, PlannedSize};
use std::collections::BTreeSet;
use std::path::Path;

/// Writes `source` with its compressed layers in `format`.
///
/// Layers that the source stores as one tensor go back into one: their rows are put together, code by code.
///
/// What is impossible is refused before any work. Everything is written beside `destination`, opened again, and
/// compared value by value with what the solver left; only then does it appear, whole. Same input, same bytes.
///
/// # Errors
/// [`Error::Unfit`] if the format cannot hold the layers; [`Error::NotInSource`] if they belong to another checkpoint;
/// [`Error::Mismatch`] if the self-check fails; [`Error::Tensor`], for one if the destination exists or is what is read
/// from. After an error nothing is left at the destination, and what was there is as it was.
///
/// See the [crate example](crate).
pub fn export(
    source: &Checkpoint,
    solved: &dyn SolvedLayers,
    format: &dyn ExportFormat,
    destination: impl AsRef<Path>,
    settings: &ExportSettings,
) -> Result<ExportReport> {
    sparq_tensor::check_apart(destination.as_ref(), source.path())?;
    let replaced = match solved.tensors() {
        Some(file) => Some(Checkpoint::open_with(source.path(), source.families())?.replacing(file)?),
        None => None,
    };
    let source = replaced.as_ref().unwrap_or(source);
    let joined = Joined::new(solved, &format.name())?;
    let context = checked(source, joined.layers(), format, settings)?;
    let staged = format.stage(&context, &joined, destination.as_ref())?;
    let mut report = verify::verify(&context, &joined, format, &staged)?;
    report.path = staged.publish()?.path;
    Ok(report)
}

/// Refuses what [`export`] would refuse before any work: for callers that have not solved the layers yet.
///
/// # Errors
/// [`Error::Unfit`], [`Error::NotInSource`], [`Error::DuplicateLayer`].
pub fn check(
    source: &Checkpoint,
    layers: &[SolvedShape],
    format: &dyn ExportFormat,
    settings: &ExportSettings,
) -> Result<()> {
    let layers = joined(layers, format)?;
    checked(source, &layers, format, settings).map(drop)
}

/// Refuses values that no export can hold, in every tensor of `source` that its model reads: a pass over its files, worth
/// while before hours of solving.
///
/// # Errors
/// [`Error::Tensor`] for the first NaN or infinity by the name of its tensor, with the file it is in.
pub fn check_values(source: &Checkpoint) -> Result<()> {
    let mut read = source.tensors().filter(|info| !source.unused().contains(&info.name));
    Ok(read.try_for_each(|info| source.check_finite(&info.name))?)
}

/// What [`export`] would write, known before any layer is solved.
///
/// # Errors
/// Those of [`check`].
pub fn planned_size(
    source: &Checkpoint,
    layers: &[SolvedShape],
    format: &dyn ExportFormat,
    settings: &ExportSettings,
) -> Result<PlannedSize> {
    let layers = joined(layers, format)?;
    format.planned_size(&checked(source, &layers, format, settings)?)
}

/// What a reader of the format makes of a matrix of the source that is carried over beside these layers.
///
/// # Errors
/// Those of [`check`], and what reading the matrix gives.
pub fn carried_over(
    source: &Checkpoint,
    layers: &[SolvedShape],
    format: &dyn ExportFormat,
    settings: &ExportSettings,
    tensor: &str,
) -> Result<Array2<f32>> {
    let layers = joined(layers, format)?;
    let context = checked(source, &layers, format, settings)?;
    let values = source.read_matrix(tensor)?;
    let Some(info) = source.get(tensor) else { return Ok(values) };
    let written = format.expected(&context, &ExportTensor::Copied(info, values.view().into_dyn()))?;
    let matrix = written.into_dimensionality();
    matrix.map_err(|_| Error::MismatchedTensors { tensor: tensor.to_owned(), what: "no matrix".into() })
}

/// Bytes of the weight files of a [`Coded`] checkpoint besides what these layers take: what a size is to be met with.
///
/// # Errors
/// Those of [`check`].
pub fn bytes_besides_codes(source: &Checkpoint, layers: &[SolvedShape], settings: &ExportSettings) -> Result<u64> {
    let layers = joined(layers, &Coded)?;
    Coded::bytes_besides_codes(&checked(source, &layers, &Coded, settings)?)
}

/// The layers as tensors of the source.
fn joined(layers: &[SolvedShape], format: &dyn ExportFormat) -> Result<Vec<SolvedShape>> {
    Ok(join(layers, &format.name())?.into_iter().map(|(shape, _)| shape).collect())
}

fn checked<'a>(
    source: &'a Checkpoint,
    layers: &'a [SolvedShape],
    format: &dyn ExportFormat,
    settings: &'a ExportSettings,
) -> Result<ExportContext<'a>> {
    let mut names = BTreeSet::new();
    for layer in layers {
        if source.get(&layer.weight_name()).is_none_or(|tensor| tensor.shape != layer.stored_shape()) {
            return Err(Error::NotInSource { layer: layer.name.clone(), shape: layer.shape });
        }
        if !names.insert(layer.name.as_str()) {
            return Err(Error::DuplicateLayer { layer: layer.name.clone() });
        }
    }
    let has_steps = |layer: &&SolvedShape| layer.codes == Some(CodeLayout::Steps);
    if let Some(layer) = layers.iter().find(has_steps).filter(|_| !format.holds_steps()) {
        let (format, layer) = (format.name().into_owned(), layer.name.clone());
        let reason = "its codes have no fixed width".to_owned();
        return Err(Error::Unfit {
            format,
            layer,
            reason,
            instead: "use coded or dense, or solve with q=4".to_owned(),
        });
    }
    let context = ExportContext::new(source, layers, settings);
    format.check(&context)?;
    Ok(context)
}
