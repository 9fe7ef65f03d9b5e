//! Block-by-block compression of a checkpoint
#![forbid(unsafe_code)]
