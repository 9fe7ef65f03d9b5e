use super::dense::planned_size;
use super::packed::{
    self, Parts, check_any_codes, check_groups, check_layout, float_linears, fused, fused_siblings, little_endian,
    schemes, uniform_type,
};
use crate::float_type::round_all;
use crate::{Error, ExportContext, ExportFormat, ExportTensor, Result, SolvedLayers, SolvedShape};
use ndarray::ArrayD;
use serde_json::{Map, Value, json};
use sparq_core::{Granularity, QuantScheme, Quantized, ScaleType};
use sparq_tensor::codec::gptq::{GptqVersion, pack_qweight, pack_qzeros};
use sparq_tensor::{CheckpointWriter, DType, PlannedSize, StagedCheckpoint, TensorSpec};
use std::borrow::Cow;
use std::path::Path;

/// GPTQ checkpoints: 2, 3, 4 or 8 bits, read by GPTQModel, vLLM and what descends from AutoGPTQ.
///
/// Symmetric grids are written as version 1, which every reader knows, others as version 2, the only one that can say
/// what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GptqCheckpoint;

impl ExportFormat for GptqCheckpoint {
    fn name(&self) -> Cow<'static, str> {
        "gptq".into()
    }

    fn check(&self, context: &ExportContext<'_>) -> Result<()> {
        check_any_codes(context, "gptq")?;
        context.layers.iter().try_for_each(|shape| check_layout(shape, "gptq"))?;
        for (shape, scheme) in schemes(context) {
            let unfit = |reason: String, instead: &str| {
                Err(Error::Unfit { format: "gptq".into(), layer: shape.name.clone(), reason, instead: instead.into() })
            };
            let [rows, width] = shape.shape;
            let bits = scheme.bits.get();
            if !matches!(bits, 2 | 3 | 4 | 8) {
                let instead = "use compressed-tensors with any width allowed, or solve with 4 or 8 bits";
                return unfit(format!("it has no codes of {bits} bits"), instead);
            }
            if scheme.scale_type != ScaleType::F16 {
                let reason = format!("its scales are half precision, those of the layer {:?}", scheme.scale_type);
                return unfit(reason, "solve with scales in f16, or use compressed-tensors");
            }
            check_groups(shape, scheme, "gptq")?;
            let whole = if bits == 3 { 32 } else { 32 / usize::from(bits) };
            if !width.is_multiple_of(whole) || !rows.is_multiple_of(whole) {
                let reason = format!("{rows} output and {width} input channels do not fill words of {whole} codes");
                return unfit(reason, "use compressed-tensors, which pads rows, or leave the layer out");
            }
            if let Granularity::Group(size) = scheme.granularity
                && size > width
            {
                let reason = format!("its {width} input channels are fewer than a group of {size}");
                return unfit(reason, "solve with smaller groups or one scale per channel, or use compressed-tensors");
            }
        }
        Ok(())
    }

    fn planned_size(&self, context: &ExportContext<'_>) -> Result<PlannedSize> {
        let layout = Layout { version: version(context) };
        planned_size(context, packed::plan(context, uniform_type(context), &layout))
    }

    fn stage(
        &self,
        context: &ExportContext<'_>,
        solved: &dyn SolvedLayers,
        destination: &Path,
    ) -> Result<StagedCheckpoint> {
        let layout = Layout { version: version(context) };
        let config = quantization_config(context);
        let file = Some("quantize_config.json");
        packed::stage(context, solved, destination, uniform_type(context), &layout, &config, file)
    }

    fn expected(&self, context: &ExportContext<'_>, tensor: &ExportTensor<'_>) -> Result<ArrayD<f32>> {
        let dtype = uniform_type(context);
        Ok(match tensor {
            ExportTensor::Solved(_, layer) => match layer.quantized() {
                Some(quantized) => quantized.dequantize().into_dyn(),
                None => round_all(dtype, layer.weight.clone().into_dyn()),
            },
            ExportTensor::Copied(info, values) => {
                round_all(packed::kept_dtype(context, info, dtype), values.to_owned())
            }
        })
    }

    fn engines(&self, context: &ExportContext<'_>) -> String {
        let readers = match version(context) {
            GptqVersion::V1 => "GPTQModel, transformers (through GPTQModel) and vLLM load it.",
            GptqVersion::V2 => {
                "GPTQModel, transformers (through GPTQModel) and vLLM since October 2025 load it; older readers do not \
                 know version 2."
            }
        };
        format!(
            "{readers} Codes are stored at their width; zeros of pruned weights stay exact but take the same space, and \
             no engine skips them.{}",
            fused_siblings(context)
        )
    }
}

struct Layout {
    version: GptqVersion,
}

fn version(context: &ExportContext<'_>) -> GptqVersion {
    let all = schemes(context).all(|(_, scheme)| scheme.symmetric);
    if all { GptqVersion::V1 } else { GptqVersion::V2 }
}

