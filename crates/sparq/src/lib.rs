//! Joint pruning and quantization of large language models, with a measure of what survives
#![forbid(unsafe_code)]
