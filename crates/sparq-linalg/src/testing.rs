//! What the tests of the kernels share.

use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use std::fmt::Debug;

pub(crate) fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0_f32..1.0))
}

/// That two products over `inner` terms agree but for the rounding of their sums.
pub(crate) fn assert_close(x: &Array2<f32>, y: &Array2<f32>, inner: usize) {
    assert_eq!(x.dim(), y.dim());
    for ((at, x), y) in x.indexed_iter().zip(y) {
        assert!((x - y).abs() <= 8.0 * f32::EPSILON * inner as f32 + 1e-6, "{at:?}: {x} {y}");
    }
}

/// What `compute` gives, the same on 1, 2 and 4 threads.
pub(crate) fn on_any_threads<R: PartialEq + Debug + Send>(compute: impl Fn() -> R + Sync) -> R {
    let [one, two, four] = [1, 2, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(&compute)
    });
    assert_eq!(one, two);
    assert_eq!(one, four);
    one
}
