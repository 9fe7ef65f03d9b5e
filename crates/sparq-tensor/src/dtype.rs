//! Element types of tensors on disk.

use std::fmt;

/// The element type of a tensor on disk.
///
/// The block-quantized types exist in GGUF files only. A *block* is the smallest number of elements that has a size of
/// its own: 1 for plain types, 32 or 256 for quantized ones.
///
/// # Examples
///
/// ```
/// use sparq_tensor::DType;
///
/// assert_eq!(DType::BF16.bytes_for(&[4, 64]), Some(512));
/// assert_eq!(DType::Q4_0.bytes_for(&[4, 64]), Some(4 * 2 * 18));
/// assert_eq!(DType::Q4_0.bytes_for(&[4, 60]), None); // rows are not whole blocks
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(non_camel_case_types)] // the names the formats use
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// 4-bit float, two in a byte; listed and copied, not decoded, as all floats of less than 16 bits.
    F4,
    /// 6-bit float with 2 exponent bits, four in three bytes.
    F6_E2M3,
    /// 6-bit float with 3 exponent bits, four in three bytes.
    F6_E3M2,
    /// 8-bit float with 4 exponent bits.
    F8_E4M3,
    /// The same without infinities and negative zero.
    F8_E4M3FNUZ,
    /// 8-bit float with 5 exponent bits.
    F8_E5M2,
    /// The same without infinities and negative zero.
    F8_E5M2FNUZ,
    /// 8-bit power of two.
    F8_E8M0,
    /// Two IEEE singles, a complex number; listed and copied, not decoded.
    C64,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// IEEE single.
    F32,
    /// IEEE double; decoded by rounding to single.
    F64,
    /// GGUF: 32 elements, 4 bits, `d·(q−8)`.
    Q4_0,
    /// GGUF: 32 elements, 4 bits, `d·q + m`.
    Q4_1,
    /// GGUF: 32 elements, 5 bits, `d·(q−16)`.
    Q5_0,
    /// GGUF: 32 elements, 5 bits, `d·q + m`.
    Q5_1,
    /// GGUF: 32 elements, 8 bits, `d·q`.
    Q8_0,
    /// GGUF: 256 elements, 2 bits, 4-bit scales and minima per 16.
    Q2_K,
    /// GGUF: 256 elements, 3 bits, 6-bit scales per 16.
    Q3_K,
    /// GGUF: 256 elements, 4 bits, 6-bit scales and minima per 32.
    Q4_K,
    /// GGUF: 256 elements, 5 bits, 6-bit scales and minima per 32.
    Q5_K,
    /// GGUF: 256 elements, 6 bits, 8-bit scales per 16.
    Q6_K,
    /// GGUF: 32 elements, 4 bits that choose one of 16 unevenly spaced values; read, not written.
    IQ4_NL,
    /// GGUF: 256 elements as those of IQ4_NL, 6-bit scales per 32; read, not written.
    IQ4_XS,
}

impl DType {
    /// `value` as a tensor of type F16 or BF16 gives it back; as it is for other types.
    pub fn rounded(self, value: f32) -> f32 {
        match self {
            Self::F16 => half::f16::from_f32(value).to_f32(),
            Self::BF16 => half::bf16::from_f32(value).to_f32(),
            _ => value,
        }
    }

    /// Elements per block: 1, 32 or 256; as many floats of less than 8 bits as fill whole bytes.
    pub fn block_size(self) -> usize {
        match self {
            Self::F4 => 2,
            Self::F6_E2M3 | Self::F6_E3M2 => 4,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::IQ4_NL => 32,
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K | Self::IQ4_XS => 256,
            _ => 1,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Bool
            | Self::U8
            | Self::I8
            | Self::F4
            | Self::F8_E4M3
            | Self::F8_E4M3FNUZ
            | Self::F8_E5M2
            | Self::F8_E5M2FNUZ
            | Self::F8_E8M0 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::F6_E2M3 | Self::F6_E3M2 => 3,
            Self::U64 | Self::I64 | Self::F64 | Self::C64 => 8,
            Self::Q4_0 | Self::IQ4_NL => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::IQ4_XS => 136,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Whether this is one of GGUF's block-quantized types.
    pub fn is_block_quantized(self) -> bool {
        self.block_size() >= 32
    }

    /// Whether this is F16, BF16, F32 or F64.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// The name in a safetensors header; `None` for types only GGUF has.
    pub fn safetensors_name(self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::U16 => "U16",
            Self::I16 => "I16",
            Self::U32 => "U32",
            Self::I32 => "I32",
            Self::U64 => "U64",
            Self::I64 => "I64",
            Self::F4 => "F4",
            Self::F6_E2M3 => "F6_E2M3",
            Self::F6_E3M2 => "F6_E3M2",
            Self::F8_E4M3 => "F8_E4M3",
            Self::F8_E4M3FNUZ => "F8_E4M3FNUZ",
            Self::F8_E5M2 => "F8_E5M2",
            Self::F8_E5M2FNUZ => "F8_E5M2FNUZ",
            Self::F8_E8M0 => "F8_E8M0",
            Self::C64 => "C64",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
            _ => return None,
        })
    }

