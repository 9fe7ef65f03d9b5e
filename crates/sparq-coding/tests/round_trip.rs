//! What goes in comes out, in whole and in part, in about as many bits as there is information.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Noise, layer};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;
use sparq_coding::{Decoder, Error, coded_size, encode, entropy_bits};

fn decoded(bytes: &[u8], shape: (usize, usize)) -> Vec<i16> {
    Decoder::new(bytes, shape).unwrap().decode_all().unwrap()
}

/// A shape, its codes and its classes.
fn matrix() -> impl Strategy<Value = ((usize, usize), Vec<i16>, Vec<u8>)> {
    let code = prop_oneof![20 => -4_i16..4, 2 => -500_i16..500, 1 => any::<i16>()];
    (0..70_usize, 0..90_usize).prop_flat_map(move |(rows, columns)| {
        let codes = prop::collection::vec(code.clone(), rows * columns);
        (Just((rows, columns)), codes, prop::collection::vec(0..64_u8, columns))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_matrix_comes_back((shape, codes, classes) in matrix()) {
        let bytes = encode(&codes, shape, &classes).unwrap();
        prop_assert_eq!(decoded(&bytes, shape), codes);
    }

    #[test]
    fn any_rows_are_those_of_the_whole(
        rows in 1..60_usize, ends in (0..60_usize, 0..60_usize), seed in any::<u64>(), spread in 1..400_u32,
    ) {
        // 16 rows a block.
        let (columns, mut noise) = (8200, Noise(seed));
        let codes: Vec<i16> = (0..rows * columns).map(|_| (noise.below(spread) * noise.below(spread) / 7) as i16).collect();
        let classes: Vec<u8> = (0..columns).map(|column| (column / 3000) as u8).collect();
        let bytes = encode(&codes, (rows, columns), &classes).unwrap();
        let decoder = Decoder::new(&bytes, (rows, columns)).unwrap();
        prop_assert_eq!(decoder.blocks().len(), rows.div_ceil(16));
        let range = ends.0.min(ends.1).min(rows)..ends.0.max(ends.1).min(rows);
        let mut part = vec![0; range.len() * columns];
        decoder.decode_rows(range.clone(), &mut part).unwrap();
        prop_assert!(part == codes[range.start * columns..range.end * columns]);
        prop_assert!(decoder.decode_all().unwrap() == codes);
    }
}

#[test]
fn threads_change_no_bit() {
    let (codes, classes) = layer((200, 3000), 5, 1.5);
    let run = |threads: usize| {
        ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let bytes = encode(&codes, (200, 3000), &classes).unwrap();
            let sizes = (entropy_bits(&codes, &classes).unwrap(), coded_size(&codes, (200, 3000), &classes).unwrap());
            (decoded(&bytes, (200, 3000)), bytes, sizes)
        })
    };
    let one = run(1);
    assert_eq!(one.0, codes);
    assert!(run(2) == one && run(4) == one);
}

#[test]
fn matrices_without_codes_are_a_header() {
    for shape in [(0, 0), (0, 5), (5, 0), (4_000_000_000, 0)] {
        let classes = vec![63; shape.1];
        let bytes = encode(&[], shape, &classes).unwrap();
        assert_eq!((bytes.len(), coded_size(&[], shape, &classes).unwrap()), (28, 28));
        let decoder = Decoder::new(&bytes, shape).unwrap();
        assert_eq!((decoder.rows(), decoder.columns(), decoder.blocks().len()), (shape.0, shape.1, 0));
        assert_eq!(decoder.decode_all().unwrap(), []);
        decoder.decode_rows(0..shape.0, &mut []).unwrap();
    }
    assert_eq!(entropy_bits(&[], &[]).unwrap(), 0.0);
}

#[test]
fn one_code_everywhere_takes_no_bits() {
    for code in [0, -3, i16::MIN, i16::MAX] {
        let bytes = encode(&vec![code; 1000 * 1000], (1000, 1000), &[0; 1000]).unwrap();
        assert_eq!(decoded(&bytes, (1000, 1000)), vec![code; 1000 * 1000]);
        assert!(bytes.len() < 28 + 10 + 8 * (8 + 64), "{} bytes", bytes.len());
    }
}

