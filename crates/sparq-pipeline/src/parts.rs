//! A layer whose rows are solved by several processes.

use crate::Result;
use ndarray::{Array2, Axis, concatenate};
use serde::{Deserialize, Serialize};
use sparq_core::{
    CodeLayout, Codes, CompressedLayer, Grid, Mask, OutputError, QuantScheme, Quantized, Ranks, SolveReport, Stepped,
    message,
};
use std::ops::Range;

/// Rows that are solved to the same bits without those around them ([`LayerCompressor::is_by_row`](sparq_core::LayerCompressor::is_by_row)).
const UNIT: usize = 256;

/// Rows of a layer with so many that this process solves. `turn` moves the shares, so that small layers in a row are not all
/// the first process's.
pub(crate) fn rows(ranks: &Ranks, turn: usize, rows: usize, by_row: bool) -> Range<usize> {
    let units = if by_row { units(rows) } else { 1 };
    let size = ranks.size();
    let place = (ranks.rank() + turn) % size;
    let (start, end) = (place * units / size, (place + 1) * units / size);
    let row = |unit: usize| if unit == units { rows } else { unit * UNIT };
    row(start)..row(end)
}

/// The message of a process whose rows are not finite; shorter than any other.
const NOT_FINITE: &[u8] = &[0];

/// Units of so many rows; what is left over belongs to the last.
pub(crate) fn units(rows: usize) -> usize {
    (rows / UNIT).max(1)
}

/// Some rows of a layer, solved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) layer: CompressedLayer,
    /// For each band of rows.
    pub(crate) errors: Vec<OutputError>,
}

impl Part {
    /// The layer from its parts on all processes, in the order of rows; a process without rows has none. None if a part of one
    /// is not finite.
    pub(crate) fn gather(mine: Option<Self>, ranks: &Ranks, turn: usize) -> Result<Option<Self>> {
        let finite = mine.iter().flat_map(|part| &part.layer.weight).all(|value| value.is_finite());
        if ranks.is_alone() {
            return Ok(mine.filter(|_| finite));
        }
        let message = match &mine {
            Some(part) if finite => part.encode()?,
            Some(_) => NOT_FINITE.to_vec(),
            None => Vec::new(),
        };
        let messages = ranks.gather(message)?;
        if messages.iter().any(|message| message == NOT_FINITE) {
            return Ok(None);
        }
        let mut parts = Vec::new();
        // Whoever is at place 0 has the first rows.
        for place in 0..ranks.size() {
            let rank = (place + ranks.size() - turn % ranks.size()) % ranks.size();
            if let Some(message) = messages.get(rank).filter(|message| !message.is_empty()) {
                parts.push(Self::decode(message)?);
            }
        }
        Self::join(parts).map(Some)
    }

    /// One below the other.
    fn join(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        let weights: Vec<_> = parts.iter().map(|part| part.layer.weight.view()).collect();
        let weight = concatenate(Axis(0), &weights).map_err(|_| message::garbled())?;
        let masks: Option<Vec<_>> = parts.iter().map(|part| part.layer.mask.as_ref().map(Mask::view)).collect();
        let mask = masks
            .map(|masks| concatenate(Axis(0), &masks).map(Mask::new))
            .transpose()
            .map_err(|_| message::garbled())?;
        let of_parts: Option<Vec<&Quantized>> = parts.iter().map(|part| part.layer.quantized()).collect();
        let codes = match of_parts.as_deref() {
            Some(of_parts @ [first, ..]) => {
                let codes: Vec<_> = of_parts.iter().map(|part| part.codes.view()).collect();
                let grids: Vec<_> = of_parts.iter().map(|part| part.grids.view()).collect();
                let codes = concatenate(Axis(0), &codes).map_err(|_| message::garbled())?;
                let grids = concatenate(Axis(0), &grids).map_err(|_| message::garbled())?;
                Some(Codes::Grid(Quantized { scheme: first.scheme, codes, grids }))
            }
            _ => None,
        };
        let errors = parts.iter().flat_map(|part| part.errors.iter().copied()).collect();
        let report = SolveReport::of_rows(parts.into_iter().map(|part| part.layer.report));
        Ok(Self { layer: CompressedLayer { weight, mask, codes, report }, errors })
    }