    pub(crate) fn from_safetensors_name(name: &str) -> Option<Self> {
        const ALL: [DType; 22] = [
            DType::Bool,
            DType::U8,
            DType::I8,
            DType::U16,
            DType::I16,
            DType::U32,
            DType::I32,
            DType::U64,
            DType::I64,
            DType::F4,
            DType::F6_E2M3,
            DType::F6_E3M2,
            DType::F8_E4M3,
            DType::F8_E4M3FNUZ,
            DType::F8_E5M2,
            DType::F8_E5M2FNUZ,
            DType::F8_E8M0,
            DType::C64,
            DType::F16,
            DType::BF16,
            DType::F32,
            DType::F64,
        ];
        ALL.into_iter().find(|dtype| dtype.safetensors_name() == Some(name))
    }

    /// ggml's type number, if it has the type.
    pub(crate) fn ggml_type(self) -> Option<u32> {
        (0..=30).find(|&id| Self::from_ggml_type(id) == Ok(self))
    }

    /// By ggml's type number; `Err` holds the name of a type that exists but is not supported, or nothing.
    pub(crate) fn from_ggml_type(id: u32) -> Result<Self, Option<&'static str>> {
        Ok(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2_K,
            11 => Self::Q3_K,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            20 => Self::IQ4_NL,
            23 => Self::IQ4_XS,
            24 => Self::I8,
            25 => Self::I16,
            26 => Self::I32,
            27 => Self::I64,
            28 => Self::F64,
            30 => Self::BF16,
            other => {
                return Err(match other {
                    9 => Some("Q8_1"),
                    15 => Some("Q8_K"),
                    16 => Some("IQ2_XXS"),
                    17 => Some("IQ2_XS"),
                    18 => Some("IQ3_XXS"),
                    19 => Some("IQ1_S"),
                    21 => Some("IQ3_S"),
                    22 => Some("IQ2_S"),
                    29 => Some("IQ1_M"),
                    34 => Some("TQ1_0"),
                    35 => Some("TQ2_0"),
                    39 => Some("MXFP4"),
                    40 => Some("NVFP4"),
                    41 => Some("Q1_0"),
                    42 => Some("Q2_0"),
                    _ => None,
                });
            }
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.safetensors_name() {
            Some(name) => f.write_str(name),
            None => fmt::Debug::fmt(self, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safetensors_names_round_trip() {
        for (bits, names) in [
            (4, &["F4"][..]),
            (6, &["F6_E2M3", "F6_E3M2"]),
            (8, &["BOOL", "U8", "I8", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"]),
            (16, &["U16", "I16", "F16", "BF16"]),
            (32, &["U32", "I32", "F32"]),
            (64, &["U64", "I64", "F64", "C64"]),
        ] {
            for name in names {
                let dtype = DType::from_safetensors_name(name).unwrap();
                assert_eq!(dtype.to_string(), *name);
                assert_eq!(dtype.bytes_for(&[2, 8]), Some(2 * bits), "{name}");
                assert!(!dtype.is_block_quantized());
            }
        }
        assert_eq!(DType::F4.bytes_for(&[2, 3]), Some(3), "rows need not fill bytes");
        assert_eq!(DType::F4.bytes_for(&[3]), None);
        assert_eq!(DType::from_safetensors_name("Q4_0"), None);
        assert_eq!(DType::Q4_K.to_string(), "Q4_K");
    }
}
