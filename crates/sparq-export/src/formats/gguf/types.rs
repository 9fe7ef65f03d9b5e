use crate::{ExportContext, FloatType, SolvedShape};
use sparq_core::QuantScheme;
use sparq_tensor::codec::ggml::type_of_grid;
use sparq_tensor::{DType, TensorInGguf, TensorInfo};
use std::collections::BTreeMap;

/// The types matrices get in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GgufTypes {
    /// Codes of the solver in the 32-element type that holds them; embedding and output matrix in a type of their own; other
    /// matrices in the float type asked for, or as they are in a GGUF source.
    #[default]
    Exact,
    /// Every matrix in this type (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, Q3_K to Q6_K), or the next larger one
    /// that its width allows. Block types choose codes anew, from the compressed weights.
    All(DType),
    /// The mixture that llama.cpp calls Q4_K_M, by our own search.
    Q4KM,
}

impl GgufTypes {
    /// The type of a tensor in the file, where embedding and output matrix get `vocabulary` if nothing else is said.
    pub(super) fn of(self, vocabulary: DType, context: &ExportContext<'_>, info: &TensorInfo) -> DType {
        let Some(there) = TensorInGguf::of(context.source, &info.name) else { return DType::F32 };
        if info.shape.len() < 2 || stays_in_floats(&there.name) {
            return DType::F32;
        }
        let width = row_width(&there, info);
        let is_head = there.name == head(context);
        match self {
            Self::Exact => match context.layer_of(&info.name).and_then(exact_type) {
                Some(dtype) => dtype,
                None if is_vocabulary(&there.name) && is_free(context, info) => wide_enough(vocabulary, width),
                None if context.settings.float_type == FloatType::Source && info.dtype.is_block_quantized() => {
                    // Only what was not compressed is still what the source says.
                    if context.layer_of(&info.name).is_some() { DType::F16 } else { info.dtype }
                }
                None => context.settings.float_type.of(info.dtype),
            },
            Self::All(DType::Q3_K | DType::Q4_K | DType::Q5_K | DType::IQ4_NL) if is_head => {
                wide_enough(DType::Q6_K, width)
            }
            Self::All(dtype) => wide_enough(dtype, width),
            Self::Q4KM => {
                let gets_more = is_head || gets_more_bits(context, &there.name);
                wide_enough(if gets_more { DType::Q6_K } else { DType::Q4_K }, width)
            }
        }
    }

    /// ggml's number for the mixture.
    pub(super) fn file_type(self, vocabulary: DType, context: &ExportContext<'_>) -> Option<u32> {
        let dtype = match self {
            Self::Q4KM => return Some(15),
            Self::All(dtype) => dtype,
            Self::Exact => {
                let mut counts: BTreeMap<DType, usize> = BTreeMap::new();
                let is_there = |info: &&TensorInfo| TensorInGguf::of(context.source, &info.name).is_some();
                for info in context.source.tensors().filter(|info| info.shape.len() > 1).filter(is_there) {
                    *counts.entry(self.of(vocabulary, context, info)).or_default() += 1;
                }
                counts.into_iter().max_by_key(|&(_, count)| count)?.0
            }
        };
        Some(match dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q8_0 => 7,
            DType::Q5_0 => 8,
            DType::Q5_1 => 9,
            DType::Q3_K => 11,
            DType::Q4_K => 14,
            DType::Q5_K => 16,
            DType::Q6_K => 18,
            DType::IQ4_NL => 25,
            DType::BF16 => 32,
            _ => return None,
        })
    }
}

/// Elements of a row of the tensor as the file has it.
pub(super) fn row_width(there: &TensorInGguf, info: &TensorInfo) -> usize {
    let width = if there.transposed { info.shape.first() } else { info.shape.last() };
    width.copied().unwrap_or(1)
}

/// The tensor of the file that makes logits: the output head, or the embedding it is tied to.
fn head(context: &ExportContext<'_>) -> &'static str {
    if context.source.contains("lm_head.weight") { "output.weight" } else { "token_embd.weight" }
}

/// Whether a matrix of the file is the embedding or makes logits.
fn is_vocabulary(name: &str) -> bool {
    matches!(name, "token_embd.weight" | "output.weight")
}

/// Whether nothing says which type a matrix is to have: no float type was asked for, the source has it in floats, and the
/// file is no mere copy.
fn is_free(context: &ExportContext<'_>, info: &TensorInfo) -> bool {
    let is_copy = context.layers.is_empty();
    context.settings.float_type == FloatType::Source && !info.dtype.is_block_quantized() && !is_copy
}

/// Whether llama.cpp wants a matrix of the file in floats: what sends tokens to experts, and positions.
fn stays_in_floats(name: &str) -> bool {
    name == "position_embd.weight" || name.ends_with(".ffn_gate_inp.weight")
}

/// The type that holds the layer's codes, if there is one for their scales.
fn exact_type(shape: &SolvedShape) -> Option<DType> {
    let scheme = shape.scheme()?;
    let holds = QuantScheme::of_ggml(scheme.bits, scheme.symmetric).scale_type == scheme.scale_type;
    type_of_grid(scheme.bits.get().into(), scheme.symmetric).filter(|_| holds)
}

/// The type itself or the next larger one whose blocks divide a row.
fn wide_enough(dtype: DType, width: usize) -> DType {
    let fallback = match dtype {
        DType::Q3_K => DType::IQ4_NL,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        other => other,
    };
    let fits = |dtype: DType| width.is_multiple_of(dtype.block_size());
    [dtype, fallback].into_iter().find(|&dtype| fits(dtype)).unwrap_or(DType::F16)
}

/// Whether llama.cpp's Q4_K_M gives a matrix of the file six bits: values and down projections of a part of the blocks.
fn gets_more_bits(context: &ExportContext<'_>, name: &str) -> bool {
    let Some((block, module)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else { return false };
    let Ok(index) = block.parse::<u64>() else { return false };
    let Ok(config) = context.source.config() else { return false };
    let Some(count) = ["num_hidden_layers", "n_layer"].iter().find_map(|key| config[*key].as_u64()) else {
        return false;
    };
    let (eighth, is_one) = (count / 8, matches!(module, "attn_v.weight" | "ffn_down.weight" | "ffn_down_exps.weight"));
    is_one && (index < eighth || index >= 7_u64.saturating_mul(count) / 8 || (index - eighth) % 3 == 2)
}
