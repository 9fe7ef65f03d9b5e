use ndarray::{Array, Dimension};
use serde::{Deserialize, Serialize};
use sparq_core::ScaleType;
use sparq_tensor::DType;

/// The number type of floats in an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FloatType {
    /// Each tensor as it was; half precision for what was block-quantized. Formats with one type for the whole
    /// checkpoint take the source's most frequent one.
    #[default]
    Source,
    /// 32 bits.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16. With 8-bit codes it cannot hold every `scale · code` exactly.
    Bf16,
}

impl FloatType {
    /// The type a tensor of this type on disk gets.
    pub fn of(self, source: DType) -> DType {
        match self {
            Self::Source if matches!(source, DType::F32 | DType::F16 | DType::BF16) => source,
            _ if !source.is_float() && !source.is_block_quantized() => source, // integers stay what they are
            Self::Source if source == DType::F64 => DType::F32,
            Self::Source | Self::F16 => DType::F16,
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Values as a tensor of this type gives them back.
pub(crate) fn round_all<D: Dimension>(dtype: DType, mut values: Array<f32, D>) -> Array<f32, D> {
    if dtype != DType::F32 {
        values.mapv_inplace(|value| dtype.rounded(value));
    }
    values
}

/// The tensor type scales of this storage type have.
pub(crate) fn scale_dtype(scale: ScaleType) -> Option<DType> {
    match scale {
        ScaleType::F16 => Some(DType::F16),
        ScaleType::Bf16 => Some(DType::BF16),
        ScaleType::F32 => Some(DType::F32),
        _ => None,
    }
}

/// The storage type of scales in tensors of this type.
pub(crate) fn scale_type(dtype: DType) -> Option<ScaleType> {
    [ScaleType::F16, ScaleType::Bf16, ScaleType::F32].into_iter().find(|&scale| scale_dtype(scale) == Some(dtype))
}

/// The name config.json has for a float type.
pub(crate) fn torch_name(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("float32"),
        DType::F16 => Some("float16"),
        DType::BF16 => Some("bfloat16"),
        _ => None,
    }
}
