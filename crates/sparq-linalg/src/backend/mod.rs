//! The kernels: those of `faer` with the feature `fast`, else products of `ndarray` and a factorization of our own.
//!
//! Nothing outside this module knows which. Both have three functions:
//! * `product` and `product_lower` compute one tile on the calling thread.
//! * `inverse_of_factor` runs on the current rayon pool, with the same bits for any number of threads.

#[cfg(feature = "fast")]
mod fast;
#[cfg(any(test, not(feature = "fast")))]
mod plain;
#[cfg(feature = "fast")]
mod transition;

#[cfg(feature = "fast")]
use fast as kernels;
#[cfg(not(feature = "fast"))]
use plain as kernels;

pub(crate) use kernels::{Arithmetic, inverse_of_factor, product, product_lower};

/// A type to factor matrices in.
pub(crate) trait Real: Arithmetic {
    /// The nearest to `value`.
    fn of(value: f64) -> Self;

    /// As `f32`.
    fn rounded(self) -> f32;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as Self
    }

    fn rounded(self) -> f32 {
        self
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn rounded(self) -> f32 {
        self as f32
    }
}

#[cfg(all(test, feature = "fast"))]
mod tests {
    use super::{fast, plain};
    use crate::testing::{assert_close, random};
    use ndarray::{Array2, ShapeBuilder};

    #[test]
    fn products_agree() {
        for (m, k, n) in [(1, 1, 1), (7, 300, 5), (65, 130, 97), (192, 40, 192)] {
            let (a, b, c) = (random(m, k, 1), random(n, k, 2), random(m, n, 3));
            for add in [false, true] {
                let [fast, plain] = [fast::product, plain::product].map(|product| {
                    let mut c = c.clone();
                    product(-0.5, a.view(), b.t(), add, c.view_mut());
                    c
                });
                assert_close(&fast, &plain, k);
            }
        }
    }

    #[test]
    fn lower_products_agree() {
        for (n, k) in [(1, 1), (5, 300), (65, 130), (192, 40)] {
            let (a, c) = (random(n, k, 1), random(n, n, 3));
            let [fast, plain] = [fast::product_lower, plain::product_lower].map(|product| {
                let mut c = c.clone();
                product(-0.5, a.view(), a.t(), c.view_mut());
                c
            });
            assert_close(&fast, &plain, k);
        }
    }

    #[test]
    fn factorizations_agree() {
        for order in [0, 1, 5, 64, 65, 400] {
            let x = random(2 * order, order, 4).mapv(f64::from);
            let gram = x.t().dot(&x);
            let lower = || Array2::from_shape_fn((order, order).f(), |(i, j)| if i < j { 0.0 } else { gram[[i, j]] });
            let fast = fast::inverse_of_factor(lower()).expect("positive definite");
            let plain = plain::inverse_of_factor(lower()).expect("positive definite");
            for ((i, j), value) in plain.indexed_iter().filter(|((i, j), _)| i >= j) {
                assert!((value - fast[[i, j]]).abs() < 1e-11, "{order}: {i},{j}: {value} {}", fast[[i, j]]);
            }
            for index in [0, order / 3, order.saturating_sub(1)] {
                for pivot in [0.0, f64::NAN, f64::INFINITY].into_iter().filter(|_| order > 0) {
                    let [fast, plain] = [fast::inverse_of_factor, plain::inverse_of_factor].map(|inverse| {
                        let mut lower = lower();
                        lower[[index, index]] = pivot;
                        inverse(lower).err()
                    });
                    assert_eq!((fast, plain), (Some(index), Some(index)), "{order}: {pivot}");
                }
            }
        }
    }
}