    /// As a message. Weights are left out where codes say them.
    fn encode(&self) -> Result<Vec<u8>> {
        let CompressedLayer { weight, mask, codes, report } = &self.layer;
        let head = Head {
            shape: weight.dim(),
            codes: codes.as_ref().map(Codes::layout),
            pruned: mask.is_some(),
            bands: self.errors.len(),
            report: report.clone(),
        };
        let head = serde_json::to_vec(&head).map_err(|_| message::garbled())?;
        let mut bytes = Vec::new();
        message::put_count(&mut bytes, head.len() as u64);
        bytes.extend(head);
        match codes {
            Some(Codes::Grid(quantized)) => {
                bytes.extend(pack(quantized.codes.iter().copied(), width_of(quantized.scheme)));
                bytes.extend(quantized.grids.iter().map(|grid| grid.zero));
                message::put(&mut bytes, quantized.grids.iter().map(|grid| &grid.scale));
            }
            Some(Codes::Steps(stepped)) => {
                bytes.extend(stepped.codes.iter().flat_map(|code| code.to_le_bytes()));
                message::put(&mut bytes, stepped.rows.iter().chain(&stepped.columns));
            }
            None => message::put(&mut bytes, weight),
        }
        if let Some(mask) = mask {
            bytes.extend(pack(mask.view().iter().map(|&kept| u8::from(kept)), 1));
        }
        let numbers = self.errors.iter().flat_map(OutputError::to_array);
        numbers.for_each(|number| message::put_number(&mut bytes, number));
        Ok(bytes)
    }

    /// Undoes [`encode`](Self::encode).
    fn decode(mut bytes: &[u8]) -> Result<Self> {
        let bytes = &mut bytes;
        let length = message::take_count(bytes)? as usize;
        let head: Head = serde_json::from_slice(message::take_bytes(bytes, length)?).map_err(|_| message::garbled())?;
        let ((rows, width), count) = (head.shape, head.shape.0 * head.shape.1);
        let numbers = |bytes: &mut &[u8], count: usize| -> Result<Vec<f32>> {
            let mut values = vec![0.0; count];
            message::take(bytes, &mut values)?;
            Ok(values)
        };
        let codes = match head.codes {
            Some(CodeLayout::Grid(scheme)) => {
                let codes = array((rows, width), unpack(bytes, count, width_of(scheme))?)?;
                let groups = scheme.granularity.groups(width);
                let zeros = message::take_bytes(bytes, rows * groups)?;
                let scales = numbers(bytes, rows * groups)?;
                let grids = scales.into_iter().zip(zeros).map(|(scale, &zero)| Grid { scale, zero });
                Some(Codes::Grid(Quantized { scheme, codes, grids: array((rows, groups), grids.collect())? }))
            }
            Some(CodeLayout::Steps) => {
                let codes = message::take_bytes(bytes, 2 * count)?.chunks_exact(2);
                let codes = codes.map(|two| i16::from_le_bytes([two[0], two[1]])).collect();
                let (of_rows, columns) = (numbers(bytes, rows)?, numbers(bytes, width)?);
                Some(Codes::Steps(Stepped { codes: array((rows, width), codes)?, rows: of_rows, columns }))
            }
            Some(_) => return Err(message::garbled().into()),
            None => None,
        };
        let weight = match &codes {
            Some(codes) => codes.dequantize(),
            None => array((rows, width), numbers(bytes, count)?)?,
        };
        let mut mask = None;
        if head.pruned {
            let kept = unpack(bytes, count, 1)?.into_iter().map(|kept| kept == 1).collect();
            mask = Some(Mask::new(array((rows, width), kept)?));
        }
        let mut errors = Vec::with_capacity(head.bands);
        for _ in 0..head.bands {
            let mut values = [0.0; OutputError::NUMBERS];
            for value in &mut values {
                *value = message::take_number(bytes)?;
            }
            errors.push(OutputError::from_array(values));
        }
        Ok(Self { layer: CompressedLayer { weight, mask, codes, report: head.report }, errors })
    }
}

/// Bits that a code takes in a message: a divisor of 8.
fn width_of(scheme: QuantScheme) -> usize {
    usize::from(scheme.bits.get()).next_power_of_two()
}

/// Values of so many bits, which divide 8, side by side.
fn pack(values: impl Iterator<Item = u8>, bits: usize) -> Vec<u8> {
    let mut packed = Vec::new();
    for (index, value) in values.enumerate() {
        match (index * bits % 8, packed.last_mut()) {
            (shift @ 1.., Some(last)) => *last |= value << shift,
            _ => packed.push(value),
        }
    }
    packed
}

/// Undoes [`pack`].
fn unpack(message: &mut &[u8], count: usize, bits: usize) -> Result<Vec<u8>> {
    let bytes = message::take_bytes(message, (count * bits).div_ceil(8))?;
    let mask = u8::MAX >> (8 - bits);
    Ok((0..count).map(|index| bytes[index * bits / 8] >> (index * bits % 8) & mask).collect())
}

