use std::collections::BTreeMap;

/// What a checkpoint will take on disk, known before anything is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedSize {
    /// Bytes of all weight files, headers and padding among them; of a GGUF file, its metadata and tokenizer too. Other files of
    /// a directory (configuration, tokenizer, index of shards) are not counted.
    pub file_bytes: u64,
    /// Bytes of what stands for each tensor of the source, with the padding behind it.
    pub tensors: BTreeMap<String, u64>,
}
