//! The tokenizer of a directory, whichever files it is in, as `tokenizer.json`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::container::gguf::pre_tokenizer::PreTokenizer;
use crate::files::{read_json, read_text, read_unmarked};
use crate::{Error, Fault, Result, limits, sentence_piece};

/// What to do about a tokenizer that is not read.
pub(crate) const MAKE_ONE: &str =
    "make a tokenizer.json with transformers, AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)";

/// Tokenizers that are not read, and what they are.
const OTHERS: [(&str, &str); 4] = [
    ("spiece.model", "a SentencePiece model"),
    ("sentencepiece.bpe.model", "a SentencePiece model"),
    ("tekken.json", "a tokenizer of mistral-common"),
    ("vocab.txt", "a WordPiece vocabulary"),
];

/// `tokenizer.json`, with the tokens that `tokenizer_config.json` alone declares, or its equivalent made of `vocab.json` and
/// `merges.txt`, or of `tokenizer.model`; `None` if there is no tokenizer. `config` is the model's.
///
/// # Errors
/// [`Error::Io`] and [`Error::Malformed`]; [`Error::Unsupported`] if all there is is a tokenizer of another kind.
pub(crate) fn tokenizer_json(directory: &Path, config: Option<&Value>) -> Result<Option<Vec<u8>>> {
    let path = |name: &str| directory.join(name);
    let settings = if path("tokenizer_config.json").exists() {
        read_json(&path("tokenizer_config.json"), "tokenizer_config.json")?
    } else {
        Value::Null
    };
    if path("tokenizer.json").exists() {
        let json = read_unmarked(&path("tokenizer.json"), limits::SIDE_FILE_BYTES)?;
        return Ok(Some(with_declared(json, &settings)));
    }
    if path("vocab.json").exists() && path("merges.txt").exists() {
        return from_vocabulary(directory, &settings, config).map(|json| Some(json.to_string().into_bytes()));
    }
    if path("tokenizer.model").exists() {
        let json = sentence_piece::from_file(&path("tokenizer.model"), &settings)?;
        return Ok(Some(with_declared(json.to_string().into_bytes(), &settings)));
    }
    match OTHERS.iter().find(|(name, _)| path(name).exists()) {
        None => Ok(None),
        Some((name, what)) => Err(Error::Unsupported {
            file: path(name),
            what: format!("{what} without tokenizer.json"),
            value: MAKE_ONE.into(),
        }),
    }
}

/// Tokens that the settings declare, by id.
fn declared(settings: &Value) -> impl Iterator<Item = (u64, Value)> {
    let decoder = settings["added_tokens_decoder"].as_object();
    decoder.into_iter().flatten().filter_map(|(id, token)| {
        let id: u64 = id.parse().ok()?;
        Some((id, added_token(id, token["content"].as_str()?, token["special"] == true)))
    })
}

fn added_token(id: u64, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special,
    })
}

/// The file with the tokens that are declared in the settings and not in it. What cannot be understood stays as it is: its
/// reader names what is wrong.
fn with_declared(json: Vec<u8>, settings: &Value) -> Vec<u8> {
    if declared(settings).next().is_none() {
        return json;
    }
    let Ok(mut tokenizer) = serde_json::from_slice::<Value>(&json) else { return json };
    let known = tokenizer["added_tokens"].as_array().cloned().unwrap_or_default();
    let is_known = |id: u64, token: &Value| known.iter().any(|k| k["id"] == id || k["content"] == token["content"]);
    let missing: Vec<_> = declared(settings).filter(|(id, token)| !is_known(*id, token)).collect();
    if missing.is_empty() || add(&mut tokenizer, &known, missing).is_none() {
        return json;
    }
    tokenizer.to_string().into_bytes()
}

/// Adds tokens to the list of added ones. The vocabulary gets them and those `known` before: without an entry there, a token's
/// id follows from how many entries there are.
fn add(tokenizer: &mut Value, known: &[Value], tokens: Vec<(u64, Value)>) -> Option<()> {
    let vocabulary = tokenizer.get_mut("model")?.get_mut("vocab")?.as_object_mut()?;
    for token in known.iter().chain(tokens.iter().map(|(_, token)| token)) {
        vocabulary.entry(token["content"].as_str()?).or_insert_with(|| token["id"].clone());
    }
    tokenizer.get_mut("added_tokens")?.as_array_mut()?.extend(tokens.into_iter().map(|(_, token)| token));
    Some(())
}

