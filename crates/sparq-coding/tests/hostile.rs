//! Damaged and invented bytes give errors, never a panic.
#![allow(clippy::unwrap_used)]

mod common;

use common::{layer, reseal};
use proptest::prelude::*;
use sparq_coding::{Decoder, Error, encode};

const SHAPE: (usize, usize) = (40, 70);

/// Two blocks' worth of shapes would be large: one block, three classes, escapes and a last group of 8 rows.
fn honest() -> Vec<u8> {
    let (mut codes, classes) = layer(SHAPE, 3, 1.0);
    codes[100] = 12_345;
    codes[2_700] = -12_345;
    encode(&codes, SHAPE, &classes).unwrap()
}

fn decode(bytes: &[u8]) -> Result<Vec<i16>, Error> {
    Decoder::new(bytes, SHAPE)?.decode_all()
}

fn with(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    bytes[at..at + value.len()].copy_from_slice(value);
    reseal(&mut bytes);
    bytes
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = honest();
    assert!(decode(&bytes).is_ok());
    for length in 0..bytes.len() {
        let mut cut = bytes[..length].to_vec();
        assert!(decode(&cut).is_err(), "{length} bytes");
        reseal(&mut cut);
        assert!(decode(&cut).is_err(), "{length} bytes, resealed");
    }
    assert!(decode(&[bytes, vec![0]].concat()).is_err());
}

#[test]
fn every_changed_byte_is_an_error() {
    let bytes = honest();
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            assert!(decode(&changed).is_err(), "byte {at} ^ {flip}");
        }
    }
}

#[test]
fn changed_bytes_with_right_checksums_do_no_harm() {
    let bytes = honest();
    let codes = decode(&bytes).unwrap();
    for at in 0..bytes.len() {
        for flip in 1..=255 {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            reseal(&mut changed);
            if let Ok(other) = decode(&changed) {
                assert_eq!(other.len(), codes.len());
            }
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let bytes = honest();
    let header = |field, value, expected| Err(Error::Header { field, value, expected });
    assert_eq!(decode(b"SPQ"), Err(Error::Truncated { what: "the format's name", needed: 4, left: 3 }));
    assert_eq!(decode(&with(bytes.clone(), 0, b"GGUF")), Err(Error::Magic));
    assert_eq!(decode(&with(bytes.clone(), 4, &[2, 0])), Err(Error::Version { found: 2 }));
    assert_eq!(Decoder::new(&bytes, (40, 71)).unwrap_err(), Error::Shape { found: (40, 70), expected: (40, 71) });
    let many = "1 to 64, or 0 where there are no codes";
    assert_eq!(decode(&with(bytes.clone(), 6, &[65, 0])), header("the number of classes", 65, many));
    assert_eq!(decode(&with(bytes.clone(), 6, &[0, 0])), header("the number of classes", 0, many));
    for block_rows in [0_u8, 8, 40] {
        let changed = with(bytes.clone(), 16, &[block_rows, 0, 0, 0]);
        assert_eq!(decode(&changed), header("the rows of a block", block_rows.into(), "a multiple of 16"));
    }
    // Two bits a column, from byte 24 on.
    let changed = with(bytes.clone(), 24, &[0xff]);
    assert_eq!(decode(&changed), header("a column's class", 3, "below the number of classes"));
    // After the classes the first table: lowest code, number of frequencies, escape, frequencies.
    let table = 24 + (70_usize * 2).div_ceil(8);
    let changed = with(bytes.clone(), table + 2, &[bytes[table + 2] + 1]);
    assert_eq!(decode(&changed), header("the sum of a table's frequencies", 4097, "4096"));

    let mut changed = bytes.clone();
    changed[9] ^= 1;
    assert_eq!(decode(&changed), Err(Error::HeaderChecksum));
    let last = bytes.len() - 1;
    let mut changed = bytes.clone();
    changed[last] ^= 1;
    assert_eq!(decode(&changed), Err(Error::BlockChecksum { block: 0 }));
    reseal(&mut changed);
    let problem = "does not end where its encoder began";
    assert_eq!(decode(&changed), Err(Error::Block { block: 0, problem }));
}

#[test]
fn a_short_block_is_told_from_a_long_one() {
    let bytes = honest();
    let header = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
    let length = (bytes.len() - header) as u32;
    let resized = |change: i32| {
        let mut changed = bytes.clone();
        changed.resize((bytes.len() as i32 + change) as usize, 0);
        with(changed, header - 12, &length.saturating_add_signed(change).to_le_bytes())
    };
    let error = |problem| Err(Error::Block { block: 0, problem });
    assert_eq!(decode(&resized(-2)), error("ends before its last code"));
    assert_eq!(decode(&resized(1)), error("has an odd number of bytes"));
    assert_eq!(decode(&resized(2)), error("does not end where its encoder began"));
    assert_eq!(decode(&resized(-(length as i32))), error("ends before its last code"));
}

#[test]
fn a_large_shape_in_few_bytes_allocates_only_what_the_caller_expects() {
    // The caller expects a small one.
    let bytes = honest();
    let huge = with(bytes.clone(), 8, &[0xff; 8]);
    let found = (u32::MAX as usize, u32::MAX as usize);
    assert_eq!(decode(&huge), Err(Error::Shape { found, expected: SHAPE }));
    // The caller expects it, but the header has no room for its classes or its blocks.
    let wide = with(bytes.clone(), 12, &(1_u32 << 24).to_le_bytes());
    assert!(matches!(
        Decoder::new(&wide, (40, 1 << 24)),
        Err(Error::Truncated { what: "the classes of the columns", .. })
    ));
    let high = with(bytes, 8, &u32::MAX.to_le_bytes());
    let error = Decoder::new(&high, (u32::MAX as usize, 70)).unwrap_err();
    assert!(matches!(error, Error::Truncated { what: "the lengths of the blocks", .. }), "{error}");
}

proptest! {
    #[test]
    fn invented_bytes_do_no_harm(fields in any::<[u8; 20]>(), rest in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = [b"SPQC".as_slice(), &fields, &rest].concat();
        bytes[4..6].copy_from_slice(&[1, 0]);
        bytes[6..20].copy_from_slice(&[3, 0, 40, 0, 0, 0, 70, 0, 0, 0, 48, 0, 0, 0]);
        let length = (28 + usize::from(fields[19])).min(bytes.len().max(28)) as u32;
        bytes[20..24].copy_from_slice(&length.to_le_bytes());
        reseal(&mut bytes);
        let _ = decode(&bytes);
    }
}
