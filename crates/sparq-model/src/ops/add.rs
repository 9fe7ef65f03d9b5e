use super::wide;
use ndarray::Array2;
use rayon::prelude::*;

/// Elements one task handles.
const CHUNK: usize = 1 << 13;

/// `x = x + y` for arrays of one shape in standard layout.
pub(crate) fn add(x: &mut Array2<f32>, y: &Array2<f32>) {
    let (Some(x), Some(y)) = (x.as_slice_mut(), y.as_slice()) else { return };
    x.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(x, y)| {
        wide(
            #[inline(always)]
            || {
                for (x, y) in x.iter_mut().zip(y) {
                    *x += y;
                }
            },
        );
    });
}
