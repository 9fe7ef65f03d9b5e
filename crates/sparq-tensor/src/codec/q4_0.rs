//! `Q4_0`: 32 elements `d·(q − 8)`. Bytes: `d`, then nibbles, element `j` low, element `j + 16` high.

use half::f16;

use super::block::{Affine, Read, half, split, subtract, symmetric, write_nibbles};

/// Reads blocks.
pub(super) struct Reader;

impl Read<18, 32, 1> for Reader {
    #[inline(always)]
    fn read(&self, block: &[u8; 18], codes: &mut [i8; 32]) -> [Affine; 1] {
        split(&block[2..], 4, codes);
        subtract(codes, 8);
        [Affine::scaled(half(block, 0))]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn read_avx2(&self, simd: pulp::x86::V3, block: &[u8; 18], codes: &mut [i8; 32]) -> [Affine; 1] {
        let (sse, avx, avx2) = (simd.sse2, simd.avx, simd.avx2);
        if let Some(bytes) = block.last_chunk::<16>() {
            let low = pulp::cast(*bytes);
            let both = avx._mm256_set_m128i(sse._mm_srli_epi16::<4>(low), low);
            let both = avx2._mm256_and_si256(both, avx._mm256_set1_epi8(15));
            *codes = pulp::cast(avx2._mm256_sub_epi8(both, avx._mm256_set1_epi8(8)));
        }
        [Affine::scaled(half(block, 0))]
    }
}

/// Writes a block.
pub(super) fn encode(d: f16, codes: &[u8; 32], out: &mut Vec<u8>) {
    out.extend(d.to_le_bytes());
    write_nibbles(codes, out);
}

/// Writes a block of values, [rounded](symmetric) by ggml's rule.
pub(super) fn quantize(x: &[f32; 32], out: &mut Vec<u8>) {
    let (d, codes) = symmetric(x, 8);
    encode(d, &codes, out);
}

#[cfg(test)]
mod tests {
    use super::super::block::{block_values, test_codes};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut out, mut values) = (Vec::new(), [0.0; 32]);
        encode(f16::from_f32(0.25), &test_codes(16), &mut out);
        let expected = test_codes::<32>(16).map(|code| 0.25 * (f32::from(code) - 8.0));
        block_values(|block, codes| Reader.read(block, codes), &out, &mut values);
        assert_eq!(values, expected);
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            block_values(|block, codes| Reader.read_avx2(simd, block, codes), &out, &mut values);
            assert_eq!(values, expected);
        }
    }
}
