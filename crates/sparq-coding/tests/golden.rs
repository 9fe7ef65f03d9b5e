//! The format does not drift: fixed matrices have fixed bytes. scripts/interop/sparq_decoder.py reads the same file.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use sparq_coding::{Decoder, encode};

fn numbers(value: &Value) -> impl Iterator<Item = i64> {
    value.as_array().unwrap().iter().map(|number| number.as_i64().unwrap())
}

#[test]
fn golden_matrices_have_their_bytes() {
    let cases: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let [rows, columns] = ["rows", "columns"].map(|name| case[name].as_u64().unwrap() as usize);
        let classes: Vec<u8> = numbers(&case["classes"]).map(|class| class as u8).collect();
        let classes: Vec<u8> = classes.into_iter().cycle().take(columns).collect();
        let mut codes = vec![0; rows * columns];
        for pair in case["nonzero"].as_array().unwrap() {
            let (place, code) = (pair[0].as_u64().unwrap(), pair[1].as_i64().unwrap());
            codes[place as usize] = code as i16;
        }
        let golden: String = case["bytes"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();

        let bytes = encode(&codes, (rows, columns), &classes).unwrap();
        let byte = |at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap();
        let golden: Vec<u8> = (0..golden.len()).step_by(2).map(byte).collect();
        assert_eq!(bytes, golden, "{rows} x {columns}");
        assert_eq!(Decoder::new(&bytes, (rows, columns)).unwrap().decode_all().unwrap(), codes);
    }
}
