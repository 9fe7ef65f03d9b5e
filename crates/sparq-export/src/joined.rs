//! Layers as a checkpoint stores them. Solvers work on logical layers; where several of them are one tensor in the
//! checkpoint, formats are shown one layer in their place, so that none of them needs to know.

use crate::{Error, Result, SolvedLayers, SolvedShape};
use ndarray::{Axis, concatenate};
use sparq_core::{CodeLayout, Codes, CompressedLayer, Granularity, Mask, SolveReport};
use sparq_tensor::TensorPart;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// [`SolvedLayers`] with the parts of each tensor joined.
#[derive(Debug)]
pub(crate) struct Joined<'a> {
    solved: &'a dyn SolvedLayers,
    shapes: Vec<SolvedShape>,
    /// Names of the parts, in the order of their rows, by the joined layer's name.
    parts: BTreeMap<String, Vec<String>>,
}

impl<'a> Joined<'a> {
    /// Refuses, in the name of `format`, parts that cannot be one layer.
    pub(crate) fn new(solved: &'a dyn SolvedLayers, format: &str) -> Result<Self> {
        let joined = join(solved.layers(), format)?;
        let parts = joined.iter().map(|(shape, parts)| (shape.name.clone(), parts.clone())).collect();
        Ok(Self { solved, shapes: joined.into_iter().map(|(shape, _)| shape).collect(), parts })
    }
}

impl SolvedLayers for Joined<'_> {
    fn layers(&self) -> &[SolvedShape] {
        &self.shapes
    }

    fn tensors(&self) -> Option<PathBuf> {
        self.solved.tensors()
    }

    fn layer(&self, name: &str) -> Result<CompressedLayer> {
        let parts = self.parts.get(name).ok_or_else(|| Error::UnknownLayer { layer: name.to_owned() })?;
        match parts.as_slice() {
            [one] => self.solved.layer(one),
            several => {
                let layers = several.iter().map(|part| self.solved.layer(part)).collect::<Result<Vec<_>>>()?;
                concatenated(name, &layers)
            }
        }
    }
}

/// The layers that formats are shown, each with the names of its parts.
pub(crate) fn join(layers: &[SolvedShape], format: &str) -> Result<Vec<(SolvedShape, Vec<String>)>> {
    let mut groups: Vec<Vec<&SolvedShape>> = Vec::new();
    let mut by_tensor: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in layers {
        match layer.part.as_ref().map(|part| part.tensor.as_str()) {
            None => groups.push(vec![layer]),
            Some(tensor) => {
                let at = *by_tensor.entry(tensor).or_insert(groups.len());
                if at == groups.len() {
                    groups.push(Vec::new());
                }
                groups[at].push(layer);
            }
        }
    }
    groups.into_iter().map(|group| join_group(group, format)).collect()
}

fn join_group(mut group: Vec<&SolvedShape>, format: &str) -> Result<(SolvedShape, Vec<String>)> {
    let first = group[0];
    let Some(part) = &first.part else { return Ok((first.clone(), vec![first.name.clone()])) };
    let row = |layer: &SolvedShape| layer.part.as_ref().map_or(0, |part| part.first_row);
    group.sort_by_key(|layer| row(layer));
    let unfit = |layer: &SolvedShape, reason: String, instead: &str| {
        let (format, layer) = (format.to_owned(), layer.name.clone());
        Err(Error::Unfit { format, layer, reason, instead: instead.to_owned() })
    };
    let Some([rows, width]) = part.features() else {
        return unfit(first, format!("{} of shape {:?} holds no matrices", part.tensor, part.shape), "use its source");
    };
    let mut next = 0;
    for layer in &group {
        let is_here = layer.part.as_ref().is_some_and(|other| other.shape == part.shape) && layer.shape[1] == width;
        if !is_here || row(layer) != next {
            break;
        }
        next += layer.shape[0];
    }
    if next != rows {
        let reason = format!("it is a part of the tensor {}, of which another part was not compressed", part.tensor);
        return unfit(first, reason, "compress all parts of a tensor or none");
    }
    let differs = |layer: &&&SolvedShape| layer.codes != first.codes || layer.act_order != first.act_order;
    if let Some(other) = group.iter().find(differs) {
        let reason = format!("it is a part of the tensor {}, of which other parts have another grid", part.tensor);
        return unfit(other, reason, "solve all parts of a tensor on one grid");
    }
    if group.len() > 1 && first.codes == Some(CodeLayout::Steps) {
        let reason = format!("it is a part of the tensor {}, and each part has steps of its own", part.tensor);
        return unfit(first, reason, "solve with codes of fixed width, or write dense");
    }
    if group.len() > 1 && first.scheme().is_some_and(|scheme| scheme.granularity == Granularity::Tensor) {
        let reason = format!("it is a part of the tensor {}, and each part has a scale of its own", part.tensor);
        return unfit(first, reason, "solve with one scale per channel or in groups");
    }
    let whole = TensorPart { first_row: 0, ..part.clone() };
    let name = part.tensor.strip_suffix(".weight").unwrap_or(&part.tensor).to_owned();
    // What is stored as it is needs no mention of where.
    let is_plain = whole.is_whole([rows, width]) && part.tensor.ends_with(".weight");
    let shape = SolvedShape {
        name,
        shape: [rows, width],
        pruned: group.iter().any(|layer| layer.pruned),
        part: (!is_plain).then_some(whole),
        ..first.clone()
    };
    Ok((shape, group.into_iter().map(|layer| layer.name.clone()).collect()))
}