/// A byte-level tokenizer from its vocabulary and its merges, as the class in the settings has it.
fn from_vocabulary(directory: &Path, settings: &Value, config: Option<&Value>) -> Result<Value> {
    let vocabulary = directory.join("vocab.json");
    let class = settings["tokenizer_class"].as_str();
    let family = config.and_then(|config| config["model_type"].as_str()).unwrap_or_default();
    let pre_tokenizer = match (class.map(|class| class.trim_end_matches("Fast")), family) {
        (Some("GPT2Tokenizer"), _) | (None, "gpt2") => PreTokenizer::Gpt2,
        (Some("Qwen2Tokenizer"), _) | (None, "qwen2" | "qwen3" | "qwen3_moe") => PreTokenizer::Qwen2,
        (class, family) => {
            let what = "vocab.json with merges.txt of another class than GPT2Tokenizer and Qwen2Tokenizer".to_owned();
            let value = class.unwrap_or(family).to_owned();
            return Err(Error::Unsupported { file: vocabulary, what, value });
        }
    };
    let bad = |reason: String| Error::malformed(&vocabulary, Fault::Json { what: "vocab.json", reason });
    let bytes = read_unmarked(&vocabulary, limits::SIDE_FILE_BYTES)?;
    let mut vocab: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if vocab.values().any(|id| !id.is_u64()) {
        return Err(bad("a token's id is no number".to_owned()));
    }
    let merges = read_text(directory.join("merges.txt"), limits::SIDE_FILE_BYTES)?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();

    // Tokens with a role that are not in the vocabulary come behind it, in this order.
    let mut added: Vec<(u64, Value)> = declared(settings).collect();
    for role in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        let token = &settings[role];
        let Some(content) = token.as_str().or_else(|| token["content"].as_str()) else { continue };
        if added.iter().all(|(_, token)| token["content"] != content) {
            let taken = vocab.values().filter_map(Value::as_u64).chain(added.iter().map(|(id, _)| *id));
            let next = taken.max().map_or(0, |last| last.saturating_add(1));
            let id = vocab.get(content).and_then(Value::as_u64).unwrap_or(next);
            added.push((id, added_token(id, content, true)));
        }
    }
    added.sort_by_key(|(id, _)| *id);
    for (id, token) in &added {
        vocab.entry(token["content"].as_str().unwrap_or_default()).or_insert((*id).into());
    }
    let added: Vec<Value> = added.into_iter().map(|(_, token)| token).collect();
    let mut cuts = pre_tokenizer.json();
    if settings["add_prefix_space"] == true && pre_tokenizer == PreTokenizer::Gpt2 {
        cuts["add_prefix_space"] = true.into();
    }
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": pre_tokenizer.normalizer(), "pre_tokenizer": cuts, "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, String)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            std::fs::write(directory.path().join(name), contents).unwrap();
        }
        directory
    }

    fn encode(files: &[(&str, String)], text: &str) -> Result<Vec<u32>> {
        let directory = directory(files);
        let json = tokenizer_json(directory.path(), None)?.unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(json).unwrap();
        Ok(tokenizer.encode(text, false).unwrap().get_ids().to_vec())
    }

    fn vocabulary(class: &str) -> Vec<(&'static str, String)> {
        vec![
            ("vocab.json", json!({ "a": 0, "b": 1, "ab": 2, "1": 3, "11": 4 }).to_string()),
            ("merges.txt", "#version: 0.2\na b\n1 1\n".into()),
            (
                "tokenizer_config.json",
                json!({ "tokenizer_class": class, "bos_token": "<s>", "eos_token": { "content": "</s>" } }).to_string(),
            ),
        ]
    }

    #[test]
    fn a_vocabulary_with_merges_is_a_tokenizer() {
        assert_eq!(encode(&vocabulary("GPT2Tokenizer"), "ab11</s><s>").unwrap(), [2, 4, 6, 5]);
        assert_eq!(encode(&vocabulary("Qwen2TokenizerFast"), "ab11").unwrap(), [2, 3, 3]);
        let error = encode(&vocabulary("BartTokenizer"), "ab").unwrap_err().to_string();
        assert!(error.contains("BartTokenizer") && error.contains("GPT2Tokenizer"), "{error}");
    }

    #[test]
    fn tokens_that_the_settings_alone_declare_are_added() {
        let model = json!({ "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] });
        let known = added_token(2, "<s>", true);
        let file = json!({ "version": "1.0", "added_tokens": [known], "model": model }).to_string();
        let settings = json!({ "added_tokens_decoder": {
            "2": { "content": "<s>", "special": true }, "7": { "content": "<tool>", "special": false } } });
        let files = [("tokenizer.json", file.clone()), ("tokenizer_config.json", settings.to_string())];
        assert_eq!(encode(&files, "a<tool>b<s>").unwrap(), [0, 7, 1, 2]);
        // Without any, the file is what it was.
        let alone = directory(&[("tokenizer.json", file.clone())]);
        assert_eq!(tokenizer_json(alone.path(), None).unwrap().unwrap(), file.as_bytes());
    }

    #[test]
    fn tokenizers_of_other_kinds_are_named_with_what_to_do() {
        let error = encode(&[("tokenizer.model", String::new())], "a").unwrap_err().to_string();
        assert!(error.contains("SentencePiece") && error.contains("save_pretrained"), "{error}");
        assert!(tokenizer_json(directory(&[]).path(), None).unwrap().is_none());
    }
}
