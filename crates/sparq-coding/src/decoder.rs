use crate::error::{Error, Result};
use crate::header::Header;
use crate::rans::{Slots, decode_block};
use rayon::prelude::*;
use std::ops::Range;

/// Codes that [`encode`](crate::encode()) wrote, to be decoded in whole or in part.
///
/// Bytes of unknown origin are safe to decode: the caller states the shape, nothing beyond it is decoded, and tables take
/// at most 768 KiB.
#[derive(Debug)]
pub struct Decoder<'a> {
    header: Header,
    tables: Vec<Slots>,
    blocks: Vec<&'a [u8]>,
}

impl<'a> Decoder<'a> {
    /// Reads and checks the header of a coded matrix of `shape` (rows, columns). `bytes` are all of it and nothing else.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bytes hold another matrix; any of the errors about bytes if they are damaged.
    pub fn new(bytes: &'a [u8], shape: (usize, usize)) -> Result<Self> {
        let (header, mut rest) = Header::parse(bytes, shape)?;
        let mut blocks = Vec::with_capacity(header.blocks.len());
        for &(length, _) in &header.blocks {
            let (needed, left) = (length as usize, rest.len());
            let (block, after) =
                rest.split_at_checked(needed).ok_or(Error::Truncated { what: "a block", needed, left })?;
            blocks.push(block);
            rest = after;
        }
        if !rest.is_empty() {
            let (field, expected) = ("what follows the last block", "no bytes");
            return Err(Error::Header { field, value: rest.len(), expected });
        }
        let tables = header.tables.iter().map(Slots::new).collect();
        Ok(Self { header, tables, blocks })
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.header.shape.0
    }

    /// Columns of the matrix.
    pub fn columns(&self) -> usize {
        self.header.shape.1
    }

    /// The rows of each block. Blocks are decoded independently; decoding a part of one takes its rows before that part.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = Range<usize>> {
        let (rows, of) = (self.rows(), self.header.block_rows);
        (0..self.blocks.len()).map(move |block| block * of..(block * of).saturating_add(of).min(rows))
    }

    /// All codes, row by row.
    ///
    /// # Errors
    /// As [`decode_rows`](Self::decode_rows).
    pub fn decode_all(&self) -> Result<Vec<i16>> {
        let mut codes = vec![0; self.rows() * self.columns()];
        self.decode_rows(0..self.rows(), &mut codes)?;
        Ok(codes)
    }

    /// The codes of a range of rows into `codes`, row by row. Blocks are decoded in parallel.
    ///
    /// # Errors
    /// [`Error::Rows`] and [`Error::Length`] if the range or `codes` do not fit; [`Error::BlockChecksum`] and
    /// [`Error::Block`] if a block of these rows is damaged, and `codes` are in no certain state then.
    pub fn decode_rows(&self, range: Range<usize>, codes: &mut [i16]) -> Result<()> {
        let (rows, columns) = self.header.shape;
        if range.start > range.end || range.end > rows {
            return Err(Error::Rows { range, rows });
        }
        let expected = range.len() * columns;
        if codes.len() != expected {
            return Err(Error::Length { what: "the slice for the codes", got: codes.len(), expected });
        }
        let mut rest = codes;
        let mut tasks = Vec::new();
        for (block, of) in self.blocks().enumerate() {
            let wanted = range.start.max(of.start)..range.end.min(of.end);
            if !wanted.is_empty() {
                let (codes, after) = rest.split_at_mut(wanted.len() * columns);
                tasks.push((block, of.len(), wanted.start - of.start..wanted.end - of.start, codes));
                rest = after;
            }
        }
        tasks.into_par_iter().try_for_each(|(block, rows, wanted, codes)| self.decode_part(block, rows, wanted, codes))
    }

    fn decode_part(&self, block: usize, rows: usize, wanted: Range<usize>, codes: &mut [i16]) -> Result<()> {
        let bytes = self.blocks[block];
        if crc32fast::hash(bytes) != self.header.blocks[block].1 {
            return Err(Error::BlockChecksum { block });
        }
        let (words, odd) = bytes.as_chunks();
        if !odd.is_empty() {
            return Err(Error::Block { block, problem: "has an odd number of bytes" });
        }
        let words: Vec<u16> = words.iter().map(|&word| u16::from_le_bytes(word)).collect();
        decode_block(&words, rows, &self.header.classes, &self.tables, wanted, codes)
            .map_err(|problem| Error::Block { block, problem })
    }
}
