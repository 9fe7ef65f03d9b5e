//! ggml's 32-element blocks: one half-precision scale each, in the `_1` variants also a minimum.
//!
//! The operations and their order are ggml's (without fused multiply-add), so the results are equal to the bit.

use half::f16;

pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `d`, 16 bytes of nibbles: element `j` low, element `j + 16` high.
pub(crate) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = (i32::from(byte & 15) - 8) as f32 * scale;
        *high = (i32::from(byte >> 4) - 8) as f32 * scale;
    }
}

/// `d`, `m`, nibbles as [`q4_0`].
pub(crate) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[4..]) {
        *low = f32::from(byte & 15) * scale + minimum;
        *high = f32::from(byte >> 4) * scale + minimum;
    }
}

/// `d`, a word whose bit `j` is the fifth bit of element `j`, nibbles.
pub(crate) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let (low, high) = out.split_at_mut(16);
    for (j, ((low, high), &byte)) in low.iter_mut().zip(high).zip(&block[6..]).enumerate() {
        *low = (five_bits(byte & 15, fifth >> j) - 16) as f32 * scale;
        *high = (five_bits(byte >> 4, fifth >> (j + 16)) - 16) as f32 * scale;
    }
}

/// `d`, `m`, fifth bits and nibbles as [`q5_0`].
pub(crate) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    let (low, high) = out.split_at_mut(16);
    for (j, ((low, high), &byte)) in low.iter_mut().zip(high).zip(&block[8..]).enumerate() {
        *low = five_bits(byte & 15, fifth >> j) as f32 * scale + minimum;
        *high = five_bits(byte >> 4, fifth >> (j + 16)) as f32 * scale + minimum;
    }
}

/// `d`, 32 signed bytes.
pub(crate) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (out, &code) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(code as i8) * scale;
    }
}

fn five_bits(nibble: u8, fifth: u32) -> i32 {
    i32::from(nibble) | ((fifth & 1) << 4) as i32
}
