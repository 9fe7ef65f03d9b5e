//! One file per format.

mod dense;

pub use dense::Dense;
