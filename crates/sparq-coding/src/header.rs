use crate::error::{Error, Result};
use crate::rans::LANES;
use crate::table::{MAX_SYMBOLS, SLOTS, Table};
use crate::{MAX_CLASSES, MAX_COLUMNS, MAX_ROWS};

/// The first bytes.
pub(crate) const MAGIC: [u8; 4] = *b"SPQC";
/// The only version there is.
pub(crate) const VERSION: u16 = 1;
/// Bytes of the fields that are always there.
const FIXED: usize = 24;
/// Bytes of a block's length and checksum.
const BLOCK_ENTRY: usize = 8;
/// Bytes of the header's checksum.
const CHECKSUM: usize = 4;
/// Codes of a block, about: 40 bytes of states, length and checksum are 0.0024 bits a code.
const BLOCK_CODES: usize = 1 << 17;

/// Everything before the blocks. docs/coding.md has its layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Rows and columns.
    pub shape: (usize, usize),
    /// Rows of each block but the last; a multiple of the lanes.
    pub block_rows: usize,
    /// One table for each class.
    pub tables: Vec<Table>,
    /// Which table a column uses.
    pub classes: Vec<u8>,
    /// Length in bytes and checksum of each block.
    pub blocks: Vec<(u32, u32)>,
}

/// Rows of a block, a multiple of the lanes, for a matrix of this many columns.
pub(crate) fn block_rows(columns: usize) -> usize {
    (BLOCK_CODES / columns.max(1) / LANES).max(1) * LANES
}

/// Rows and columns that the header of coded codes states: enough to plan with, and checked by nothing yet.
///
/// # Errors
/// [`Error::Magic`], [`Error::Version`], [`Error::Truncated`] if the bytes do not begin as the format's do, and
/// [`Error::TooLarge`] beyond its limits.
pub fn stated_shape(bytes: &[u8]) -> Result<(usize, usize)> {
    let mut fixed = Reader(bytes);
    let (_, (rows, columns)) = fixed.beginning()?;
    if rows > MAX_ROWS || columns > MAX_COLUMNS {
        return Err(Error::TooLarge { rows, columns });
    }
    Ok((rows, columns))
}

/// Bits that tell one of `classes` from the others.
fn class_bits(classes: usize) -> usize {
    classes.saturating_sub(1).checked_ilog2().map_or(0, |log| log as usize + 1)
}

