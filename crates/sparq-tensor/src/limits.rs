//! How much this crate believes a file before it has seen the bytes.
//!
//! Counts are checked against these limits *and* against the bytes left in the file, so a lying header costs neither
//! memory nor time. The numbers are an order of magnitude above the largest published checkpoints.

/// Bytes of a safetensors header; the limit of the format's own implementation.
pub(crate) const SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;
/// Dimensions of a safetensors tensor; ggml has at most 4, PyTorch files rarely more than 5.
pub(crate) const DIMENSIONS: u64 = 16;
/// Bytes of `model.safetensors.index.json`, which names every tensor.
pub(crate) const INDEX_BYTES: u64 = 100_000_000;
/// Bytes of `config.json` and other small JSON files, of which some take seventy times as much in memory.
pub(crate) const JSON_BYTES: u64 = 16 << 20;
/// Bytes of a side file that is carried over; the largest tokenizer.json is about 35 MB.
pub(crate) const SIDE_FILE_BYTES: u64 = 512 << 20;
/// Shard files of one checkpoint.
pub(crate) const SHARDS: u64 = 10_000;
/// Tensors of a GGUF file.
pub(crate) const GGUF_TENSORS: u64 = 1 << 20;
/// Metadata entries of a GGUF file.
pub(crate) const GGUF_ENTRIES: u64 = 1 << 16;
/// Bytes of a GGUF metadata key, by the format's specification.
pub(crate) const GGUF_KEY_BYTES: u64 = 65_535;
/// Bytes of a GGUF tensor name; ggml allows 63.
pub(crate) const GGUF_NAME_BYTES: u64 = 255;
/// Bytes of a GGUF string value; chat templates reach some 100 kB.
pub(crate) const GGUF_STRING_BYTES: u64 = 64 << 20;
/// Elements of a GGUF array; the largest vocabularies have some 500 000 merges.
pub(crate) const GGUF_ARRAY_ELEMENTS: u64 = 1 << 26;
/// Arrays inside arrays; no known file has any.
pub(crate) const GGUF_NESTING: u32 = 4;
/// Dimensions of a GGUF tensor.
pub(crate) const GGUF_DIMENSIONS: u64 = 4;
/// Experts of a block; the largest published model has 512.
pub(crate) const EXPERTS: u64 = 1 << 12;
/// Transformer blocks; bounds what `N` in `blk.N.` may be.
pub(crate) const BLOCKS: u64 = 1 << 16;
/// Bytes of a piece of SentencePiece that is put together from others; the longest known are runs of some 30 spaces.
pub(crate) const SENTENCE_PIECE_BYTES: usize = 1024;
/// Bytes of all merges that make the pieces of a vocabulary; those of 256,000 take some 10 MB.
pub(crate) const MERGES_BYTES: usize = 64 << 20;
