use crate::MAX_CLASSES;
use crate::error::Result;
use crate::histogram::{Histogram, check, histograms};

/// Codes that one class should have at least: its table is then below 0.01 bits a code.
const CODES_A_CLASS: usize = 1 << 15;
/// More classes than this gain nothing measurable.
const CLASSES: usize = 16;
const _: () = assert!(CLASSES <= MAX_CLASSES);

/// A class for each column, columns of like spread together: what [`encode`](crate::encode()) asks for.
///
/// `codes` are the matrix of `shape` (rows, columns), row by row. There are at most 16 classes, fewer where the matrix is
/// too small to pay for their tables. Every class has about as many columns as another.
///
/// # Errors
/// [`Error::Length`](crate::Error::Length) and [`Error::TooLarge`](crate::Error::TooLarge) if the codes do not fit the
/// shape or the format.
///
/// # Examples
/// ```
/// let codes: Vec<i16> = (0..2 * 32768).map(|i| if i % 2 == 0 { i as i16 % 3 } else { i as i16 % 100 }).collect();
/// let classes = sparq_coding::classes(&codes, (16384, 4))?;
/// assert!(classes[0] == classes[2] && classes[1] == classes[3] && classes[0] < classes[1]);
/// # Ok::<(), sparq_coding::Error>(())
/// ```
pub fn classes(codes: &[i16], shape: (usize, usize)) -> Result<Vec<u8>> {
    let columns = shape.1;
    let mut classes = vec![0; columns];
    check(codes, shape, &classes)?;
    let count = (codes.len() / CODES_A_CLASS).min(CLASSES).min(columns);
    if count < 2 {
        return Ok(classes);
    }
    let mut energies = vec![0_u64; columns];
    for row in codes.chunks_exact(columns) {
        for (energy, &code) in energies.iter_mut().zip(row) {
            *energy += u64::from(code.unsigned_abs()).pow(2);
        }
    }
    let mut order: Vec<usize> = (0..columns).collect();
    order.sort_by_key(|&column| energies[column]);
    for (at, column) in order.into_iter().enumerate() {
        classes[column] = (at * count / columns) as u8;
    }
    Ok(classes)
}

/// Bytes of a table, about, at 3 to 4 bits a code.
const TABLE_BYTES: usize = 40;

/// Bits that a matrix of this shape takes beyond the entropy of its codes, about: header, classes, tables, and what blocks
/// begin and end with. For plans; [`coded_size`](crate::coded_size()) knows it for codes.
pub fn overhead_bits((rows, columns): (usize, usize)) -> u64 {
    let codes = rows.saturating_mul(columns);
    let classes = (codes / CODES_A_CLASS).min(CLASSES).min(columns).max(1);
    let blocks = rows.div_ceil(crate::header::block_rows(columns));
    let class_bits = classes.next_power_of_two().trailing_zeros() as usize;
    let (fixed, of_block) = (28 + TABLE_BYTES * classes, 8 + 3 * crate::rans::LANES.min(rows));
    (8 * (fixed + of_block * blocks) + class_bits * columns) as u64
}

/// Bits of every code of a class of columns, by how often it occurs in a matrix.
///
/// Unlike those of a table of [`encode`](crate::encode()) they are smooth: a code that does not occur has a length as well.
/// They serve solvers that choose codes by what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct CodeLengths {
    classes: Vec<u8>,
    /// For each class the lengths of the codes `-reach..=reach`.
    lengths: Vec<f32>,
    reach: usize,
}

/// Bits of a code without an entry: an escape.
const ESCAPE_BITS: f32 = 28.0;
/// Codes with an entry go from the negative of this to this.
const MOST_REACH: usize = 2048;

