//! Keeps raw results small, and writes the tables of README and docs from them.
//!
//! Raw results are the files `docs/results/NAME.json`, tables are declared in `docs/results/tables.toml`, and each stands
//! between `<!-- table NAME -->` and `<!-- end -->` in a page.
#![deny(unsafe_code)]

mod blocks;
mod pages;
mod raw;

pub use pages::{Pages, Stale};
pub use raw::Raw;
