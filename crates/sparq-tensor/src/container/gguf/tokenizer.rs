//! `tokenizer.json` from GGUF metadata.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
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

/// How text is cut before byte-pair merges are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    Gpt2,
    /// GPT-2's with every digit on its own.
    SingleDigits,
    Llama3,
    Qwen2,
}

/// Contractions; letters with one leading non-letter; numbers; punctuation; line breaks; spaces but the one before a
/// word.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with every digit on its own.
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl PreTokenizer {
    fn from_metadata(metadata: &Metadata) -> Result<Self> {
        const KEY: &str = "tokenizer.ggml.pre";
        match metadata.string(KEY)?.unwrap_or("default") {
            "default" | "gpt-2" => Ok(Self::Gpt2),
            "smollm" | "starcoder" | "refact" => Ok(Self::SingleDigits),
            "llama-bpe" | "llama3" | "llama-v3" => Ok(Self::Llama3),
            "qwen2" | "deepseek-r1-qwen" => Ok(Self::Qwen2),
            other => Err(metadata.unsupported(KEY, other)),
        }
    }

    /// The inverse of [`json`](Self::json); `None` for what GGUF has no name for here.
    pub(super) fn from_json(json: &Value) -> Option<Self> {
        // Offsets do not matter to the tokens.
        let without_offsets = |json: &Value| {
            let mut json = json.clone();
            let steps = match json.get_mut("pretokenizers").and_then(Value::as_array_mut) {
                Some(steps) => steps.iter_mut().collect(),
                None => vec![&mut json],
            };
            for step in steps.into_iter().filter_map(Value::as_object_mut) {
                step.remove("trim_offsets");
            }
            json
        };
        let wanted = without_offsets(json);
        let all = [Self::Gpt2, Self::SingleDigits, Self::Llama3, Self::Qwen2];
        all.into_iter().find(|known| without_offsets(&known.json()) == wanted)
    }

    /// The value of `tokenizer.ggml.pre`.
    pub(super) fn gguf_name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::SingleDigits => "smollm",
            Self::Llama3 => "llama-bpe",
            Self::Qwen2 => "qwen2",
        }
    }

    fn json(self) -> Value {
        let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
        let split = |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        let first = match self {
            Self::Gpt2 => return byte_level(true),
            Self::SingleDigits => {
                let digits = json!({ "type": "Digits", "individual_digits": true });
                return json!({ "type": "Sequence", "pretokenizers": [digits, byte_level(true)] });
            }
            Self::Llama3 => split(LLAMA3_PATTERN),
            Self::Qwen2 => split(QWEN2_PATTERN),
        };
        json!({ "type": "Sequence", "pretokenizers": [first, byte_level(false)] })
    }
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
    // Llama 3's vocabulary has words that its merges do not lead to.
    let is_llama3 = pre_tokenizer == PreTokenizer::Llama3;
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": is_llama3,
        "vocab": vocab_json(&ids), "merges": merges,
    });
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let normalizer = if pre_tokenizer == PreTokenizer::Qwen2 { json!({ "type": "NFC" }) } else { Value::Null };
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added_tokens(),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer.json(),
        "post_processor": template(metadata, vocabulary, is_llama3)?,
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

/// Every way to put a token together from two others, best score first; among equals in the order of ids.
fn merges_by_score(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    ids: &BTreeMap<&str, usize>,
    scores: &[f32],
) -> Result<Vec<String>> {
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
                merges.push((id, left_id, right_id, format!("{left} {right}")));
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
