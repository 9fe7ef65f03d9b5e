use sha2::{Digest, Sha256};

/// SHA-256, in hexadecimal, of parts in their order, each preceded by its length, so that parts do not run into each other.
///
/// # Examples
/// ```
/// use sparq_tensor::digest;
/// assert_eq!(digest(["model", "recipe"]).len(), 64);
/// assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
/// ```
pub fn digest(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn lengths_are_hashed_before_parts() {
        // SHA-256 of eight zero bytes, and of nothing (FIPS 180-4).
        assert_eq!(digest([""]), "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc");
        assert_eq!(digest([""; 0]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
