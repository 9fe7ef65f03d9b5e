//! Deterministic matrix products and factorizations for sparq
#![forbid(unsafe_code)]
