//! `tokenizer.json` from GGUF metadata.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::{TokenKind, Vocabulary, check_length};
use crate::{Error, Result, limits};

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
        "llama" => sentence_piece(metadata, file, &vocabulary)?,
        other => return Err(metadata.unsupported(MODEL, other)),
    };
    Ok(Some(tokenizer.to_string().into_bytes()))
}

/// Byte-pair encoding over bytes written as printable characters.
fn byte_level(metadata: &Metadata, file: &[u8], vocabulary: &Vocabulary) -> Result<Value> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let pre_tokenizer = PreTokenizer::from_metadata(metadata)?;
    let ids = vocabulary.ids(metadata)?;
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
        "post_processor": template(metadata, vocabulary, ignores_merges)?,
        "decoder": byte_level,
        "model": model,
    }))
}

/// SentencePiece's byte-pair encoding, whose order of merges is the order of the scores of their results.
fn sentence_piece(metadata: &Metadata, file: &[u8], vocabulary: &Vocabulary) -> Result<Value> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores = metadata.floats(SCORES, file)?.ok_or_else(|| metadata.missing(SCORES))?;
    check_length(metadata, SCORES, scores.len(), vocabulary.tokens.len())?;
    let ids = vocabulary.ids(metadata)?;
    let merges = merges_by_score(metadata, vocabulary, &ids, &scores)?;
    let unknown = vocabulary.kinds.iter().position(|&kind| kind == TokenKind::Unknown);
    let unknown = unknown.map(|id| vocabulary.tokens[id].as_str());
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": vocab_json(&ids), "merges": merges,
    });
    let prefix_space = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix_space {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added_tokens(),
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": template(metadata, vocabulary, true)?,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": model,
    }))
}

/// Every way to put a token together from two others, best score first; among equals in the order of ids. Pairs, because tokens
/// may hold blanks.
fn merges_by_score(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    ids: &BTreeMap<&str, usize>,
    scores: &[f32],
) -> Result<Vec<[String; 2]>> {
    let refuse = |expected, found: usize| {
        let (file, key) = (metadata.file().to_path_buf(), "tokenizer.ggml.tokens".to_owned());
        Err(Error::InvalidMetadata { file, key, expected, found: format!("{found} bytes") })
    };
    let (mut merges, mut bytes) = (Vec::new(), 0);
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if !matches!(vocabulary.kinds[id], TokenKind::Normal | TokenKind::UserDefined) {
            continue;
        }
        if token.len() > limits::SENTENCE_PIECE_BYTES {
            return refuse("pieces of at most 1,024 bytes", token.len());
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                bytes += token.len() + 1;
                if bytes > limits::MERGES_BYTES {
                    return refuse("pieces whose merges take at most 64 MiB", bytes);
                }
                merges.push((id, left_id, right_id, [left.to_owned(), right.to_owned()]));
            }
        }
    }
    merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]).then_with(|| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2))));
    Ok(merges.into_iter().map(|(.., merge)| merge).collect())
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

fn vocab_json(ids: &BTreeMap<&str, usize>) -> Value {
    ids.iter().map(|(&token, &id)| (token.to_owned(), Value::from(id))).collect::<Map<_, _>>().into()
}

/// The post-processor that puts the tokens of begin and end around a text, or null.
fn template(metadata: &Metadata, vocabulary: &Vocabulary, default_begin: bool) -> Result<Value> {
    let token = |flag: &str, default: bool, id: &str| {
        let wanted = metadata.flag(flag)?.unwrap_or(default);
        if wanted { vocabulary.token_at(metadata, id) } else { Ok(None) }
    };
    let begin = token("tokenizer.ggml.add_bos_token", default_begin, "tokenizer.ggml.bos_token_id")?;
    let end = token("tokenizer.ggml.add_eos_token", false, "tokenizer.ggml.eos_token_id")?;
    if begin.is_none() && end.is_none() {
        return Ok(Value::Null);
    }
    let sequence = |id: &str, type_id: u32| {
        let mut parts = Vec::new();
        parts.extend(begin.map(|(_, token)| json!({ "SpecialToken": { "id": token, "type_id": type_id } })));
        parts.push(json!({ "Sequence": { "id": id, "type_id": type_id } }));
        parts.extend(end.map(|(_, token)| json!({ "SpecialToken": { "id": token, "type_id": type_id } })));
        parts
    };
    let special_tokens: Map<String, Value> = begin
        .into_iter()
        .chain(end)
        .map(|(id, token)| (token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] })))
        .collect();
    let pair = [sequence("A", 0), sequence("B", 1)].concat();
    Ok(json!({
        "type": "TemplateProcessing", "single": sequence("A", 0), "pair": pair, "special_tokens": special_tokens,
    }))
}
