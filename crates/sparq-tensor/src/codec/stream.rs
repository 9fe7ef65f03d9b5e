//! Codes as one stream of bits: code `i` at bits `i·b` to `i·b + b − 1` of 32-bit little-endian words. For widths that
//! divide 32 no code crosses a word.

/// Words that `count` codes of `bits` bits take.
pub(crate) fn words(count: usize, bits: u32) -> usize {
    // Half the multiplication, so that it cannot overflow for any slice length.
    count / 32 * bits as usize + (count % 32 * bits as usize).div_ceil(32)
}

/// Writes codes into words, which must be zero and enough. Higher bits of a code are dropped.
pub(super) fn write_stream(codes: impl IntoIterator<Item = u8>, bits: u32, words: &mut [u32]) {
    let mask = (1u32 << bits) - 1;
    for (index, code) in codes.into_iter().enumerate() {
        let (code, at) = (u32::from(code) & mask, index * bits as usize);
        let (word, shift) = (at / 32, (at % 32) as u32);
        words[word] |= code << shift;
        if shift + bits > 32 {
            words[word + 1] |= code >> (32 - shift);
        }
    }
}

/// Reads as many codes as `out` holds from words, which must be enough.
pub(super) fn read_words(words: &[u32], bits: u32, out: &mut [u8]) {
    let mask = (1u32 << bits) - 1;
    for (index, out) in out.iter_mut().enumerate() {
        let at = index * bits as usize;
        let (word, shift) = (at / 32, (at % 32) as u32);
        let mut code = words[word] >> shift;
        if shift + bits > 32 {
            code |= words[word + 1] << (32 - shift);
        }
        *out = (code & mask) as u8;
    }
}

/// As [`read_words`], from the words' little-endian bytes.
pub(crate) fn read_stream(bytes: &[u8], bits: u32, out: &mut [u8]) {
    let mask = ((1u16 << bits) - 1) as u8;
    match bits {
        8 => out.copy_from_slice(&bytes[..out.len()]),
        4 => {
            let (pairs, last) = out.as_chunks_mut::<2>();
            for (pair, byte) in pairs.iter_mut().zip(bytes) {
                *pair = [byte & 15, byte >> 4];
            }
            if let ([last], Some(byte)) = (last, bytes.get(pairs.len())) {
                *last = byte & 15;
            }
        }
        _ => {
            for (index, out) in out.iter_mut().enumerate() {
                let at = index * bits as usize;
                let (byte, shift) = (at / 8, at % 8);
                let next = bytes.get(byte + 1).copied().unwrap_or(0);
                *out = (u16::from_le_bytes([bytes[byte], next]) >> shift) as u8 & mask;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_readers_give_back_what_was_written(codes in prop::collection::vec(0u8.., 0..200), bits in 1u32..=8) {
            let mask = ((1u16 << bits) - 1) as u8;
            let expected: Vec<u8> = codes.iter().map(|code| code & mask).collect();
            let mut packed = vec![0u32; words(codes.len(), bits)];
            prop_assert_eq!(packed.len(), (codes.len() * bits as usize).div_ceil(32));
            write_stream(codes.iter().copied(), bits, &mut packed);
            let mut read = vec![0; codes.len()];
            read_words(&packed, bits, &mut read);
            prop_assert_eq!(&read, &expected);
            let bytes: Vec<u8> = packed.iter().flat_map(|word| word.to_le_bytes()).collect();
            read_stream(&bytes, bits, &mut read);
            prop_assert_eq!(&read, &expected);
        }
    }
}