/// What a message begins with.
#[derive(Serialize, Deserialize)]
struct Head {
    shape: (usize, usize),
    codes: Option<CodeLayout>,
    pruned: bool,
    bands: usize,
    report: SolveReport,
}

fn array<T>(shape: (usize, usize), values: Vec<T>) -> Result<Array2<T>> {
    Array2::from_shape_vec(shape, values).map_err(|_| message::garbled().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};
    use sparq_core::{Bits, Curvature, Damping, LayerCompressor, LayerProblem, Solver, Sparsity};
    use sparq_prune::Obs;
    use sparq_quant::{Gptq, Step};

    /// Values without a pattern.
    fn noise(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(row, column)| ((seed * 7919 + row * 127 + column) as f32 * 12.9).sin())
    }

    #[test]
    fn rows_are_shared_in_whole_units() {
        let of = |size: usize, turn, count, by_row| {
            let ranks = Ranks::in_threads(size);
            ranks.iter().map(|ranks| rows(ranks, turn, count, by_row)).collect::<Vec<_>>()
        };
        assert_eq!(of(2, 0, 576, true), [0..256, 256..576]);
        assert_eq!(of(2, 1, 576, true), [256..576, 0..256]);
        assert_eq!(of(3, 0, 100, true), [0..0, 0..0, 0..100]);
        assert_eq!(of(4, 0, 2048, true), [0..512, 512..1024, 1024..1536, 1536..2048]);
        assert_eq!(of(1, 7, 300, true).iter().map(Range::len).collect::<Vec<_>>(), [300]);
        assert_eq!(of(3, 2, 2048, false).iter().map(Range::len).collect::<Vec<_>>(), [2048, 0, 0]);
    }

    /// Every setting whose rows are solved each by itself.
    #[test]
    fn rows_alone_have_the_bits_that_they_have_together() {
        let (height, width) = (1000, 96);
        let inputs = noise(400, 5, 1).dot(&noise(5, width, 2)) + 0.3 * noise(400, width, 3);
        let curvature = Curvature::of_inputs(inputs.view()).expect("small");
        let curvature = curvature.with_damping(Damping::new(0.01).expect("valid")).act_order(true);
        let weight = noise(height, width, 4);
        let scheme = QuantScheme::new(Bits::B3).group(32).expect("valid");
        let quarter = Sparsity::unstructured(0.25).expect("valid");
        let solvers = [
            Solver::new().prune(Obs::new(quarter)).quantize(Gptq::new(scheme)).refit(5).mask_rounds(2).descent(3),
            Solver::new().quantize(Gptq::new(scheme.asymmetric())).descent(1),
            Solver::new().prune(Obs::new(quarter)),
        ];
        for solver in solvers {
            assert!(solver.is_by_row());
            let solve = |rows: Range<usize>| {
                let part = weight.slice(s![rows, ..]);
                let layer =
                    solver.compress(&LayerProblem::new("demo", part, &curvature).expect("fits")).expect("solved");
                let errors = OutputError::of_bands(part, layer.weight.view(), curvature.hessian());
                Part { layer, errors }
            };
            let whole = solve(0..height);
            for size in 1..=4 {
                let ranks = Ranks::in_threads(size);
                let gathered: Vec<Part> = std::thread::scope(|scope| {
                    let solve = &solve;
                    let threads: Vec<_> = (ranks.iter())
                        .map(|ranks| {
                            scope.spawn(move || {
                                let rows = rows(ranks, 1, height, true);
                                let mine = (!rows.is_empty()).then(|| solve(rows));
                                Part::gather(mine, ranks, 1).expect("gathered").expect("finite")
                            })
                        })
                        .collect();
                    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
                });
                assert!(gathered.iter().all(|part| *part == whole), "{size} ranks, {}", solver.name());
            }
        }
    }

    #[test]
    fn codes_at_a_rate_come_back_from_a_message() {
        let (weight, curvature) = (noise(40, 64, 1), Curvature::of_inputs(noise(200, 64, 2).view()).expect("small"));
        let solver = Solver::new().quantize(Step::new(2.5).expect("valid"));
        assert!(!solver.is_by_row());
        let layer = solver.compress(&LayerProblem::new("demo", weight.view(), &curvature).expect("fits"));
        let layer = layer.expect("solved");
        let errors = OutputError::of_bands(weight.view(), layer.weight.view(), curvature.hessian());
        let part = Part { layer, errors };
        let message = part.encode().expect("encoded");
        assert_eq!(Part::decode(&message).expect("decoded"), part);
        assert!(Part::decode(&message[..message.len() - 1]).is_err() && Part::decode(&[]).is_err());
    }
}