impl CodeLengths {
    /// Of the codes of a matrix of `shape` (rows, columns), with these classes of its columns.
    ///
    /// # Errors
    /// As [`encode`](crate::encode()).
    pub fn new(codes: &[i16], shape: (usize, usize), classes: &[u8]) -> Result<Self> {
        check(codes, shape, classes)?;
        let histograms = if codes.is_empty() { Vec::new() } else { histograms(codes, classes) };
        let extreme = |histogram: &Histogram| {
            let high = i64::from(histogram.low) + histogram.counts.len() as i64;
            i64::from(histogram.low).abs().max(high.abs())
        };
        let reach = histograms.iter().map(extreme).max().unwrap_or(0).clamp(8, MOST_REACH as i64) as usize;
        let mut lengths = Vec::with_capacity(histograms.len() * (2 * reach + 1));
        for histogram in &histograms {
            // A quarter of an occurrence for each code keeps lengths finite.
            let total = (histogram.total() as f32 + 0.25 * (2 * reach + 1) as f32).log2();
            lengths.extend((0..=2 * reach).map(|at| {
                let place = at as i64 - reach as i64 - i64::from(histogram.low);
                let count = usize::try_from(place).ok().and_then(|place| histogram.counts.get(place));
                total - (count.map_or(0.0, |&count| count as f32) + 0.25).log2()
            }));
        }
        Ok(Self { classes: classes.to_vec(), lengths, reach })
    }

    /// The lengths for one column.
    pub fn of_column(&self, column: usize) -> ColumnLengths<'_> {
        let of_class = 2 * self.reach + 1;
        let first = usize::from(self.classes[column]) * of_class;
        ColumnLengths { lengths: &self.lengths[first..first + of_class], reach: self.reach as i32 }
    }
}

/// Bits of every code of one column.
#[derive(Debug, Clone, Copy)]
pub struct ColumnLengths<'a> {
    lengths: &'a [f32],
    reach: i32,
}

impl ColumnLengths<'_> {
    /// Bits of this code.
    #[inline]
    pub fn bits(&self, code: i32) -> f32 {
        let at = (code + self.reach) as usize;
        self.lengths.get(at).copied().unwrap_or(ESCAPE_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_tell_what_occurs_often() {
        let codes = [0, 0, 0, 0, 0, 0, 1, -1, 5, 5, 5, 5, 5, 5, 5, 5];
        let codes: Vec<i16> = codes.iter().cycle().take(1600).copied().collect();
        let lengths = CodeLengths::new(&codes, (1600, 1), &[0]).unwrap();
        let of = |code| lengths.of_column(0).bits(code);
        assert!((of(5) - 1.0).abs() < 0.05 && (of(1) - 4.0).abs() < 0.05, "{} {}", of(5), of(1));
        assert!(of(2) > 10.0 && of(2) < 20.0 && of(3000) == ESCAPE_BITS && of(-3000) == ESCAPE_BITS);
    }

    #[test]
    fn the_overhead_is_about_what_is_known_once_there_are_codes() {
        for shape in [(64, 64), (512, 640), (1536, 576)] {
            let codes: Vec<i16> = (0..shape.0 * shape.1).map(|i| ((i * 7919) % 101 % 11) as i16 - 5).collect();
            let classes = classes(&codes, shape).unwrap();
            let found = 8.0 * crate::coded_size(&codes, shape, &classes).unwrap() as f64;
            let overhead = found - crate::entropy_bits(&codes, &classes).unwrap();
            let expected = overhead_bits(shape) as f64;
            assert!(
                (overhead - expected).abs() < 0.02 * codes.len() as f64 + 500.0,
                "{shape:?}: {overhead} {expected}"
            );
        }
    }

    #[test]
    fn small_matrices_have_one_class_and_every_class_has_columns() {
        assert_eq!(classes(&[3; 100], (10, 10)).unwrap(), [0; 10]);
        assert!(classes(&[], (0, 7)).unwrap() == [0; 7] && classes(&[1; 3], (2, 2)).is_err());
        let codes: Vec<i16> = (0..1 << 20).map(|i| (i % 64) as i16).collect();
        let found = classes(&codes, (1 << 14, 64)).unwrap();
        let fours: Vec<u8> = (0..64).map(|column| column / 4).collect();
        assert_eq!(found, fours, "columns with larger codes have later classes, four each");
    }
}
