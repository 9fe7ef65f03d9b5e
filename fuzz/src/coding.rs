#[path = "../../crates/sparq-coding/tests/common/mod.rs"]
mod common;

use sparq_coding::{Decoder, coded_size, encode, entropy_bits};

/// Elements of a matrix that is still decoded: time, not memory, is what this saves.
const DECODED: usize = 1 << 16;

/// A coded matrix. Its checksums are made right first: the fuzzer need not guess them.
pub fn coded(data: &[u8]) {
    let mut bytes = data.to_vec();
    common::reseal(&mut bytes);
    let Some(shape) = bytes.get(8..16) else { return };
    let [rows, columns] = [0, 4].map(|at| u32::from_le_bytes(shape[at..at + 4].try_into().expect("four bytes")) as usize);
    let Ok(decoder) = Decoder::new(&bytes, (rows, columns)) else { return };
    if rows.saturating_mul(columns) <= DECODED {
        let all = decoder.decode_all();
        let (from, to) = (rows / 3, rows - rows / 4);
        let mut part = vec![0; (to - from) * columns];
        if decoder.decode_rows(from..to, &mut part).is_ok() {
            assert!(all.is_err() || all.is_ok_and(|all| all[from * columns..to * columns] == part));
        }
    }
}

/// Codes through the coder and back. The first bytes choose the shape and the classes; of the rest, pairs whose first byte
/// is 128 or more are wide codes, single bytes are narrow ones.
pub fn coding(data: &[u8]) {
    let [rows, columns, classes, rest @ ..] = data else { return };
    let (rows, columns) = (usize::from(*rows), usize::from(columns % 80));
    let classes: Vec<u8> = (0..columns).map(|column| (column * 5) as u8 % (classes % 8 + 1)).collect();
    let mut bytes = rest.iter().copied().cycle().take(if rest.is_empty() { 0 } else { usize::MAX });
    let mut next = || i16::from(bytes.next().unwrap_or(0));
    let codes: Vec<i16> = (0..rows * columns)
        .map(|_| match next() {
            narrow @ 0..128 => narrow - 64,
            wide => wide << 8 | next(),
        })
        .collect();
    let coded = encode(&codes, (rows, columns), &classes).expect("a matrix that fits its shape");
    let decoder = Decoder::new(&coded, (rows, columns)).expect("what was encoded");
    assert_eq!(decoder.decode_all().as_ref(), Ok(&codes));
    let size = coded_size(&codes, (rows, columns), &classes).expect("a matrix that fits its shape");
    assert!(size.abs_diff(coded.len()) <= 128, "{size} instead of {}", coded.len());
    assert!(8.0 * coded.len() as f64 >= entropy_bits(&codes, &classes).expect("a matrix that fits its shape"));
}