impl Header {
    /// The header's bytes.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.tables.len() as u16).to_le_bytes());
        for number in [self.shape.0, self.shape.1, self.block_rows, 0] {
            bytes.extend((number as u32).to_le_bytes());
        }
        let width = class_bits(self.tables.len());
        let mut packed = vec![0; (self.classes.len() * width).div_ceil(8)];
        for (column, &class) in self.classes.iter().enumerate() {
            for bit in (0..width).filter(|bit| class >> bit & 1 == 1) {
                let at = column * width + bit;
                packed[at / 8] |= 1 << (at % 8);
            }
        }
        bytes.extend(packed);
        for table in &self.tables {
            bytes.extend(table.stored());
        }
        for (length, checksum) in &self.blocks {
            bytes.extend(length.to_le_bytes());
            bytes.extend(checksum.to_le_bytes());
        }
        let length = (bytes.len() + CHECKSUM) as u32;
        bytes[FIXED - 4..FIXED].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32fast::hash(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    /// Reads the header of a matrix of `expected` shape, and gives the bytes after it. Nothing is allocated that `bytes`
    /// are not long enough for.
    pub(crate) fn parse(bytes: &[u8], expected: (usize, usize)) -> Result<(Self, &[u8])> {
        let mut fixed = Reader(bytes);
        let (class_count, (rows, columns)) = fixed.beginning()?;
        let block_rows = fixed.u32("the rows of a block")? as usize;
        let length = fixed.u32("the header's length")? as usize;
        if length < FIXED + CHECKSUM {
            return Err(Error::Header { field: "the header's length", value: length, expected: "28 at least" });
        }
        let header = Reader(bytes).take(length, "the header")?;
        let (header, checksum) = header.split_at(length - CHECKSUM);
        if crc32fast::hash(header).to_le_bytes() != *checksum {
            return Err(Error::HeaderChecksum);
        }

        if (rows, columns) != expected {
            return Err(Error::Shape { found: (rows, columns), expected });
        }
        if rows > MAX_ROWS || columns > MAX_COLUMNS {
            return Err(Error::TooLarge { rows, columns });
        }
        let empty = rows == 0 || columns == 0;
        if class_count > MAX_CLASSES || (class_count == 0) != empty {
            let expected = "1 to 64, or 0 where there are no codes";
            return Err(Error::Header { field: "the number of classes", value: class_count, expected });
        }
        if block_rows == 0 || !block_rows.is_multiple_of(LANES) {
            let expected = "a multiple of 16";
            return Err(Error::Header { field: "the rows of a block", value: block_rows, expected });
        }
        let mut rest = Reader(&header[FIXED..]);
        let classes = if empty { Vec::new() } else { read_classes(&mut rest, columns, class_count)? };
        let tables = (0..class_count).map(|_| read_table(&mut rest)).collect::<Result<_>>()?;
        let block_count = if empty { 0 } else { rows.div_ceil(block_rows) };
        let entries = rest.take(block_count.saturating_mul(BLOCK_ENTRY), "the lengths of the blocks")?;
        if !rest.0.is_empty() {
            let expected = "the end of the lengths of the blocks";
            return Err(Error::Header { field: "the header's length", value: length, expected });
        }
        let mut entries = Reader(entries);
        let mut blocks = Vec::with_capacity(block_count);
        for _ in 0..block_count {
            blocks.push((entries.u32("a block's length")?, entries.u32("a block's checksum")?));
        }
        Ok((Self { shape: (rows, columns), block_rows, tables, classes, blocks }, &bytes[length..]))
    }
}

fn read_classes(reader: &mut Reader<'_>, columns: usize, class_count: usize) -> Result<Vec<u8>> {
    let width = class_bits(class_count);
    let packed = reader.take((columns * width).div_ceil(8), "the classes of the columns")?;
    let class = |column: usize| {
        let bit = |at: usize| packed[at / 8] >> (at % 8) & 1;
        (0..width).map(|index| bit(column * width + index) << index).sum()
    };
    let classes: Vec<u8> = (0..columns).map(class).collect();
    match classes.iter().find(|&&class| usize::from(class) >= class_count) {
        Some(&class) => {
            let expected = "below the number of classes";
            Err(Error::Header { field: "a column's class", value: class.into(), expected })
        }
        None => Ok(classes),
    }
}

fn read_table(reader: &mut Reader<'_>) -> Result<Table> {
    let field = "a code's frequency";
    let low = reader.number("a table's lowest code", u16::MAX.into())?;
    let low = (low >> 1) as i32 ^ -((low & 1) as i32);
    let length = reader.number("the number of a table's frequencies", MAX_SYMBOLS as u32)? as usize;
    let escape = reader.number("the frequency of an escape", SLOTS as u32)? as u16;
    let frequencies: Vec<u16> =
        (0..length).map(|_| Ok(reader.number(field, SLOTS as u32)? as u16)).collect::<Result<_>>()?;
    let sum = frequencies.iter().map(|&frequency| usize::from(frequency)).sum::<usize>() + usize::from(escape);
    if sum != SLOTS {
        return Err(Error::Header { field: "the sum of a table's frequencies", value: sum, expected: "4096" });
    }
    if length == MAX_SYMBOLS && escape > 0 {
        let expected = "0 beside 1024 frequencies";
        return Err(Error::Header { field: "the frequency of an escape", value: escape.into(), expected });
    }
    if low + length as i32 > i32::from(i16::MAX) + 1 {
        let (field, value) = ("the number of a table's frequencies", length);
        return Err(Error::Header { field, value, expected: "no more than codes up to 32767" });
    }
    Ok(Table { low, frequencies, escape })
}

/// The bytes that are still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, needed: usize, what: &'static str) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(needed).ok_or(Error::Truncated { what, needed, left: self.0.len() })?;
        self.0 = rest;
        Ok(taken)
    }

    /// Name, version, classes, and the shape.
    fn beginning(&mut self) -> Result<(usize, (usize, usize))> {
        if self.array("the format's name")? != MAGIC {
            return Err(Error::Magic);
        }
        let version = self.u16("the version")?;
        if version != VERSION {
            return Err(Error::Version { found: version });
        }
        let classes = usize::from(self.u16("the number of classes")?);
        let rows = self.u32("the number of rows")? as usize;
        let columns = self.u32("the number of columns")? as usize;
        Ok((classes, (rows, columns)))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what)?);
        Ok(bytes)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A number of at most three bytes with seven bits each, the lowest first; the top bit says that another follows.
    fn number(&mut self, what: &'static str, largest: u32) -> Result<u32> {
        let mut number = 0;
        for shift in [0, 7, 14] {
            let [byte] = self.array(what)?;
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        if number > largest {
            let expected = "too large for this field";
            return Err(Error::Header { field: what, value: number as usize, expected });
        }
        Ok(number)
    }
}
