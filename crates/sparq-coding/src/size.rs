use crate::encode::plan;
use crate::error::Result;
use crate::histogram::{Histogram, check, histograms};
use crate::rans::LANES;

/// Order-0 entropy of the codes given the classes of their columns, in bits of all codes together.
///
/// `codes` are rows of `classes.len()` columns. No tables are counted: [`coded_size`] does.
///
/// # Errors
/// [`Error::Length`](crate::Error::Length) where the codes are no whole number of rows, and the errors of
/// [`encode`](crate::encode()).
pub fn entropy_bits(codes: &[i16], classes: &[u8]) -> Result<f64> {
    check(codes, (codes.len() / classes.len().max(1), classes.len()), classes)?;
    if codes.is_empty() {
        return Ok(0.0);
    }
    Ok(histograms(codes, classes).iter().map(Histogram::entropy).sum())
}

/// What [`encode`](crate::encode()) would make of the codes, in bytes, without encoding them: the header, which is exact,
/// and the blocks to some bytes each.
///
/// Takes what `encode` takes, a fraction of its time, and gives its errors.
pub fn coded_size(codes: &[i16], shape: (usize, usize), classes: &[u8]) -> Result<usize> {
    check(codes, shape, classes)?;
    let (mut header, histograms) = plan(codes, shape, classes);
    let blocks = if codes.is_empty() { 0 } else { shape.0.div_ceil(header.block_rows) };
    header.blocks = vec![(0, 0); blocks];
    let tables = header.tables.iter().zip(&histograms);
    let bits: f64 = tables.map(|(table, histogram)| table.cost(histogram) - 8.0 * table.stored().len() as f64).sum();
    // Of the 32 bits of a lane's last state 16 hold nothing, and of the others half on average.
    let lanes: usize = (0..blocks).map(|block| (shape.0 - block * header.block_rows).min(LANES)).sum();
    Ok(header.stored().len() + (bits / 8.0) as usize + 3 * lanes)
}
