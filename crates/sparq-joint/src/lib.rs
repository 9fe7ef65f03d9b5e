//! Joint pruning and quantization: sequential A and B, one pass
#![forbid(unsafe_code)]
