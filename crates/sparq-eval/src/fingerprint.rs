use serde::Serialize;
use sparq_tensor::digest;

/// Changes whenever a change of this crate changes results for equal settings and data: cached results become stale.
const RESULTS_VERSION: u32 = 2;

/// SHA-256, in hexadecimal, of a kind of content, its settings (as JSON) and its data.
pub(crate) fn fingerprint(kind: &str, settings: &impl Serialize, data: &[u8]) -> String {
    // Settings are plain structs with string keys: serialising them to memory cannot fail; if it did, the empty list
    // would still be a deterministic input.
    let settings = serde_json::to_vec(settings).unwrap_or_default();
    digest([&RESULTS_VERSION.to_le_bytes(), kind.as_bytes(), &settings, data])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_every_part() {
        let one = fingerprint("text", &1, b"data");
        assert_eq!(one.len(), 64);
        assert_eq!(one, fingerprint("text", &1, b"data"));
        for other in [fingerprint("task", &1, b"data"), fingerprint("text", &2, b"data"), fingerprint("text", &1, b"")]
        {
            assert_ne!(one, other);
        }
    }
}
