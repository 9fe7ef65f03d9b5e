//! Whether a model's output matrix is its embedding, where config and tensors say different things.

use serde_json::Value;

use crate::Checkpoint;

const EMBEDDINGS: [&str; 3] = ["model.embed_tokens.weight", "transformer.wte.weight", "wte.weight"];
const HEAD: &str = "lm_head.weight";
/// Families that tie unless their config says otherwise.
const TIED: [&str; 3] = ["gemma3", "gemma3_text", "gpt2"];

/// What to say of a checkpoint whose config ties the output matrix to the embedding although it has one of its own, with
/// other values; none of all others.
pub(crate) fn contradiction(checkpoint: &Checkpoint, config: &Value) -> Option<String> {
    let family = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let is_tied = match config.get("tie_word_embeddings").and_then(Value::as_bool) {
        Some(flag) => flag,
        None => TIED.contains(&family),
    };
    let embedding = EMBEDDINGS.into_iter().find(|name| checkpoint.contains(name))?;
    let differs = is_tied && checkpoint.contains(HEAD) && differ(checkpoint, embedding);
    differs.then(|| {
        format!(
            "the config ties the output matrix to the embedding, but {HEAD} is there and differs from {embedding}: it is \
             used, as in transformers 5"
        )
    })
}

fn differ(checkpoint: &Checkpoint, embedding: &str) -> bool {
    let (Ok((a, a_bytes)), Ok((b, b_bytes))) = (checkpoint.stored(embedding), checkpoint.stored(HEAD)) else {
        return true;
    };
    if a.info.shape != b.info.shape {
        return true;
    }
    if a.info.dtype == b.info.dtype && a.packed.is_none() && b.packed.is_none() {
        return a_bytes != b_bytes;
    }
    // What cannot be read will say so when it is.
    !matches!((checkpoint.read(embedding), checkpoint.read(HEAD)), (Ok(a), Ok(b)) if a == b)
}
