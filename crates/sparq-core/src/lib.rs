//! Nouns of sparq: layer problems, masks, grids, sparsity, bits, and the LayerCompressor trait
#![forbid(unsafe_code)]
