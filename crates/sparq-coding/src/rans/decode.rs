use super::{LANES, LOWEST, TILE, Tile, UNROLLED};
use crate::table::{MAX_SYMBOLS, SLOT_BITS, SLOTS, Table};
use std::hint::select_unpredictable;
use std::ops::Range;

/// A table as the decoder reads it.
#[derive(Debug)]
pub(crate) struct Slots {
    low: i16,
    /// The symbol of an escape, if there are any.
    escape: Option<u16>,
    /// The symbol of each slot: how far its code is above `low`.
    symbols: Box<[u16; SLOTS]>,
    /// For each symbol its frequency (low half) and its first slot (high half).
    entries: Box<[u32; MAX_SYMBOLS]>,
}

impl Slots {
    pub(crate) fn new(table: &Table) -> Self {
        let mut entries = Box::new([0; MAX_SYMBOLS]);
        let mut symbols = Box::new([0; SLOTS]);
        let mut start = 0;
        let frequencies = table.frequencies.iter().chain([&table.escape]);
        for ((symbol, &frequency), entry) in (0..).zip(frequencies).zip(entries.iter_mut()) {
            *entry = start << 16 | u32::from(frequency);
            symbols[start as usize..][..frequency.into()].fill(symbol);
            start += u32::from(frequency);
        }
        let escape = (table.escape > 0).then_some(table.frequencies.len() as u16);
        Self { low: table.low as i16, escape, symbols, entries }
    }
}

/// Decodes the rows `wanted` of a block of `rows` rows into `codes`, from the block's words. What is wrong with the words
/// is said as the end of a sentence that begins with the block.
pub(crate) fn decode_block(
    words: &[u16],
    rows: usize,
    classes: &[u8],
    tables: &[Slots],
    wanted: Range<usize>,
    codes: &mut [i16],
) -> Result<(), &'static str> {
    const SHORT: &str = "ends before its last code";
    let columns = classes.len();
    let lanes = rows.min(LANES);
    let (stored, mut rest) = words.split_at_checked(2 * lanes).ok_or(SHORT)?;
    let mut states = [LOWEST; LANES];
    for (state, halves) in states.iter_mut().zip(stored.chunks_exact(2)) {
        *state = u32::from(halves[0]) | u32::from(halves[1]) << 16;
    }
    let mut tile: Tile = [[0; LANES]; TILE];
    for first in (0..rows).step_by(LANES) {
        if first >= wanted.end {
            return Ok(());
        }
        let group = (rows - first).min(LANES);
        for (at, classes) in classes.chunks(TILE).enumerate() {
            for (codes, &class) in tile.iter_mut().zip(classes) {
                let table = &tables[usize::from(class)];
                rest = if group == LANES {
                    decode_step(&mut states, codes, table, rest)
                } else {
                    decode_step(&mut states[..group], &mut codes[..group], table, rest)
                }
                .ok_or(SHORT)?;
            }
            for row in wanted.start.max(first)..wanted.end.min(first + group) {
                let into = &mut codes[(row - wanted.start) * columns + at * TILE..][..classes.len()];
                into.iter_mut().zip(&tile).for_each(|(code, column)| *code = column[row - first]);
            }
        }
    }
    if states != [LOWEST; LANES] || !rest.is_empty() {
        return Err("does not end where its encoder began");
    }
    Ok(())
}

/// One column's codes, the first lane first; gives the words that are left, or `None` where they do not suffice.
fn decode_step<'a>(states: &mut [u32], codes: &mut [i16], table: &Slots, words: &'a [u16]) -> Option<&'a [u16]> {
    // Near the block's end there are fewer words than lanes could take.
    let mut last = [0; LANES];
    let next: &[u16; LANES] = if let Some(next) = words.first_chunk() {
        next
    } else {
        last[..words.len()].copy_from_slice(words);
        &last
    };
    let mut symbols = [[0; UNROLLED]; LANES / UNROLLED];
    let mut count = 0;
    let mut advance = |(state, symbol): (&mut u32, &mut u16)| {
        let slot = *state % SLOTS as u32;
        *symbol = table.symbols[slot as usize];
        let entry = table.entries[usize::from(*symbol) % MAX_SYMBOLS];
        let advanced = (entry & 0xffff) * (*state >> SLOT_BITS) + slot - (entry >> 16);
        let low = advanced < LOWEST;
        *state = select_unpredictable(low, advanced << 16 | u32::from(next[count % LANES]), advanced);
        count += usize::from(low);
    };
    let (many, few) = states.as_chunks_mut::<UNROLLED>();
    many.iter_mut()
        .zip(&mut symbols)
        .for_each(|(states, symbols)| states.iter_mut().zip(symbols).for_each(&mut advance));
    few.iter_mut().zip(symbols[many.len()..].as_flattened_mut()).for_each(advance);
    let symbols = symbols.as_flattened();
    for (code, &symbol) in codes.iter_mut().zip(symbols) {
        *code = table.low.wrapping_add(symbol as i16);
    }
    let mut words = words.get(count..)?;
    if let Some(escape) = table.escape
        && symbols.iter().filter(|&&symbol| symbol == escape).count() > 0
    {
        for (code, &symbol) in codes.iter_mut().zip(symbols) {
            if symbol == escape {
                let (&word, after) = words.split_first()?;
                (*code, words) = (word as i16, after);
            }
        }
    }
    Some(words)
}
