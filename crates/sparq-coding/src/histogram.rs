use crate::error::{Error, Result};
use crate::{MAX_CLASSES, MAX_COLUMNS, MAX_ROWS};
use rayon::prelude::*;

/// Codes that one task counts.
const CODES_A_TASK: usize = 1 << 18;

/// How often each code occurs among those of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// The code that `counts[0]` counts.
    pub low: i32,
    /// Occurrences of the codes `low`, `low + 1`, ...
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Number of codes counted.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Order-0 entropy of all codes counted, in bits.
    pub(crate) fn entropy(&self) -> f64 {
        let total = self.total() as f64;
        self.counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 * (total / count as f64).log2()).sum()
    }
}

/// Checks that `codes`, row by row, and the classes of the columns fit `shape`.
pub(crate) fn check(codes: &[i16], (rows, columns): (usize, usize), classes: &[u8]) -> Result<()> {
    if rows > MAX_ROWS || columns > MAX_COLUMNS {
        return Err(Error::TooLarge { rows, columns });
    }
    let expected = rows.checked_mul(columns).ok_or(Error::TooLarge { rows, columns })?;
    for (what, got, expected) in [("codes", codes.len(), expected), ("classes", classes.len(), columns)] {
        if got != expected {
            return Err(Error::Length { what, got, expected });
        }
    }
    match classes.iter().position(|&class| usize::from(class) >= MAX_CLASSES) {
        Some(column) => Err(Error::Class { column, class: classes[column] }),
        None => Ok(()),
    }
}

/// One histogram for each class up to the largest. `codes` are rows of `classes.len()` columns, at least one; the
/// histogram of a class without columns is empty.
pub(crate) fn histograms(codes: &[i16], classes: &[u8]) -> Vec<Histogram> {
    let columns = classes.len();
    let task = (CODES_A_TASK / columns).max(1) * columns;
    let extremes = codes
        .par_chunks(task)
        .map(|rows| {
            let mut extremes = vec![(i16::MAX, i16::MIN); columns];
            for row in rows.chunks_exact(columns) {
                for (extreme, &code) in extremes.iter_mut().zip(row) {
                    *extreme = (extreme.0.min(code), extreme.1.max(code));
                }
            }
            extremes
        })
        .reduce_with(|mut all, more| {
            all.iter_mut().zip(more).for_each(|(all, more)| *all = (all.0.min(more.0), all.1.max(more.1)));
            all
        })
        .unwrap_or_default();

    let mut ranges = vec![(i32::MAX, i32::MIN); classes.iter().max().map_or(0, |&class| usize::from(class) + 1)];
    for (&class, (low, high)) in classes.iter().zip(extremes) {
        let range = &mut ranges[usize::from(class)];
        *range = (range.0.min(low.into()), range.1.max(high.into()));
    }
    // All histograms lie in one slice; a column knows where its class counts the code 0.
    let mut zeros = Vec::with_capacity(ranges.len());
    let mut bins = 0;
    for &(low, high) in &ranges {
        zeros.push(bins as isize - low as isize);
        bins += if low <= high { (high - low + 1) as usize } else { 0 };
    }
    let zeros_of_columns: Vec<isize> = classes.iter().map(|&class| zeros[usize::from(class)]).collect();
    let counts = codes
        .par_chunks(task)
        .fold(
            || vec![0_u64; bins],
            |mut counts, rows| {
                for row in rows.chunks_exact(columns) {
                    for (&zero, &code) in zeros_of_columns.iter().zip(row) {
                        counts[(zero + isize::from(code)) as usize] += 1;
                    }
                }
                counts
            },
        )
        .reduce_with(|mut all, more| {
            all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
            all
        })
        .unwrap_or_default();

    let mut rest = counts.as_slice();
    let histogram = |(low, high)| {
        if low > high {
            return Histogram { low: 0, counts: Vec::new() };
        }
        let (counts, after) = rest.split_at((high - low + 1) as usize);
        rest = after;
        Histogram { low, counts: counts.to_vec() }
    };
    ranges.into_iter().map(histogram).collect()
}
