//! Quantizers: round-to-nearest and GPTQ
#![forbid(unsafe_code)]
