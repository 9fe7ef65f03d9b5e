//! The self-check: what was written, read by the reader that others' files go through, against the values in memory.

use crate::{Error, ExportContext, ExportFormat, ExportReport, ExportTensor, LayerCheck, Result, SolvedLayers};
use ndarray::ArrayD;
use rayon::prelude::*;
use sparq_tensor::{Checkpoint, StagedCheckpoint, TensorInfo, TensorPart};
use std::collections::{BTreeMap, BTreeSet};

/// Values compared at a time, unless a single tensor that cannot be taken apart has more.
const ELEMENTS_AT_ONCE: usize = 4 << 20;

/// Opens what was staged and compares every tensor, few at a time.
pub(crate) fn verify(
    context: &ExportContext<'_>,
    solved: &dyn SolvedLayers,
    format: &dyn ExportFormat,
    staged: &StagedCheckpoint,
) -> Result<ExportReport> {
    let written = Checkpoint::open_with(staged.path(), context.source.families())?;
    let presented: Vec<(&TensorInfo, String)> = {
        let name = |info| Some((info, format.presented_name(context, info)?));
        context.tensors().filter_map(name).collect()
    };
    let expected: BTreeSet<&str> = presented.iter().map(|(_, name)| name.as_str()).collect();
    for tensor in written.tensors() {
        if !expected.contains(tensor.name.as_str()) {
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
        unused: context.source.tensors().filter(|info| context.is_unused(info)).map(|info| info.name.clone()).collect(),
        remarks: context.source.remarks().to_vec(),
    };
    let mut checks = BTreeMap::new();
    for group in groups(&presented) {
        let read_back =
            |(info, name): &(&TensorInfo, String)| read_back(context, solved, format, (&written, name), info);
        for ((info, _), read) in group.iter().zip(group.par_iter().map(read_back).collect::<Vec<_>>()) {
            let (stored_bytes, layer) = read?;
            let elements = info.elements() as u64;
            report.stored_bytes += stored_bytes;
            report.sixteen_bit_bytes += 2 * elements;
            report.parameters += elements;
            if let Some(layer) = layer {
                report.layer_bytes += stored_bytes;
                report.layer_weights += elements;
                checks.insert(layer.name.clone(), layer);
            }
        }
    }
    report.layers = context.layers.iter().filter_map(|layer| checks.remove(&layer.name)).collect();
    for layer in &report.layers {
        report.largest_difference = report.largest_difference.max(layer.largest_difference);
        report.zeros += layer.zeros as u64;
        report.zeros_lost += layer.zeros_lost as u64;
    }
    Ok(report)
}

/// Reads back what `info` was written as, by its name there: its stored bytes, and how it compares with the solver's weight if it is a layer.
fn read_back(
    context: &ExportContext<'_>,
    solved: &dyn SolvedLayers,
    format: &dyn ExportFormat,
    (written, name): (&Checkpoint, &str),
    info: &TensorInfo,
) -> Result<(u64, Option<LayerCheck>)> {
    let Some(stored) = written.get(name) else {
        return Err(Error::MismatchedTensors { tensor: info.name.clone(), what: "missing".into() });
    };
    if stored.shape != info.shape {
        let what = format!("of shape {:?}, expected {:?}", stored.shape, info.shape);
        return Err(Error::MismatchedTensors { tensor: info.name.clone(), what });
    }
    let Some(shape) = context.layer_of(&info.name) else {
        compare_carried(context, format, (written, name), info, ELEMENTS_AT_ONCE)?;
        return Ok((stored.bytes, None));
    };
    let found = written.read(name)?;
    let layer = solved.layer(&shape.name)?;
    let expected = format.expected(context, &ExportTensor::Solved(shape, &layer))?;
    compare(&info.name, 0, &found, &expected)?;
    Ok((stored.bytes, Some(check(&shape.name, &found, &shape.as_stored(layer.weight)))))
}

/// Reads a tensor that was carried over on both sides: of a large matrix, such as an embedding, a few rows at a time.
fn compare_carried(
    context: &ExportContext<'_>,
    format: &dyn ExportFormat,
    (written, name): (&Checkpoint, &str),
    info: &TensorInfo,
    elements_at_once: usize,
) -> Result<()> {
    if context.is_unused(info) {
        // Bytes are all that is known of it: it may have no values as f32.
        let same = written.read_bytes(name)? == context.source.read_bytes(&info.name)?;
        let differs =
            || Error::MismatchedTensors { tensor: info.name.clone(), what: "another than that of the source".into() };
        return if same { Ok(()) } else { Err(differs()) };
    }
    let expected = |values: ArrayD<f32>| format.expected(context, &ExportTensor::Copied(info, values.view()));
    let large = info.elements() > elements_at_once;
    let apart = large && info.packing.is_none() && format.rows_stand_alone(context, info);
    let (true, &[rows, width]) = (apart, info.shape.as_slice()) else {
        return compare(&info.name, 0, &written.read(name)?, &expected(context.source.read(&info.name)?)?);
    };
    let step = (elements_at_once / rayon::current_num_threads() / width).max(1);
    let compare_rows = |index: usize| {
        let first_row = index * step;
        let count = step.min(rows - first_row);
        let part = |tensor: &str| TensorPart { first_row, ..TensorPart::whole(tensor, [rows, width]) };
        let found = written.read_part(&part(name), count)?.into_dyn();
        let values = context.source.read_part(&part(&info.name), count)?.into_dyn();
        compare(&info.name, first_row, &found, &expected(values)?)
    };
    // All of them, so that the first place that differs is named whatever thread finds one first.
    let compared: Vec<Result<()>> = (0..rows.div_ceil(step)).into_par_iter().map(compare_rows).collect();
    compared.into_iter().collect()
}

/// Neighbouring tensors that are looked at together, without more of them in memory than a large one takes alone.
fn groups<'a, 'b>(tensors: &'b [(&'a TensorInfo, String)]) -> Vec<&'b [(&'a TensorInfo, String)]> {
    let (mut groups, mut rest) = (Vec::new(), tensors);
    while !rest.is_empty() {
        let mut elements = 0_usize;
        let within = |(info, _): &&(&TensorInfo, String)| {
            elements = elements.saturating_add(info.elements());
            elements <= ELEMENTS_AT_ONCE
        };
        let (group, after) = rest.split_at(rest.iter().take_while(within).count().max(1));
        groups.push(group);
        rest = after;
    }
    groups
}

