//! Codes and masks as bits, and the tensors one layer is stored as.

use crate::Result;
use ndarray::{Array2, ArrayView2};
use sparq_core::{Codes, CompressedLayer, Quantized, ScaleType};
use sparq_tensor::TensorData;
use sparq_tensor::codec::coded::encode_codes;

/// The tensors of one layer, packed, waiting to be written.
#[derive(Debug)]
pub(super) struct PackedLayer {
    name: String,
    scales: Option<(Array2<f32>, ScaleType)>,
    /// Factors of rows and steps of columns.
    factors: Option<[Vec<f32>; 2]>,
    codes: Option<Array2<u8>>,
    zeros: Option<Array2<u8>>,
    mask: Option<Array2<u8>>,
    weight: Option<Array2<f32>>,
}

impl PackedLayer {
    /// Everything of `layer` that cannot be derived from the rest.
    pub(super) fn new(name: &str, layer: &CompressedLayer) -> Result<Self> {
        let mut packed = Self {
            name: name.to_owned(),
            scales: None,
            factors: None,
            codes: None,
            zeros: None,
            mask: layer.mask.as_ref().map(|mask| pack(mask.view().mapv(u8::from).view(), 1)),
            weight: None,
        };
        match &layer.codes {
            Some(Codes::Grid(quantized)) => {
                packed.scales = Some((quantized.scales(), quantized.scheme.scale_type));
                packed.codes = Some(pack(quantized.codes.view(), quantized.scheme.bits.get()));
                packed.zeros = (!quantized.scheme.symmetric).then(|| Quantized::zeros(quantized));
            }
            Some(Codes::Steps(stepped)) => {
                packed.factors = Some([stepped.rows.clone(), stepped.columns.clone()]);
                let bytes = encode_codes(name, stepped.codes.view())?;
                packed.codes = Array2::from_shape_vec((1, bytes.len()), bytes).ok();
            }
            None => packed.weight = Some(layer.weight.clone()),
        }
        Ok(packed)
    }

    /// Names and contents as they go to the file.
    pub(super) fn tensors(&self) -> Vec<(String, TensorData<'_>)> {
        let named = |part: &str| format!("{}.{part}", self.name);
        let bytes = |part: &str, array: &'_ Option<Array2<u8>>| array.as_ref().map(|_| named(part));
        let mut tensors = Vec::new();
        if let Some((scales, kind)) = &self.scales {
            let view = scales.view().into_dyn();
            let data = match kind {
                ScaleType::F16 => TensorData::AsF16(view),
                ScaleType::Bf16 => TensorData::AsBF16(view),
                _ => TensorData::F32(view),
            };
            tensors.push((named("scales"), data));
        }
        for (part, factors) in ["rows", "steps"].iter().zip(self.factors.iter().flatten()) {
            tensors.push((named(part), TensorData::AsBF16(ndarray::aview1(factors).into_dyn())));
        }
        for (part, array) in [("codes", &self.codes), ("zeros", &self.zeros), ("mask", &self.mask)] {
            if let (Some(name), Some(array)) = (bytes(part, array), array) {
                tensors.push((name, TensorData::U8(array.view().into_dyn())));
            }
        }
        if let Some(weight) = &self.weight {
            tensors.push((named("weight"), TensorData::F32(weight.view().into_dyn())));
        }
        tensors
    }
}

/// Each row as a bit stream, `bits` a value, low bits first, padded to whole bytes.
pub(super) fn pack(values: ArrayView2<'_, u8>, bits: u8) -> Array2<u8> {
    let (rows, width) = values.dim();
    let mut packed = Array2::zeros((rows, packed_bytes(width, bits)));
    for (values, mut packed) in values.outer_iter().zip(packed.outer_iter_mut()) {
        let (mut word, mut filled, mut at) = (0_u32, 0_u32, 0);
        for &value in values {
            word |= u32::from(value) << filled;
            filled += u32::from(bits);
            while filled >= 8 {
                packed[at] = word as u8;
                (word, filled, at) = (word >> 8, filled - 8, at + 1);
            }
        }
        if filled > 0 {
            packed[at] = word as u8;
        }
    }
    packed
}

/// Undoes [`pack`] for rows of `width` values; none if `bytes` is not as long as it must be.
pub(super) fn unpack(bytes: &[u8], rows: usize, width: usize, bits: u8) -> Option<Array2<u8>> {
    let stride = packed_bytes(width, bits);
    if bytes.len() != rows.checked_mul(stride)? {
        return None;
    }
    let mask = ((1_u32 << bits) - 1) as u8;
    let mut values = Array2::zeros((rows, width));
    for (mut values, packed) in values.outer_iter_mut().zip(bytes.chunks_exact(stride.max(1))) {
        let (mut word, mut filled, mut at) = (0_u32, 0_u32, 0);
        for value in &mut values {
            if filled < u32::from(bits) {
                word |= u32::from(packed[at]) << filled;
                (filled, at) = (filled + 8, at + 1);
            }
            *value = word as u8 & mask;
            (word, filled) = (word >> bits, filled - u32::from(bits));
        }
    }
    Some(values)
}

/// Bytes of a packed row.
fn packed_bytes(width: usize, bits: u8) -> usize {
    width.saturating_mul(usize::from(bits)).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(rows in 0_usize..4, width in 0_usize..70, bits in 1_u8..=8, seed: u64) {
            let mut state = seed;
            let values = Array2::from_shape_fn((rows, width), |_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 40) as u32 & ((1 << bits) - 1)) as u8
            });
            let packed = pack(values.view(), bits);
            prop_assert_eq!(packed.dim(), (rows, (width * usize::from(bits)).div_ceil(8)));
            // The slow, obvious reading: bit i of value v is bit v * bits + i of the row.
            for (values, packed) in values.outer_iter().zip(packed.outer_iter()) {
                for (at, &value) in values.iter().enumerate() {
                    let bit = |position: usize| packed[position / 8] >> (position % 8) & 1;
                    let read = (0..usize::from(bits)).map(|i| bit(at * usize::from(bits) + i) << i).sum::<u8>();
                    prop_assert_eq!(read, value);
                }
            }
            let bytes: Vec<u8> = packed.iter().copied().collect();
            prop_assert_eq!(unpack(&bytes, rows, width, bits), Some(values));
        }
    }

    #[test]
    fn another_length_is_refused() {
        assert_eq!(unpack(&[0; 5], 2, 3, 4), None);
        assert_eq!(unpack(&[], usize::MAX, 64, 4), None);
    }
}
