//! ggml's blocks put together from scales and codes: the inverse of the decoders in [`legacy`](super::legacy) and
//! [`k_quants`](super::k_quants).

use half::f16;

/// `d`, then nibbles: element `j` low, element `j + 16` high.
pub(crate) fn q4_0(d: f16, codes: &[u8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    nibbles(codes, out);
}

/// `d`, `m`, nibbles.
pub(crate) fn q4_1(d: f16, m: f16, codes: &[u8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    q4_0(m, codes, out);
}

/// `d`, fifth bits, nibbles.
pub(crate) fn q5_0(d: f16, codes: &[u8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    let fifth = codes.iter().enumerate().fold(0u32, |word, (j, &code)| word | u32::from(code >> 4 & 1) << j);
    out.extend(fifth.to_le_bytes());
    nibbles(codes, out);
}

/// `d`, `m`, fifth bits, nibbles.
pub(crate) fn q5_1(d: f16, m: f16, codes: &[u8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    q5_0(m, codes, out);
}

/// `d`, signed bytes.
pub(crate) fn q8_0(d: f16, codes: &[i8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    out.extend(codes.iter().map(|code| code.cast_unsigned()));
}

fn nibbles(codes: &[u8; 32], out: &mut Vec<u8>) {
    let (low, high) = codes.split_at(16);
    out.extend(low.iter().zip(high).map(|(&low, &high)| low & 15 | high << 4));
}

/// `d`, `dmin`, 6-bit scales and minima of 8 sub-blocks, nibbles.
pub(crate) fn q4_k(d: f16, dmin: f16, scales: [u8; 8], minima: [u8; 8], codes: &[u8; 256], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    out.extend(dmin.to_le_bytes());
    let mut packed = [0u8; 12];
    for sub in 0..4 {
        packed[sub] = scales[sub] | scales[sub + 4] >> 4 << 6;
        packed[sub + 4] = minima[sub] | minima[sub + 4] >> 4 << 6;
        packed[sub + 8] = scales[sub + 4] & 15 | minima[sub + 4] << 4;
    }
    out.extend(packed);
    for pair in codes.as_chunks::<64>().0 {
        let (low, high) = pair.split_at(32);
        out.extend(low.iter().zip(high).map(|(&low, &high)| low | high << 4));
    }
}

/// Low nibbles, upper bit pairs, signed scales of 16 sub-blocks, `d`.
pub(crate) fn q6_k(d: f16, scales: [i8; 16], codes: &[u8; 256], out: &mut Vec<u8>) {
    for half in codes.as_chunks::<128>().0 {
        out.extend((0..64).map(|l| half[l] & 15 | half[l + 64] << 4));
    }
    for half in codes.as_chunks::<128>().0 {
        let bits = |l: usize| half[l] >> 4 | half[l + 32] >> 4 << 2 | half[l + 64] >> 4 << 4 | half[l + 96] >> 4 << 6;
        out.extend((0..32).map(bits));
    }
    out.extend(scales.map(i8::cast_unsigned));
    out.extend(d.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::{k_quants, legacy};
    use super::*;

    fn codes<const N: usize>(levels: usize) -> [u8; N] {
        std::array::from_fn(|i| ((i * 37 + i / 7) % levels) as u8)
    }

    #[test]
    fn decoders_give_back_what_was_put_together() {
        let (d, m) = (f16::from_f32(0.25), f16::from_f32(-1.5));
        let mut out = Vec::new();
        let mut values = [0.0; 32];
        q4_0(d, &codes(16), &mut out);
        legacy::q4_0(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, codes::<32>(16).map(|code| 0.25 * (f32::from(code) - 8.0)));
        out.clear();
        q4_1(d, m, &codes(16), &mut out);
        legacy::q4_1(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, codes::<32>(16).map(|code| 0.25 * f32::from(code) - 1.5));
        out.clear();
        q5_0(d, &codes(32), &mut out);
        legacy::q5_0(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, codes::<32>(32).map(|code| 0.25 * (f32::from(code) - 16.0)));
        out.clear();
        q5_1(d, m, &codes(32), &mut out);
        legacy::q5_1(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, codes::<32>(32).map(|code| 0.25 * f32::from(code) - 1.5));
        out.clear();
        q8_0(d, &codes(256).map(u8::cast_signed), &mut out);
        legacy::q8_0(out.as_slice().try_into().unwrap(), &mut values);
        assert_eq!(values, codes::<32>(256).map(|code| 0.25 * f32::from(code.cast_signed())));
    }

    #[test]
    fn super_blocks_too() {
        let (d, dmin) = (f16::from_f32(0.5), f16::from_f32(0.25));
        let (scales, minima) = ([63, 1, 17, 32, 40, 5, 62, 33], [0, 63, 31, 16, 15, 48, 7, 63]);
        let mut out = Vec::new();
        let mut values = [0.0; 256];
        q4_k(d, dmin, scales, minima, &codes(16), &mut out);
        k_quants::q4_k(out.as_slice().try_into().unwrap(), &mut values);
        let expected: [f32; 256] = std::array::from_fn(|i| {
            0.5 * f32::from(scales[i / 32]) * f32::from(codes::<256>(16)[i]) - 0.25 * f32::from(minima[i / 32])
        });
        assert_eq!(values, expected);
        out.clear();
        let scales: [i8; 16] = std::array::from_fn(|sub| (sub as i8 - 8) * 15);
        q6_k(d, scales, &codes(64), &mut out);
        k_quants::q6_k(out.as_slice().try_into().unwrap(), &mut values);
        let expected: [f32; 256] =
            std::array::from_fn(|i| 0.5 * f32::from(scales[i / 16]) * (f32::from(codes::<256>(64)[i]) - 32.0));
        assert_eq!(values, expected);
    }
}
