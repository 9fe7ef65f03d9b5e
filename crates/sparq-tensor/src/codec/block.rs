//! What ggml's blocks share: half-precision scales, nibbles, and the values that scales are chosen from.

use half::f16;

/// The half-precision number at byte `at`.
pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Appends 16 bytes: code `j` low, code `j + 16` high. Higher bits of a code are dropped.
pub(super) fn write_nibbles(codes: &[u8; 32], out: &mut Vec<u8>) {
    let (low, high) = codes.split_at(16);
    out.extend(low.iter().zip(high).map(|(&low, &high)| low & 15 | high << 4));
}

/// Appends a word whose bit `j` is the fifth bit of code `j`.
pub(super) fn write_fifth_bits(codes: &[u8; 32], out: &mut Vec<u8>) {
    let fifth = codes.iter().enumerate().fold(0u32, |word, (j, &code)| word | u32::from(code >> 4 & 1) << j);
    out.extend(fifth.to_le_bytes());
}

/// A code from its nibble and a word whose lowest bit is its fifth.
pub(super) fn five_bits(nibble: u8, fifth: u32) -> i32 {
    i32::from(nibble) | ((fifth & 1) << 4) as i32
}

/// `1 / d`, and 0 for 0.
pub(super) fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The value of largest magnitude; of two equal magnitudes the first.
pub(super) fn signed_largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |largest, &value| if value.abs() > largest.abs() { value } else { largest })
}

/// The least and the largest value.
pub(super) fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::MAX, f32::MIN), |(least, most), &value| (least.min(value), most.max(value)))
}

/// Scale and codes `0..2·half` by ggml's rule: the value of largest magnitude by `−half` is the scale, its code is 0.
pub(super) fn symmetric(x: &[f32; 32], half: u8) -> (f16, [u8; 32]) {
    let levels = f32::from(half);
    let d = signed_largest(x) / -levels;
    let inverse = reciprocal(d);
    (f16::from_f32(d), x.map(|value| ((value * inverse + (levels + 0.5)) as u8).min(2 * half - 1)))
}

/// Scale, minimum and codes up to `most` by ggml's rule: the scale is the range by `most`.
pub(super) fn affine(x: &[f32; 32], most: u8) -> (f16, f16, [u8; 32]) {
    let (least, largest) = range(x);
    let d = (largest - least) / f32::from(most);
    let inverse = reciprocal(d);
    let codes = x.map(|value| (((value - least) * inverse + 0.5) as u8).min(most));
    (f16::from_f32(d), f16::from_f32(least), codes)
}

/// Codes for test blocks.
#[cfg(test)]
pub(super) fn test_codes<const N: usize>(levels: usize) -> [u8; N] {
    std::array::from_fn(|i| ((i * 37 + i / 7) % levels) as u8)
}
