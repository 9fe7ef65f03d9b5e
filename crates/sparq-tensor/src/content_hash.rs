//! A hash of what a checkpoint says, whatever its files are called.

use sha2::{Digest, Sha256};

use crate::Result;
use crate::mmap::MappedFile;

/// Bytes of a file that are hashed before their pages are given back.
const HASHED_AT_A_TIME: usize = 1 << 24;

/// SHA-256, in hexadecimal, over weight files in order of their names and the named files beside them, each preceded by its
/// role and length.
pub(crate) fn content_hash(weights: &[MappedFile], beside: &[(&str, Vec<u8>)]) -> Result<String> {
    let mut hasher = Sha256::new();
    let begin = |hasher: &mut Sha256, role: &str, length: usize| {
        hasher.update(role.as_bytes());
        hasher.update((length as u64).to_le_bytes());
    };
    let mut weights: Vec<&MappedFile> = weights.iter().collect();
    weights.sort_by_key(|file| file.path());
    for file in weights {
        let bytes = file.checked_bytes()?;
        begin(&mut hasher, "weights", bytes.len());
        for (index, piece) in bytes.chunks(HASHED_AT_A_TIME).enumerate() {
            hasher.update(piece);
            let start = index * HASHED_AT_A_TIME;
            file.release(&(start..start + piece.len()));
        }
    }
    for (name, bytes) in beside {
        begin(&mut hasher, name, bytes.len());
        hasher.update(bytes);
    }
    Ok(format!("{:x}", hasher.finalize()))
}
