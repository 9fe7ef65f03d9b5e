use super::{LANES, LOWEST, TILE, Tile};
use crate::table::{SLOT_BITS, Table};
use std::hint::select_unpredictable;

/// A table as the encoder reads it.
#[derive(Debug)]
pub(crate) struct Symbols {
    low: i16,
    /// First slot and frequency of each code, and at the end those of the escape.
    entries: Vec<(u16, u16)>,
}

impl Symbols {
    pub(crate) fn new(table: &Table) -> Self {
        let mut start = 0;
        let frequencies = table.frequencies.iter().chain([&table.escape]);
        let entries = frequencies.map(|&frequency| {
            let entry = (start, frequency.max(1)); // what has no frequency does not occur
            start += frequency;
            entry
        });
        Self { low: table.low as i16, entries: entries.collect() }
    }
}

/// The words of a block: two of each lane's state, then what the decoder takes one after the other. `codes` are rows of
/// `classes.len()` columns; all of them have a frequency, or there is an escape.
///
/// The encoder goes backwards, from the last code to the first, and so do the words it puts down.
pub(crate) fn encode_block(codes: &[i16], classes: &[u8], tables: &[Symbols]) -> Vec<u16> {
    let columns = classes.len();
    let lanes = (codes.len() / columns).min(LANES);
    let mut states = [LOWEST; LANES];
    let mut words = Vec::with_capacity(codes.len() / 4 + 4 * LANES);
    let mut tile: Tile = [[0; LANES]; TILE];
    for group in codes.chunks(LANES * columns).rev() {
        let rows = group.len() / columns;
        for (at, classes) in classes.chunks(TILE).enumerate().rev() {
            for (lane, row) in group.chunks_exact(columns).enumerate() {
                let row = &row[at * TILE..][..classes.len()];
                tile.iter_mut().zip(row).for_each(|(column, &code)| column[lane] = code);
            }
            for (codes, &class) in tile.iter().zip(classes).rev() {
                let table = &tables[usize::from(class)];
                if rows == LANES {
                    encode_step(&mut states, codes, table, &mut words);
                } else {
                    encode_step(&mut states[..rows], &codes[..rows], table, &mut words);
                }
            }
        }
    }
    for state in states[..lanes].iter().rev() {
        words.extend([(state >> 16) as u16, *state as u16]);
    }
    words.reverse();
    words
}

/// One column's codes, the last lane first.
fn encode_step(states: &mut [u32], codes: &[i16], table: &Symbols, words: &mut Vec<u16>) {
    let escape = table.entries.len() - 1;
    let symbol = |code: i16| usize::from(code.wrapping_sub(table.low) as u16).min(escape);
    words.extend(codes.iter().rev().filter(|&&code| symbol(code) == escape).map(|&code| code as u16));
    let mut put = [0; LANES];
    let mut count = 0;
    for (state, &code) in states.iter_mut().zip(codes).rev() {
        let (start, frequency) = table.entries[symbol(code)];
        let (start, frequency) = (u32::from(start), u32::from(frequency));
        put[count % LANES] = *state as u16;
        let full = u64::from(*state) >= u64::from(frequency) << (32 - SLOT_BITS);
        let room = select_unpredictable(full, *state >> 16, *state);
        count += usize::from(full);
        *state = ((room / frequency) << SLOT_BITS) + room % frequency + start;
    }
    words.extend_from_slice(&put[..count]);
}
