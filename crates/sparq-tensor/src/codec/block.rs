//! What ggml's blocks share: half-precision scales, nibbles, and the values that scales are chosen from.

use half::f16;

/// How codes become values: `scale · code + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) offset: f32,
}

impl Affine {
    /// Without an offset.
    #[inline(always)]
    pub(super) fn scaled(scale: f32) -> Self {
        Self { scale, offset: 0.0 }
    }

    /// The values of `codes`.
    #[inline(always)]
    pub(super) fn values(self, codes: &[i8], out: &mut [f32]) {
        for (out, code) in out.iter_mut().zip(codes) {
            *out = f32::from(*code) * self.scale + self.offset;
        }
    }

    /// As [`values`](Self::values), of a multiple of eight codes. Left to itself the compiler makes scalars of loops whose length
    /// it knows.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn values_avx2(self, simd: pulp::x86::V3, codes: &[i8], out: &mut [f32]) {
        let (avx, avx2) = (simd.avx, simd.avx2);
        let (scale, offset) = (avx._mm256_set1_ps(self.scale), avx._mm256_set1_ps(self.offset));
        for (out, codes) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<8>().0) {
            let codes = avx2._mm256_cvtepi8_epi32(pulp::cast([pulp::cast::<_, u64>(*codes), 0]));
            let scaled = avx._mm256_mul_ps(avx._mm256_cvtepi32_ps(codes), scale);
            *out = pulp::cast(avx._mm256_add_ps(scaled, offset));
        }
    }
}

/// How blocks of a type are read.
pub(super) trait Read<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize> {
    /// Reads a block: a code for each element, and for each unit of them what makes values of codes.
    fn read(&self, block: &[u8; BYTES], codes: &mut [i8; ELEMENTS]) -> [Affine; UNITS];

    /// The same, inside of loops that are compiled for AVX2.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn read_avx2(&self, _: pulp::x86::V3, block: &[u8; BYTES], codes: &mut [i8; ELEMENTS]) -> [Affine; UNITS] {
        self.read(block, codes)
    }
}

impl<F, const BYTES: usize, const ELEMENTS: usize, const UNITS: usize> Read<BYTES, ELEMENTS, UNITS> for F
where
    F: Fn(&[u8; BYTES], &mut [i8; ELEMENTS]) -> [Affine; UNITS],
{
    #[inline(always)]
    fn read(&self, block: &[u8; BYTES], codes: &mut [i8; ELEMENTS]) -> [Affine; UNITS] {
        self(block, codes)
    }
}

/// The half-precision number at byte `at`. Written out because a call for every block takes two fifths of reading it.
#[inline(always)]
pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    let half = i32::from(i16::from_le_bytes([bytes[at], bytes[at + 1]]));
    // Sign, exponent and mantissa move apart together: what lies between is the sign, extended.
    let bits = (half << 13).cast_unsigned() & 0x8fff_e000;
    // The largest exponent stands for infinity and NaN in both types; others differ by 112.
    let special = if half.cast_unsigned() << 17 >= 0x7c00 << 17 { 0x7f80_0000 } else { 0 };
    f32::from_bits(bits | special) * f32::from_bits((127 + 112) << 23)
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

/// `byte` eight times.
#[inline(always)]
pub(super) const fn every(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Takes `bytes` apart into fields of `bits`, the lowest first: the first fields of all bytes, then the second fields, and so on.
#[inline(always)]
pub(super) fn split(bytes: &[u8], bits: usize, codes: &mut [i8]) {
    let field = every(u8::MAX >> (8 - bits));
    for (at, codes) in codes.chunks_exact_mut(bytes.len()).enumerate() {
        combine(codes, bytes, |_, bytes| bytes >> (at * bits) & field);
    }
}

/// Replaces codes by a function of them and of as many bytes, eight at a time.
#[inline(always)]
pub(super) fn combine(codes: &mut [i8], bytes: &[u8], function: impl Fn(u64, u64) -> u64) {
    for (codes, bytes) in codes.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks::<8>().0) {
        let old = u64::from_le_bytes(pulp::cast(*codes));
        *codes = pulp::cast(function(old, u64::from_le_bytes(*bytes)).to_le_bytes());
    }
}

/// Subtracts `amount`, from codes that are at most 127.
#[inline(always)]
pub(super) fn subtract(codes: &mut [i8], amount: u8) {
    // No byte overflows: the sum is at most 255, and changing its highest bit takes away the 128 that were too many.
    map(codes, |codes| (codes + every(128 - amount)) ^ every(128));
}

/// Adds 16 to each code whose bit is set.
#[inline(always)]
pub(super) fn add_fifth_bits(bits: &[u8], codes: &mut [i8]) {
    for (codes, bits) in codes.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
        // Byte `i` keeps bit `i`; a byte that is not zero has its highest bit set by adding 127.
        let apart = every(*bits) & 0x8040_2010_0804_0201;
        map(codes, |codes| codes | ((apart + every(127)) & every(128)) >> 3);
    }
}

#[inline(always)]
fn map(codes: &mut [i8], function: impl Fn(u64) -> u64) {
    for codes in codes.as_chunks_mut::<8>().0 {
        *codes = pulp::cast(function(u64::from_le_bytes(pulp::cast(*codes))).to_le_bytes());
    }
}

/// Values of whole blocks, as many as `out` holds; `values` makes those of codes that share a scale.
#[inline(always)]
pub(super) fn decode<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize>(
    read: impl Fn(&[u8; BYTES], &mut [i8; ELEMENTS]) -> [Affine; UNITS],
    values: impl Fn(Affine, &[i8], &mut [f32]),
    bytes: &[u8],
    out: &mut [f32],
) {
    let mut codes = [0; ELEMENTS];
    for (out, block) in out.as_chunks_mut::<ELEMENTS>().0.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
        let unit = ELEMENTS / UNITS;
        let units = read(block, &mut codes);
        for ((out, codes), affine) in out.chunks_exact_mut(unit).zip(codes.chunks_exact(unit)).zip(units) {
            values(affine, codes, out);
        }
    }
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

/// Values of a test's block.
#[cfg(test)]
pub(super) fn block_values<const BYTES: usize, const ELEMENTS: usize, const UNITS: usize>(
    read: impl Fn(&[u8; BYTES], &mut [i8; ELEMENTS]) -> [Affine; UNITS],
    bytes: &[u8],
    out: &mut [f32],
) {
    decode(read, Affine::values, bytes, out);
}

/// Codes for test blocks.
#[cfg(test)]
pub(super) fn test_codes<const N: usize>(levels: usize) -> [u8; N] {
    std::array::from_fn(|i| ((i * 37 + i / 7) % levels) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_read() {
        for bits in 0..=u16::MAX {
            let (value, expected) = (half(&bits.to_le_bytes(), 0), f16::from_bits(bits).to_f32());
            assert!(value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()), "{bits:#x}");
        }
    }
}
