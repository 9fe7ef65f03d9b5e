//! Pruners: magnitude, Wanda, SparseGPT
#![forbid(unsafe_code)]