/// Bit by bit, but for the sign of zero: `-0.0` and `0.0` are the same weight. These are a tensor's rows from `first_row` on.
fn compare(tensor: &str, first_row: usize, found: &ArrayD<f32>, expected: &ArrayD<f32>) -> Result<()> {
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
            let mut index = ndarray::Dimension::slice(&index).to_vec();
            index.iter_mut().take(1).for_each(|row| *row += first_row);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dense, ExportSettings};
    use ndarray::Array2;
    use sparq_tensor::{TensorData, write_safetensors_file};

    fn checkpoint(directory: &std::path::Path, embedding: &Array2<f32>) -> Checkpoint {
        let file = directory.join("model.safetensors");
        let tensors = [("embed.weight", TensorData::F32(embedding.view().into_dyn()))];
        write_safetensors_file(&file, &tensors).expect("written");
        Checkpoint::open(&file).expect("a checkpoint")
    }

    #[test]
    fn rows_of_a_large_matrix_are_compared_apart_and_the_first_that_differs_is_named() {
        let (here, there) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let embedding = Array2::from_shape_fn((37, 5), |(row, column)| (row * 5 + column) as f32);
        let source = checkpoint(here.path(), &embedding);
        let settings = ExportSettings::default();
        let context = ExportContext::new(&source, &[], &settings);
        let info = source.get("embed.weight").expect("there");
        let compared = |embedding: &Array2<f32>, at_once| {
            let written = checkpoint(there.path(), embedding);
            compare_carried(&context, &Dense, (&written, "embed.weight"), info, at_once)
        };
        let mut damaged = embedding.clone();
        (damaged[[23, 4]], damaged[[36, 0]]) = (-1.0, -1.0);
        for at_once in [1, 12, 40, 1000] {
            compared(&embedding, at_once).expect("the same");
            let error = compared(&damaged, at_once).expect_err("another");
            assert!(matches!(&error, Error::Mismatch { index, .. } if *index == [23, 4]), "{at_once}: {error}");
        }
    }
}
