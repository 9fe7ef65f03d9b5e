//! Transformer forward pass, tokenizer, KV cache and block-wise access
#![forbid(unsafe_code)]
