//! The block decoders against ggml's own output and against a slow reading of the layout tables.

use half::f16;
use proptest::prelude::*;

use crate::DType;
use crate::codec::tensor::decode;

/// Encodings of [`input`] made by ggml (gcc -O2, no fused multiply-add), its sum and mean squared error, and its first
/// values.
const GOLDEN: &str = include_str!("golden_ggml.txt");

const QUANTIZED: [DType; 10] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];

fn input() -> Vec<f32> {
    (0..256).map(|i| (((73 * i + 19) % 257 - 128) as f32) / 64.0).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Whether `value` prints as `printed`, a number of so many significant digits.
fn prints_as(value: f64, printed: &str, digits: i32) -> bool {
    let printed: f64 = printed.parse().unwrap();
    let unit = 10f64.powi(value.abs().max(1e-30).log10().floor() as i32 + 1 - digits);
    (value - printed).abs() <= 0.51 * unit
}

fn check_line(line: &str) {
    let mut fields = line.split_whitespace();
    let (name, bytes) = (fields.next().unwrap(), fields.next().unwrap());
    let dtype = QUANTIZED.into_iter().find(|dtype| dtype.to_string() == name).unwrap();
    assert_eq!(bytes.parse::<usize>().unwrap(), dtype.block_bytes(), "{name}");
    let block = unhex(fields.next().unwrap());
    let values = decode(dtype, &block, dtype.block_size()).unwrap();
    assert_eq!(values, oracle(dtype, &block), "{name}");

    let sum = fields.next().unwrap().strip_prefix("sum=").unwrap();
    let total = values.iter().map(|&value| f64::from(value)).sum::<f64>();
    assert!(prints_as(total, sum, 9), "{name}: {total} is not {sum}");
    let error = fields.next().unwrap().strip_prefix("mse=").unwrap();
    let squared: f64 = input().iter().zip(&values).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    assert!(
        prints_as(squared / values.len() as f64, error, 6),
        "{name}: {} is not {error}",
        squared / values.len() as f64
    );
    let first = fields.next().unwrap().strip_prefix("y0..7=").unwrap().trim_end_matches(',');
    for (value, printed) in values.iter().zip(first.split(',')) {
        assert!(prints_as(f64::from(*value), printed, 7), "{name}: {value} is not {printed}");
    }
    let last = fields.next().unwrap().strip_prefix("y[k-1]=").unwrap();
    assert!(prints_as(f64::from(values[values.len() - 1]), last, 7), "{name}: {values:?} does not end with {last}");
}

/// Element by element from the layout tables, without any sharing of work between elements.
fn oracle(dtype: DType, b: &[u8]) -> Vec<f32> {
    let half = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    let nibble = |start: usize, j: usize| if j < 16 { b[start + j] & 15 } else { b[start + j - 16] >> 4 };
    let bit = |start: usize, j: usize| b[start + j / 8] >> (j % 8) & 1;
    // 2-bit field of element e, 4 per byte, in halves of 128.
    let pair = |start: usize, e: usize| b[start + 32 * (e / 128) + e % 32] >> (2 * (e % 128 / 32)) & 3;
    let six = |s: usize| -> (u8, u8) {
        if s < 4 {
            (b[4 + s] & 63, b[4 + s + 4] & 63)
        } else {
            ((b[4 + s + 4] & 15) | (b[4 + s - 4] >> 6) << 4, (b[4 + s + 4] >> 4) | (b[4 + s] >> 6) << 4)
        }
    };
    let nibble_k = |start: usize, e: usize| b[start + 32 * (e / 64) + e % 32] >> (4 * (e % 64 / 32)) & 15;
    let element = |e: usize| -> f32 {
        match dtype {
            DType::Q4_0 => half(0) * (f32::from(nibble(2, e)) - 8.0),
            DType::Q4_1 => half(0) * f32::from(nibble(4, e)) + half(2),
            DType::Q5_0 => half(0) * (f32::from(nibble(6, e) + 16 * bit(2, e)) - 16.0),
            DType::Q5_1 => half(0) * f32::from(nibble(8, e) + 16 * bit(4, e)) + half(2),
            DType::Q8_0 => half(0) * f32::from(b[2 + e] as i8),
            DType::Q2_K => {
                let packed = b[e / 16];
                half(80) * f32::from(packed & 15) * f32::from(pair(16, e)) - half(82) * f32::from(packed >> 4)
            }
            DType::Q3_K => {
                let s = e / 16;
                let low = if s < 8 { b[96 + s] & 15 } else { b[96 + s - 8] >> 4 };
                let scale = low + 16 * (b[96 + 8 + s % 4] >> (2 * (s / 4)) & 3);
                let third = b[e % 32] >> (e / 32) & 1;
                let code = f32::from(pair(32, e)) - if third == 1 { 0.0 } else { 4.0 };
                half(108) * (f32::from(scale) - 32.0) * code
            }
            DType::Q4_K => {
                let (scale, minimum) = six(e / 32);
                half(0) * f32::from(scale) * f32::from(nibble_k(16, e)) - half(2) * f32::from(minimum)
            }
            DType::Q5_K => {
                let (scale, minimum) = six(e / 32);
                let code = nibble_k(48, e) + 16 * (b[16 + e % 32] >> (e / 32) & 1);
                half(0) * f32::from(scale) * f32::from(code) - half(2) * f32::from(minimum)
            }
            DType::Q6_K => {
                let (part, within) = (e / 128, e % 128);
                let low = b[64 * part + within % 64] >> (4 * (within / 64)) & 15;
                let code = low + 16 * pair(128, e);
                half(208) * f32::from(b[192 + e / 16] as i8) * (f32::from(code) - 32.0)
            }
            other => panic!("{other}"),
        }
    };
    (0..dtype.block_size()).map(element).collect()
}

#[test]
fn golden_blocks_decode_as_in_ggml() {
    let lines: Vec<&str> = GOLDEN.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), QUANTIZED.len());
    lines.into_iter().for_each(check_line);
}

proptest! {
    #[test]
    fn any_block_decodes_as_the_tables_say(bytes in prop::collection::vec(any::<u8>(), 210 * 2), which in 0..10usize) {
        let dtype = QUANTIZED[which];
        let bytes = &bytes[..2 * dtype.block_bytes()];
        // Zeros come without a sign.
        let bit = |v: &f32| if v.is_nan() { 0 } else { (v + 0.0).to_bits() };
        let bits = |values: &[f32]| values.iter().map(bit).collect::<Vec<_>>();
        let decoded = decode(dtype, bytes, 2 * dtype.block_size()).unwrap();
        let expected: Vec<f32> = bytes.chunks(dtype.block_bytes()).flat_map(|block| oracle(dtype, block)).collect();
        prop_assert_eq!(bits(&decoded), bits(&expected));
    }
}
