//! `tokenizer.json` from GGUF metadata.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::metadata::Metadata;
use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::{Vocabulary, check_length};
use crate::sentence_piece::{Pieces, template, vocab_json};
use crate::{Error, Result};

/// Makes the file; `None` if there is no tokenizer. `file` is the whole GGUF file.
pub(super) fn tokenizer_json(metadata: &Metadata, file: &[u8]) -> Result<Option<Vec<u8>>> {
    const MODEL: &str = "tokenizer.ggml.model";
    let model = match metadata.string(MODEL)? {
        None | Some("none" | "no_vocab") => return Ok(None),
        Some(model) => model,
    };
    let Some(vocabulary) = Vocabulary::from_metadata(metadata, file)? else { return Ok(None) };
    let tokenizer = match model {
        "gpt2" => byte_level(metadata, file, &vocabulary)?,
        "llama" => sentence_piece(metadata, file, vocabulary)?,
        other => return Err(metadata.unsupported(MODEL, other)),
    };
    Ok(Some(tokenizer.to_string().into_bytes()))
}

/// Byte-pair encoding over bytes written as printable characters.
fn byte_level(metadata: &Metadata, file: &[u8], vocabulary: &Vocabulary) -> Result<Value> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let pre_tokenizer = PreTokenizer::from_metadata(metadata)?;
    let ids = vocabulary.ids(metadata.file())?;
    let merges = metadata.strings(MERGES, file)?.ok_or_else(|| metadata.missing(MERGES))?;
    for merge in &merges {
        check_merge(metadata, merge, &ids)?;
    }
    let ignores_merges = pre_tokenizer.ignores_merges();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignores_merges,
        "vocab": vocab_json(&ids), "merges": merges,
    });
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added_tokens(),
        "normalizer": pre_tokenizer.normalizer(),
        "pre_tokenizer": pre_tokenizer.json(),
        "post_processor": template(edges(metadata, vocabulary, ignores_merges)?),
        "decoder": byte_level,
        "model": model,
    }))
}

/// SentencePiece's byte-pair encoding.
fn sentence_piece(metadata: &Metadata, file: &[u8], vocabulary: Vocabulary) -> Result<Value> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores = metadata.floats(SCORES, file)?.ok_or_else(|| metadata.missing(SCORES))?;
    check_length(metadata, SCORES, scores.len(), vocabulary.tokens.len())?;
    let prefix_space = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let edges = edges(metadata, &vocabulary, true)?.map(|edge| edge.map(|(id, _)| id));
    Pieces { file: metadata.file(), key: "tokenizer.ggml.tokens", vocabulary, scores, prefix_space, edges }.json()
}

/// A merge must be two tokens that make a third, or the tokenizer's reader would refuse the whole file without saying
/// why.
fn check_merge(metadata: &Metadata, merge: &str, ids: &BTreeMap<&str, usize>) -> Result<()> {
    let is_known = merge.split_once(' ').is_some_and(|(left, right)| {
        let known = |token: &str| ids.contains_key(token);
        known(left) && known(right) && known(&format!("{left}{right}"))
    });
    if is_known {
        return Ok(());
    }
    Err(Error::InvalidMetadata {
        file: metadata.file().to_path_buf(),
        key: "tokenizer.ggml.merges".to_owned(),
        expected: "pairs of tokens that make a token",
        found: format!("{:?}", merge.chars().take(100).collect::<String>()),
    })
}

/// The tokens of begin and end that are put around a text.
fn edges<'a>(
    metadata: &Metadata,
    vocabulary: &'a Vocabulary,
    default_begin: bool,
) -> Result<[Option<(usize, &'a str)>; 2]> {
    let token = |flag: &str, default: bool, id: &str| {
        let wanted = metadata.flag(flag)?.unwrap_or(default);
        if wanted { vocabulary.token_at(metadata, id) } else { Ok(None) }
    };
    Ok([
        token("tokenizer.ggml.add_bos_token", default_begin, "tokenizer.ggml.bos_token_id")?,
        token("tokenizer.ggml.add_eos_token", false, "tokenizer.ggml.eos_token_id")?,
    ])
}
