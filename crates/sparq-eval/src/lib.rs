//! Perplexity, KL divergence, tasks and retention of a model against its base
#![forbid(unsafe_code)]
