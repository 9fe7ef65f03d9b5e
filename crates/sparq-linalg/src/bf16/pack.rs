//! Matrices in bfloat16, as the kernel reads them.

use super::kernel::Kernel;
use ndarray::ArrayView2;

/// Inputs that are summed up before the result is touched: weights and inputs of a task of this depth stay in the
/// second-level cache, and the result is touched seldom.
pub(super) const DEPTH: usize = 512;
/// Columns come in pairs, the unit in which the processor multiplies.
pub(super) const PAIRS: usize = DEPTH / 2;

/// A piece of a row of a matrix: pairs of columns, the first of a pair in the lower half; zeros fill it up.
pub(super) type Row = [u32; PAIRS];

/// The bits of the bfloat16 nearest to `value`, ties to even; what is no number stays none.
#[inline(always)]
#[allow(clippy::inline_always)] // compiled for the instructions of the loop it is called from
fn bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1))) >> 16;
    if value.is_nan() { (bits >> 16) | 0x40 } else { nearest }
}

/// `value` as it is in bfloat16.
pub(crate) fn rounded(value: f32) -> f32 {
    f32::from_bits(bits(value) << 16)
}

/// Rounds `matrix`, which has up to [`DEPTH`] columns, and adds rows of zeros until their number is a multiple of `of`.
pub(super) fn pack(kernel: Kernel, matrix: ArrayView2<'_, f32>, of: usize, packed: &mut Vec<Row>) {
    packed.resize(matrix.nrows().next_multiple_of(of), [0; PAIRS]);
    packed[matrix.nrows()..].fill([0; PAIRS]);
    kernel.run(
        #[inline(always)]
        || {
            for (row, packed) in matrix.rows().into_iter().zip(packed) {
                if let Some(Ok(row)) = row.as_slice().map(<&[f32; DEPTH]>::try_from) {
                    pack_row(row, packed);
                } else {
                    let mut whole = [0.0; DEPTH];
                    whole.iter_mut().zip(row).for_each(|(value, from)| *value = *from);
                    pack_row(&whole, packed);
                }
            }
        },
    );
}

#[inline(always)]
#[allow(clippy::inline_always)] // as `bits`
fn pack_row(row: &[f32; DEPTH], packed: &mut Row) {
    for (pair, [low, high]) in packed.iter_mut().zip(row.as_chunks().0) {
        *pair = bits(*low) | (bits(*high) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn rounds_to_nearest_even() {
        for (value, expected) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),              // a tie, 1 is even
            (1.0 + 3.0 / 256.0, 1.0 + 1.0 / 64.0), // a tie, upwards
            (1.0 + 1.1 / 256.0, 1.0 + 1.0 / 128.0),
            (-3.39e38, -3.389_531_4e38),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (-0.0, -0.0),
        ] {
            assert_eq!(rounded(value).to_bits(), f32::to_bits(expected), "{value}");
        }
        assert!(rounded(f32::NAN).is_nan() && rounded(f32::from_bits(0x7F80_0001)).is_nan());
    }

    #[test]
    fn rows_hold_pairs_and_zeros() {
        let Some(kernel) = Kernel::detect() else { return };
        let pair = |low: f32, high: f32| (high.to_bits() & 0xFFFF_0000) | (low.to_bits() >> 16);
        let mut packed = vec![[7; PAIRS]; 5];
        pack(kernel, array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]].view(), 2, &mut packed);
        assert_eq!(packed.len(), 4);
        for (row, start) in packed.iter().zip([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0], [0.0; 3]]) {
            assert_eq!(row[..2], [pair(start[0], start[1]), pair(start[2], 0.0)]);
            assert!(row[2..].iter().all(|pair| *pair == 0));
        }
    }
}
