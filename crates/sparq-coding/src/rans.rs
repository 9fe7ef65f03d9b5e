//! rANS with a 32-bit state for each lane, 16-bit words and 12-bit frequencies. Lane `l` codes rows `l`, `l + 16`, ... of
//! a block, so all lanes use one table at a time.

mod decode;
mod encode;

pub(crate) use decode::{Slots, decode_block};
pub(crate) use encode::{Symbols, encode_block};

/// Rows that are coded side by side: enough for the processor to overlap the steps of one lane with the others'.
pub(crate) const LANES: usize = 16;
/// The state that an encoder starts with, and the lowest one between two steps.
const LOWEST: u32 = 1 << 16;
/// Lanes that are written out one after the other in the machine's code: a fifth faster than a loop over single ones.
const UNROLLED: usize = 4;
/// Columns that are transposed at a time: 2 KiB.
const TILE: usize = 64;
/// Codes of `TILE` columns of as many rows as there are lanes.
type Tile = [[i16; LANES]; TILE];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{SLOTS, Table};

    /// Four lanes of one column by hand.
    #[test]
    fn a_step_is_the_textbooks() {
        let table = Table { low: -1, frequencies: vec![1024, 2048, 1024], escape: 0 };
        let codes = [-1, 0, 1, 0];
        let words = encode_block(&codes, &[0], &[Symbols::new(&table)]);
        // state = (65536 / frequency) * 4096 + 65536 % frequency + start
        let states = [64 * 4096, 32 * 4096 + 1024, 64 * 4096 + 3072, 32 * 4096 + 1024_u32];
        let expected: Vec<u16> = states.iter().flat_map(|&state| [state as u16, (state >> 16) as u16]).collect();
        assert_eq!(words, expected);
        let mut decoded = [9; 4];
        decode_block(&words, 4, &[0], &[Slots::new(&table)], 0..4, &mut decoded).unwrap();
        assert_eq!(decoded, codes);
    }

    #[test]
    fn states_and_slots_hold_the_extremes() {
        // A single symbol takes no bits; one of 4095 of 4096 beside an escape.
        for (table, code) in [
            (Table { low: 5, frequencies: vec![SLOTS as u16], escape: 0 }, 5),
            (Table { low: 5, frequencies: vec![SLOTS as u16 - 1], escape: 1 }, 5),
            (Table { low: 5, frequencies: vec![1], escape: SLOTS as u16 - 1 }, 5),
            (Table { low: 5, frequencies: vec![], escape: SLOTS as u16 }, i16::MIN),
        ] {
            let codes = vec![code; 40 * 1000];
            let words = encode_block(&codes, &[0; 1000], &[Symbols::new(&table)]);
            let mut decoded = vec![0; codes.len()];
            decode_block(&words, 40, &[0; 1000], &[Slots::new(&table)], 0..40, &mut decoded).unwrap();
            assert_eq!(decoded, codes, "{table:?}");
        }
    }
}