#[test]
fn uniform_codes_take_their_width() {
    let mut noise = Noise(1);
    for (bits, most) in [(1_u32, 1.005), (8, 8.02), (16, 16.01)] {
        let codes: Vec<i16> =
            (0..512 * 1024).map(|_| (noise.below(1 << bits) as i32 - (1 << (bits - 1))) as i16).collect();
        let bytes = encode(&codes, (512, 1024), &[0; 1024]).unwrap();
        assert!(decoded(&bytes, (512, 1024)) == codes);
        let stored = 8.0 * bytes.len() as f64 / codes.len() as f64;
        assert!(stored < most, "{bits} bits take {stored}");
    }
}

#[test]
fn codes_far_from_the_others_escape() {
    let (mut codes, classes) = layer((64, 256), 1, 2.0);
    codes[..3].copy_from_slice(&[i16::MIN, i16::MAX, 20_000]);
    codes[64 * 256 - 1] = -20_000;
    let bytes = encode(&codes, (64, 256), &classes).unwrap();
    assert_eq!(decoded(&bytes, (64, 256)), codes);
    let (plain, _) = layer((64, 256), 1, 2.0);
    let without = encode(&plain, (64, 256), &classes).unwrap().len();
    assert!(bytes.len() < without + 24, "{} bytes with, {without} without", bytes.len());
}

#[test]
fn a_layer_takes_hardly_more_than_its_entropy() {
    for (bits, deviation) in [(2, 1.05), (3, 2.1), (4, 4.2)] {
        for (shape, most) in [((576, 1536), 0.01 * f64::from(bits)), ((512, 2048), 0.02)] {
            let (codes, classes) = layer(shape, 16, deviation);
            let weights = codes.len() as f64;
            let entropy = entropy_bits(&codes, &classes).unwrap() / weights;
            let bytes = encode(&codes, shape, &classes).unwrap();
            let side = 8.0 * bytes.len() as f64 / weights - entropy;
            assert!((f64::from(bits) - 0.3..f64::from(bits) + 0.3).contains(&entropy), "{entropy}");
            assert!((0.0..most).contains(&side), "{shape:?} at {entropy} bits: {side} more");
            let estimate = coded_size(&codes, shape, &classes).unwrap();
            assert!(estimate.abs_diff(bytes.len()) < 64, "estimated {estimate}, took {}", bytes.len());
        }
    }
}

#[test]
fn entropy_is_that_of_each_class() {
    // A fair coin in one class, certainty in the other.
    let codes = [0, 9, 1, 9, 0, 9, 1, 9];
    assert!((entropy_bits(&codes, &[0, 1]).unwrap() - 4.0).abs() < 1e-12);
    assert!((entropy_bits(&codes, &[5, 5]).unwrap() - (4.0 + 8.0)).abs() < 1e-12);
}

#[test]
fn what_does_not_fit_is_told() {
    let length = |what, got, expected| Err(Error::Length { what, got, expected });
    assert_eq!(encode(&[0; 5], (2, 3), &[0; 3]), length("codes", 5, 6));
    assert_eq!(encode(&[0; 6], (2, 3), &[0; 2]), length("classes", 2, 3));
    assert_eq!(encode(&[0; 6], (2, 3), &[0, 64, 0]), Err(Error::Class { column: 1, class: 64 }));
    assert_eq!(entropy_bits(&[0; 5], &[0; 3]), Err(Error::Length { what: "codes", got: 5, expected: 3 }));
    let (rows, columns) = (1 << 32, 0);
    assert_eq!(coded_size(&[], (rows, columns), &[]), Err(Error::TooLarge { rows, columns }));

    let bytes = encode(&[0; 6], (2, 3), &[0; 3]).unwrap();
    let decoder = Decoder::new(&bytes, (2, 3)).unwrap();
    assert_eq!(decoder.decode_rows(1..3, &mut [0; 6]), Err(Error::Rows { range: 1..3, rows: 2 }));
    let slice = Error::Length { what: "the slice for the codes", got: 4, expected: 3 };
    assert_eq!(decoder.decode_rows(1..2, &mut [0; 4]), Err(slice));
}
