//! Checkpoints on disk: safetensors and GGUF readers, streaming safetensors writer
#![forbid(unsafe_code)]