impl Parts for Layout {
    fn specs(&self, shape: &SolvedShape, scheme: QuantScheme) -> Vec<TensorSpec> {
        let [rows, width] = shape.shape;
        let bits = usize::from(scheme.bits.get());
        let groups = scheme.granularity.groups(width);
        let name = |suffix| format!("{}.{suffix}", shape.name);
        vec![
            TensorSpec::new(name("qweight"), [width * bits / 32, rows], DType::I32),
            TensorSpec::new(name("qzeros"), [groups, rows * bits / 32], DType::I32),
            TensorSpec::new(name("scales"), [groups, rows], DType::F16),
            TensorSpec::new(name("g_idx"), [width], DType::I32),
        ]
    }

    fn write(&self, writer: &mut CheckpointWriter, shape: &SolvedShape, quantized: &Quantized) -> Result<()> {
        let name = |suffix| format!("{}.{suffix}", shape.name);
        let bits = u32::from(quantized.scheme.bits.get());
        writer.write_bytes(&name("qweight"), &little_endian(&pack_qweight(quantized.codes.view(), bits)))?;
        let Some(zeros) = pack_qzeros(quantized.zeros().view(), bits, self.version) else {
            // Only symmetric grids are written as version 1, and their zero point is the midpoint.
            return Err(Error::Inconsistent {
                layer: shape.name.clone(),
                what: "a zero point of its symmetric grid",
                found: "0".into(),
                expected: quantized.scheme.bits.midpoint().to_string(),
            });
        };
        writer.write_bytes(&name("qzeros"), &little_endian(&zeros))?;
        writer.write_f32(&name("scales"), quantized.scales().t().into_dyn())?;
        let width = shape.shape[1];
        let size = quantized.scheme.granularity.size(width);
        let order: Vec<u8> = (0..width).flat_map(|channel| ((channel / size) as i32).to_le_bytes()).collect();
        writer.write_bytes(&name("g_idx"), &order)?;
        Ok(())
    }
}

/// The settings that modules share, or have for themselves.
fn grid(scheme: QuantScheme) -> (u8, i64) {
    let size = match scheme.granularity {
        Granularity::Group(size) => size as i64,
        _ => -1,
    };
    (scheme.bits.get(), size)
}

/// The object for config.json and quantize_config.json. What most layers have stands at the top, the rest is `dynamic`.
fn quantization_config(context: &ExportContext<'_>) -> Value {
    let mut counts: Vec<((u8, i64), usize)> = Vec::new();
    for (_, scheme) in schemes(context) {
        match counts.iter_mut().find(|(other, _)| *other == grid(scheme)) {
            Some((_, count)) => *count += 1,
            None => counts.push((grid(scheme), 1)),
        }
    }
    // Of equally frequent ones the first in model order.
    let most = counts.iter().map(|(_, count)| *count).max();
    let (bits, group_size) = counts.iter().find(|(_, count)| Some(*count) == most).map_or((4, -1), |(grid, _)| *grid);
    let mut exceptions = Map::new();
    let exactly = |sign: &str, module: &str| format!("{sign}:^{}$", module.replace('.', "\\."));
    for (shape, scheme) in schemes(context).filter(|(_, scheme)| grid(*scheme) != (bits, group_size)) {
        let (bits, group_size) = grid(scheme);
        exceptions.insert(exactly("+", &shape.name), json!({ "bits": bits, "group_size": group_size }));
    }
    for module in float_linears(context).iter().filter(|module| *module != "lm_head") {
        exceptions.insert(exactly("-", module), json!({}));
    }
    // vLLM looks for the name of the one matrix that it runs some layers as.
    for siblings in fused(context) {
        let module = format!("{}.{}", siblings.parent, siblings.name);
        match siblings.scheme().map(grid) {
            _ if siblings.differ() => {}
            None => drop(exceptions.insert(exactly("-", &module), json!({}))),
            Some(grid) if grid == (bits, group_size) => {}
            Some((bits, group_size)) => {
                exceptions.insert(exactly("+", &module), json!({ "bits": bits, "group_size": group_size }));
            }
        }
    }
    let is_v1 = version(context) == GptqVersion::V1;
    let format = if is_v1 { "gptq" } else { "gptq_v2" };
    let has_head = schemes(context).any(|(shape, _)| shape.name == "lm_head");
    let mut config = json!({
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "sym": is_v1,
        "desc_act": false,
        "checkpoint_format": format,
        "pack_dtype": "int32",
        "lm_head": has_head,
        "true_sequential": true,
        "static_groups": context.layers.iter().any(|layer| layer.act_order),
        "meta": { "quantizer": [concat!("sparq:", env!("CARGO_PKG_VERSION"))] },
    });
    if !exceptions.is_empty() {
        config["dynamic"] = exceptions.into();
    }
    config
}
