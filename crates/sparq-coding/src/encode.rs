use crate::classes::classes;
use crate::error::Result;
use crate::header::{Header, block_rows};
use crate::histogram::{Histogram, check, histograms};
use crate::rans::{Symbols, encode_block};
use crate::table::Table;
use rayon::prelude::*;

/// Encodes a matrix of integer codes; [`Decoder`](crate::Decoder) gives them back.
///
/// `codes` are the matrix of `shape` (rows, columns), row by row. `classes` has one number below
/// [`MAX_CLASSES`](crate::MAX_CLASSES) for each column; columns of one class share a table of frequencies, so they should
/// spread alike. A table takes about 40 bytes at 3 to 4 bits a code. The bytes are the same for any number of threads.
///
/// # Errors
/// [`Error::Length`](crate::Error::Length), [`Error::Class`](crate::Error::Class) and
/// [`Error::TooLarge`](crate::Error::TooLarge) say what does not fit the shape or the format.
///
/// # Examples
/// ```
/// let codes = [3, 0, -1, 0, 0, 1];
/// let bytes = sparq_coding::encode(&codes, (2, 3), &[1, 0, 0])?;
/// assert_eq!(sparq_coding::Decoder::new(&bytes, (2, 3))?.decode_all()?, codes);
/// # Ok::<(), sparq_coding::Error>(())
/// ```
pub fn encode(codes: &[i16], shape: (usize, usize), classes: &[u8]) -> Result<Vec<u8>> {
    check(codes, shape, classes)?;
    let (mut header, _) = plan(codes, shape, classes);
    let symbols: Vec<Symbols> = header.tables.iter().map(Symbols::new).collect();
    let blocks: Vec<Vec<u8>> = codes
        .par_chunks((header.block_rows * shape.1).max(1))
        .map(|block| stored(&encode_block(block, &header.classes, &symbols)))
        .collect();
    header.blocks = blocks.iter().map(|block| (block.len() as u32, crc32fast::hash(block))).collect();
    let mut bytes = header.stored();
    bytes.reserve_exact(blocks.iter().map(Vec::len).sum());
    for block in blocks {
        bytes.extend(block);
    }
    Ok(bytes)
}

/// As [`encode`], with the [classes](crate::classes()) that the codes themselves suggest.
///
/// # Errors
/// Those of [`encode`].
pub fn encode_matrix(codes: &[i16], shape: (usize, usize)) -> Result<Vec<u8>> {
    encode(codes, shape, &classes(codes, shape)?)
}

/// Words as bytes, the low one first.
fn stored(words: &[u16]) -> Vec<u8> {
    words.iter().map(|word| word.to_le_bytes()).collect::<Vec<_>>().into_flattened()
}

/// The header without its blocks, and what each table was made for. Classes without columns are left out.
pub(crate) fn plan(codes: &[i16], shape: (usize, usize), classes: &[u8]) -> (Header, Vec<Histogram>) {
    let block_rows = block_rows(shape.1);
    let mut header = Header { shape, block_rows, tables: Vec::new(), classes: Vec::new(), blocks: Vec::new() };
    if codes.is_empty() {
        return (header, Vec::new());
    }
    let mut kept = Vec::new();
    let mut renumbered = Vec::new();
    for histogram in histograms(codes, classes) {
        renumbered.push(kept.len() as u8);
        if let Some(table) = Table::fit(&histogram) {
            header.tables.push(table);
            kept.push(histogram);
        }
    }
    header.classes = classes.iter().map(|&class| renumbered[usize::from(class)]).collect();
    (header, kept)
}
