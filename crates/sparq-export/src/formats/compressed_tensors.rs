use super::dense::planned_size;
use super::packed::{
    self, Parts, check_any_codes, check_groups, check_layout, computed_in, float_linears, fused_siblings, holds,
    little_endian, schemes, uniform_type,
};
use crate::float_type::round_all;
use crate::{Error, ExportContext, ExportFormat, ExportTensor, Result, SolvedLayers, SolvedShape};
use ndarray::{ArrayD, arr1};
use serde_json::{Value, json};
use sparq_core::{Granularity, QuantScheme, Quantized};
use sparq_tensor::codec::compressed_tensors::{WordLayout, pack_weight, pack_zero_points};
use sparq_tensor::{CheckpointWriter, DType, PlannedSize, StagedCheckpoint, TensorSpec};
use std::borrow::Cow;
use std::path::Path;

const NAME: &str = "compressed-tensors pack-quantized";

/// compressed-tensors, `pack-quantized`: integer weights with floating-point activations, read by transformers (with the
/// package compressed-tensors) and vLLM.
///
/// The whole checkpoint has one float type, since the format computes values in the type of the scales: codes are exact
/// always, the values of an F32 checkpoint too, those of a half-precision one are rounded once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompressedTensors {
    /// Whether widths other than 2, 4 and 8 bits may be written. Their layout changed with version 0.18 of the format's
    /// library: older readers get noise or an error.
    pub any_width: bool,
}

impl ExportFormat for CompressedTensors {
    fn name(&self) -> Cow<'static, str> {
        NAME.into()
    }

    fn check(&self, context: &ExportContext<'_>) -> Result<()> {
        check_any_codes(context, NAME)?;
        context.layers.iter().try_for_each(|shape| check_layout(shape, NAME))?;
        let dtype = uniform_type(context);
        for (shape, scheme) in schemes(context) {
            let unfit = |reason: String, instead: &str| {
                Err(Error::Unfit { format: NAME.into(), layer: shape.name.clone(), reason, instead: instead.into() })
            };
            check_groups(shape, scheme, NAME)?;
            let bits = scheme.bits.get();
            if !matches!(bits, 2 | 4 | 8) && !self.any_width {
                let reason = format!("{bits}-bit words have another layout before version 0.18 of its library");
                return match bits {
                    3 => unfit(reason, "use gptq, or ask for any width if every reader is newer"),
                    5 => unfit(reason, "use gguf with groups of 32, or ask for any width if every reader is newer"),
                    _ => unfit(reason, "solve with 4 or 8 bits, or ask for any width if every reader is newer"),
                };
            }
            if !holds(dtype, scheme.scale_type) {
                let reason =
                    format!("its {:?} scales are not exact in a checkpoint of type {dtype}", scheme.scale_type);
                return unfit(
                    reason,
                    "write floats in the type of the scales or in f32, or solve with scales in that type",
                );
            }
        }
        Ok(())
    }

    fn planned_size(&self, context: &ExportContext<'_>) -> Result<PlannedSize> {
        let dtype = uniform_type(context);
        planned_size(context, packed::plan(context, dtype, &Layout { dtype }))
    }

    fn stage(
        &self,
        context: &ExportContext<'_>,
        solved: &dyn SolvedLayers,
        destination: &Path,
    ) -> Result<StagedCheckpoint> {
        let dtype = uniform_type(context);
        packed::stage(context, solved, destination, dtype, &Layout { dtype }, &quantization_config(context), None)
    }

    fn expected(&self, context: &ExportContext<'_>, tensor: &ExportTensor<'_>) -> Result<ArrayD<f32>> {
        let dtype = uniform_type(context);
        Ok(match tensor {
            ExportTensor::Solved(_, layer) => match layer.quantized() {
                Some(quantized) => computed_in(dtype, quantized).into_dyn(),
                None => round_all(dtype, layer.weight.clone().into_dyn()),
            },
            ExportTensor::Copied(info, values) => {
                round_all(packed::kept_dtype(context, info, dtype), values.to_owned())
            }
        })
    }

    fn engines(&self, context: &ExportContext<'_>) -> String {
        let mut text = String::from(
            "transformers loads it with the package compressed-tensors, vLLM with its own kernels (4 and 8 bits, groups \
             of 32, 64, 128 or whole channels). Codes are stored at their width; zeros of pruned weights stay exact but \
             take the same space, and no engine skips them.",
        );
        if schemes(context).any(|(_, scheme)| !scheme.symmetric) {
            text.push_str(" Zero points are read by version 0.13 of the package and later.");
        }
        if schemes(context).any(|(_, scheme)| !matches!(scheme.bits.get(), 2 | 4 | 8)) {
            text.push_str(" Its widths need version 0.18 of the package or later.");
        }
        text + &fused_siblings(context)
    }
}