/// One layer below the other: rows are independent in weights, masks, codes, scales and zero points alike.
fn concatenated(name: &str, layers: &[CompressedLayer]) -> Result<CompressedLayer> {
    let bad = |_| Error::Inconsistent {
        layer: name.to_owned(),
        what: "the width of a part",
        found: "another".into(),
        expected: "that of the others".into(),
    };
    let weights: Vec<_> = layers.iter().map(|layer| layer.weight.view()).collect();
    let weight = concatenate(Axis(0), &weights).map_err(bad)?;
    let mask = if layers.iter().any(|layer| layer.mask.is_some()) {
        let masks: Vec<Mask> =
            layers.iter().map(|layer| layer.mask.clone().unwrap_or_else(|| Mask::all(layer.weight.dim()))).collect();
        let views: Vec<_> = masks.iter().map(Mask::view).collect();
        Some(Mask::new(concatenate(Axis(0), &views).map_err(bad)?))
    } else {
        None
    };
    let codes: Option<Vec<&Codes>> = layers.iter().map(|layer| layer.codes.as_ref()).collect();
    let codes = codes.and_then(|parts| Codes::stacked(&parts));
    Ok(CompressedLayer { weight, mask, codes, report: SolveReport::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SolvedInMemory;
    use ndarray::array;
    use sparq_core::{Bits, Grid, QuantScheme, Quantized};

    fn layer(codes: ndarray::Array2<u8>, scale: f32) -> CompressedLayer {
        let rows = codes.nrows();
        let quantized = Quantized {
            scheme: QuantScheme::new(Bits::B4),
            grids: ndarray::Array2::from_elem((rows, 1), Grid { scale, zero: 8 }),
            codes,
        };
        let weight = quantized.dequantize();
        CompressedLayer { weight, mask: None, codes: Some(Codes::Grid(quantized)), report: SolveReport::default() }
    }

    fn part(first_row: usize) -> TensorPart {
        TensorPart { first_row, ..TensorPart::whole("attn.qkv.weight", [3, 2]) }
    }

    fn parts(second: CompressedLayer, row: usize) -> SolvedInMemory {
        let mut solved = SolvedInMemory::default();
        solved.push_part("attn.qkv.v", second, part(row)).expect("consistent");
        solved.push("other", layer(array![[1, 2]], 1.0)).expect("consistent");
        solved.push_part("attn.qkv.q", layer(array![[1, 2], [3, 4]], 0.5), part(0)).expect("consistent");
        solved
    }

    #[test]
    fn rows_of_all_parts_make_one_layer() {
        let solved = parts(layer(array![[5, 6]], 2.0), 2);
        let joined = Joined::new(&solved, "dense").expect("all there");
        let names: Vec<&str> = joined.layers().iter().map(|shape| shape.name.as_str()).collect();
        assert_eq!(names, ["attn.qkv", "other"]);
        assert_eq!((joined.layers()[0].shape, &joined.layers()[0].part), ([3, 2], &None));
        let whole = joined.layer("attn.qkv").expect("joined");
        joined.layers()[0].check(&whole).expect("consistent");
        let quantized = whole.quantized().expect("codes");
        assert_eq!(quantized.codes, array![[1, 2], [3, 4], [5, 6]]);
        assert_eq!(quantized.scales(), array![[0.5], [0.5], [2.0]]);
        assert_eq!(quantized.dequantize(), whole.weight);
        assert!(joined.layer("attn.qkv.q").is_err());
    }

    #[test]
    fn parts_that_are_missing_or_differ_are_refused() {
        let refusal = |solved: &SolvedInMemory| Joined::new(solved, "gptq").expect_err("impossible").to_string();
        let message = refusal(&parts(layer(array![[5, 6]], 2.0), 1));
        assert!(message.contains("gptq") && message.contains("another part"), "{message}");
        let mut other = layer(array![[5, 6]], 2.0);
        if let Some(Codes::Grid(quantized)) = &mut other.codes {
            quantized.scheme = quantized.scheme.granularity(Granularity::Group(2));
        }
        let message = refusal(&parts(other, 2));
        assert!(message.contains("another grid") && message.contains("attn.qkv.weight"), "{message}");
    }
}
