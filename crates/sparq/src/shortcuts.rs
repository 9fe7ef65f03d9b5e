use crate::Result;
use ndarray::ArrayView2;
use sparq_core::{Hessian, Statistics};
use sparq_export::ExportFormat;
use sparq_model::Model;
use sparq_obs::HessianAccumulator;
use sparq_pipeline::{Calibration, CompressionReport, Done, Job, MemorySink, Observer, Recipe};
use std::path::Path;

/// The Hessian of a linear layer from its `inputs`, `[tokens, in]`.
///
/// # Errors
/// [`Error::Compress`](crate::Error::Compress) if the matrix cannot be held.
///
/// # Examples
/// ```
/// use ndarray::array;
/// let hessian = sparq::calibrate(array![[1.0_f32, 2.0], [0.0, 1.0]].view())?;
/// assert_eq!(hessian.diagonal(), Some(array![1.0, 5.0]));
/// # Ok::<(), sparq::Error>(())
/// ```
pub fn calibrate(inputs: ArrayView2<'_, f32>) -> Result<Hessian> {
    let mut accumulator = HessianAccumulator::new(inputs.ncols(), Statistics::Hessian)?;
    accumulator.add(inputs)?;
    Ok(accumulator.finish())
}

/// Compresses `model` into a checkpoint at `destination` in `format`, such as [`Dense`](crate::export::Dense). The output
/// appears whole or not at all; an interrupted call continues when it is made again (see
/// [`Job`](crate::pipeline::Job), which has more settings).
///
/// # Errors
/// [`Error::Pipeline`](crate::Error::Pipeline).
pub fn compress_checkpoint(
    model: &Model,
    recipe: &Recipe,
    calibration: Option<&Calibration>,
    destination: impl AsRef<Path>,
    format: &dyn ExportFormat,
    observer: &dyn Observer,
) -> Result<Done> {
    Ok(Job::new(model, recipe, destination.as_ref()).calibration(calibration).run(format, observer)?)
}

/// Compresses `model` in memory, ready to be evaluated; needs room for all its blocks as `f32`.
///
/// # Errors
/// [`Error::Pipeline`](crate::Error::Pipeline).
pub fn compress_in_memory(
    model: &Model,
    recipe: &Recipe,
    calibration: Option<&Calibration>,
    observer: &dyn Observer,
) -> Result<(Model, CompressionReport)> {
    let mut sink = MemorySink::new();
    let report = sparq_pipeline::compress(model, recipe, calibration, &mut sink, observer)?;
    Ok((sink.into_model(model)?, report))
}
