//! The self-check: what was written, read by the reader that others' files go through, against the values in memory.

use crate::{Error, ExportContext, ExportFormat, ExportReport, ExportTensor, LayerCheck, Result, SolvedLayers};
use ndarray::ArrayD;
use sparq_tensor::{Checkpoint, StagedCheckpoint};
use std::collections::BTreeMap;

/// Opens what was staged and compares every tensor, one at a time.
pub(crate) fn verify(
    context: &ExportContext<'_>,
    solved: &dyn SolvedLayers,
    format: &dyn ExportFormat,
    staged: &StagedCheckpoint,
) -> Result<ExportReport> {
    let written = Checkpoint::open(staged.path())?;
    for tensor in written.tensors() {
        if !context.source.contains(&tensor.name) {
            let what = "not a tensor of the source".to_owned();
            return Err(Error::MismatchedTensors { tensor: tensor.name.clone(), what });
        }
    }
    let mut report = ExportReport {
        format: format.name().into_owned(),
        path: staged.path().to_path_buf(),
        stored_bytes: 0,
        sixteen_bit_bytes: 0,
        parameters: 0,
        layer_bytes: 0,
        layer_weights: 0,
        largest_difference: 0.0,
        zeros: 0,
        zeros_lost: 0,
        layers: Vec::new(),
        engines: format.engines(context),
    };
    let mut checks = BTreeMap::new();
    for info in context.source.tensors() {
        let Some(stored) = written.get(&info.name) else {
            return Err(Error::MismatchedTensors { tensor: info.name.clone(), what: "missing".into() });
        };
        if stored.shape != info.shape {
            let what = format!("of shape {:?}, expected {:?}", stored.shape, info.shape);
            return Err(Error::MismatchedTensors { tensor: info.name.clone(), what });
        }
        let elements = info.elements() as u64;
        report.stored_bytes += stored.bytes;
        report.sixteen_bit_bytes += 2 * elements;
        report.parameters += elements;
        let found = written.read(&info.name)?;
        if let Some(shape) = context.layer_of(&info.name) {
            let layer = solved.layer(&shape.name)?;
            let expected = format.expected(context, &ExportTensor::Solved(shape, &layer))?;
            compare(&info.name, &found, &expected)?;
            report.layer_bytes += stored.bytes;
            report.layer_weights += elements;
            checks.insert(shape.name.as_str(), check(&shape.name, &found, &shape.as_stored(layer.weight)));
        } else {
            let values = context.source.read(&info.name)?;
            let expected = format.expected(context, &ExportTensor::Copied(info, values.view()))?;
            compare(&info.name, &found, &expected)?;
        }
    }
    report.layers = context.layers.iter().filter_map(|layer| checks.remove(layer.name.as_str())).collect();
    for layer in &report.layers {
        report.largest_difference = report.largest_difference.max(layer.largest_difference);
        report.zeros += layer.zeros as u64;
        report.zeros_lost += layer.zeros_lost as u64;
    }
    Ok(report)
}

/// Bit by bit, but for the sign of zero: `-0.0` and `0.0` are the same weight.
fn compare(tensor: &str, found: &ArrayD<f32>, expected: &ArrayD<f32>) -> Result<()> {
    if found.shape() != expected.shape() {
        let what = format!("of shape {:?}, expected {:?}", found.shape(), expected.shape());
        return Err(Error::MismatchedTensors { tensor: tensor.to_owned(), what });
    }
    let differs = |(found, expected): (&f32, &f32)| found != expected;
    if !found.iter().zip(expected).any(differs) {
        return Ok(());
    }
    let mut pairs = found.indexed_iter().zip(expected);
    match pairs.find(|((_, found), expected)| found != expected) {
        None => Ok(()),
        Some(((index, &found), &expected)) => {
            let index = ndarray::Dimension::slice(&index).to_vec();
            Err(Error::Mismatch { tensor: tensor.to_owned(), index, expected, found })
        }
    }
}

fn check(name: &str, found: &ArrayD<f32>, memory: &ArrayD<f32>) -> LayerCheck {
    let mut check = LayerCheck { name: name.to_owned(), largest_difference: 0.0, zeros: 0, zeros_lost: 0 };
    for (&found, &memory) in found.iter().zip(memory) {
        check.largest_difference = check.largest_difference.max((found - memory).abs());
        if memory == 0.0 {
            check.zeros += 1;
            check.zeros_lost += usize::from(found != 0.0);
        }
    }
    check
}
