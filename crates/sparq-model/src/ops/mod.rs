//! The arithmetic that blocks are composed of, other than matrix products.
//!
//! Everything works on arrays in standard (row-major) layout, runs on the current rayon pool over fixed chunks, and
//! gives the same bits for any number of threads.

mod activation;
mod add;
mod attention;
mod attention_backward;
mod exp;
mod lanes;
mod layer_norm;
mod reduce;
mod rms_norm;
mod rope;
mod softmax;
mod wide;
mod workspace;

pub use activation::Activation;
pub(crate) use add::add;
pub(crate) use attention::{Attended, Span, attention};
pub(crate) use attention_backward::attention_backward;
pub(crate) use exp::exp;
pub(crate) use layer_norm::{layer_norm, layer_norm_backward};
#[cfg(test)]
pub(crate) use reduce::check_backward;
pub(crate) use reduce::sum_over_tasks;
pub(crate) use rms_norm::{rms_norm, rms_norm_backward};
pub(crate) use rope::RopeTables;
pub use softmax::Softmax;
pub(crate) use wide::wide;
pub(crate) use workspace::Workspace;