struct Layout {
    dtype: DType,
}

impl Parts for Layout {
    fn specs(&self, shape: &SolvedShape, scheme: QuantScheme) -> Vec<TensorSpec> {
        let [rows, width] = shape.shape;
        let bits = u32::from(scheme.bits.get());
        let name = |suffix| format!("{}.{suffix}", shape.name);
        let words = |count| WordLayout::Dense.words(count, bits);
        let groups = scheme.granularity.groups(width);
        let is_tensor = scheme.granularity == Granularity::Tensor;
        let scale_shape = if is_tensor { vec![1] } else { vec![rows, groups] };
        let mut specs = vec![
            TensorSpec::new(name("weight_packed"), [rows, words(width)], DType::I32),
            TensorSpec::new(name("weight_shape"), [2], DType::I64),
            TensorSpec::new(name("weight_scale"), scale_shape, self.dtype),
        ];
        if !scheme.symmetric {
            let (shape, dtype) = if is_tensor { (vec![1], DType::I8) } else { (vec![words(rows), groups], DType::I32) };
            specs.push(TensorSpec::new(name("weight_zero_point"), shape, dtype));
        }
        specs
    }

    fn write(&self, writer: &mut CheckpointWriter, shape: &SolvedShape, quantized: &Quantized) -> Result<()> {
        let name = |suffix| format!("{}.{suffix}", shape.name);
        let scheme = quantized.scheme;
        let bits = u32::from(scheme.bits.get());
        writer.write_bytes(&name("weight_packed"), &little_endian(&pack_weight(quantized.codes.view(), bits)))?;
        let dimensions = shape.shape.map(|dimension| (dimension as i64).to_le_bytes());
        writer.write_bytes(&name("weight_shape"), dimensions.as_flattened())?;
        let is_tensor = scheme.granularity == Granularity::Tensor;
        let (whole, scales) = (arr1(&[quantized.grids[[0, 0]].scale]), quantized.scales());
        let scales = if is_tensor { whole.view().into_dyn() } else { scales.view().into_dyn() };
        writer.write_f32(&name("weight_scale"), scales)?;
        if !scheme.symmetric {
            let bytes = if is_tensor {
                vec![quantized.grids[[0, 0]].zero.wrapping_sub(scheme.bits.midpoint())]
            } else {
                little_endian(&pack_zero_points(quantized.zeros().view(), bits))
            };
            writer.write_bytes(&name("weight_zero_point"), &bytes)?;
        }
        Ok(())
    }
}

/// The object for config.json. Only keys that readers of every age know: the inner objects are closed.
fn quantization_config(context: &ExportContext<'_>) -> Value {
    let mut grids: Vec<(QuantScheme, Vec<&str>)> = Vec::new();
    for (shape, scheme) in schemes(context) {
        // Readers refuse groups that are wider than a row. One scale for each row is what is stored.
        let is_wide = matches!(scheme.granularity, Granularity::Group(size) if size > shape.shape[1]);
        let granularity = if is_wide { Granularity::Channel } else { scheme.granularity };
        let scheme = QuantScheme { granularity, ..scheme };
        // The type of the scales is that of the checkpoint and no matter of the configuration.
        let same = |grid: &QuantScheme| QuantScheme { scale_type: scheme.scale_type, ..*grid } == scheme;
        match grids.iter_mut().find(|(grid, _)| same(grid)) {
            Some((_, names)) => names.push(&shape.name),
            None => grids.push((scheme, vec![&shape.name])),
        }
    }
    let only_one = grids.len() == 1;
    let groups: serde_json::Map<String, Value> = grids
        .into_iter()
        .enumerate()
        .map(|(index, (scheme, names))| {
            let (strategy, group_size) = match scheme.granularity {
                Granularity::Group(size) => ("group", Some(size)),
                Granularity::Tensor => ("tensor", None),
                _ => ("channel", None),
            };
            let targets = if only_one { vec!["Linear"] } else { names };
            let group = json!({
                "targets": targets,
                "weights": {
                    "num_bits": scheme.bits.get(), "type": "int", "symmetric": scheme.symmetric,
                    "strategy": strategy, "group_size": group_size, "dynamic": false, "observer": "minmax",
                },
                "input_activations": null,
                "output_activations": null,
            });
            (format!("group_{index}"), group)
        })
        .collect();
    json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": float_linears(context),
        "kv_cache_scheme": null,
        "global_compression_ratio": null,
    })
}
