//! GGUF's tokenizer metadata from `tokenizer.json` and `tokenizer_config.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::key_values::KeyValues;
use super::pre_tokenizer::PreTokenizer;
use crate::{Checkpoint, Error, Fault, Result};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Adds the tokenizer of `source`, whose embedding has `vocabulary` rows.
pub(super) fn describe(
    source: &Checkpoint,
    directory: &Path,
    vocabulary: usize,
    entries: &mut KeyValues,
) -> Result<()> {
    let path = directory.join("tokenizer.json");
    let Some(json) = source.tokenizer_json()? else {
        entries.string("tokenizer.ggml.model", "none");
        return Ok(());
    };
    let json: Value = serde_json::from_slice(&json)
        .map_err(|error| Error::malformed(&path, Fault::Json { what: "tokenizer.json", reason: error.to_string() }))?;
    let unsupported = |what: &str, value: &Value| {
        let value = value.to_string().chars().take(200).collect();
        Error::Unsupported { file: path.clone(), what: what.to_owned(), value }
    };
    let malformed = |what: &'static str| {
        let reason = "a tokenizer needs model.vocab, model.merges and tokens whose ids fit the embedding".to_owned();
        Error::malformed(&path, Fault::Json { what, reason })
    };
    let model = &json["model"];
    // The first tokenizer.json files name no type: the keys tell.
    let is_nameless_bpe = model["type"].is_null() && model["vocab"].is_object() && model["merges"].is_array();
    if model["type"] != "BPE" && !is_nameless_bpe {
        return Err(unsupported("a tokenizer model other than BPE", &model["type"]));
    }
    let is_sentence_piece = model["byte_fallback"] == true;

    let mut tokens = vec![None; vocabulary];
    let mut kinds = vec![UNUSED; vocabulary];
    let mut place = |token: &str, id: Option<u64>, kind: i32| {
        let id = id.and_then(|id| usize::try_from(id).ok()).filter(|&id| id < vocabulary);
        let id = id.ok_or_else(|| malformed("a token's id"))?;
        tokens[id] = Some(token.to_owned());
        kinds[id] = kind;
        Ok::<_, Error>(())
    };
    let vocab = model["vocab"].as_object().ok_or_else(|| malformed("model.vocab"))?;
    let unknown = model["unk_token"].as_str();
    for (token, id) in vocab {
        let is_byte = is_sentence_piece && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        let kind = if is_byte {
            BYTE
        } else if unknown == Some(token) {
            UNKNOWN
        } else {
            NORMAL
        };
        place(token, id.as_u64(), kind)?;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let token = added["content"].as_str().ok_or_else(|| malformed("an added token"))?;
        let kind = match (added["special"] == true, unknown == Some(token)) {
            (true, true) => UNKNOWN,
            (true, false) => CONTROL,
            (false, _) => USER_DEFINED,
        };
        // Gemma 3 of text alone names a token of images, for which its embedding has no row.
        if added["id"].as_u64().is_some_and(|id| id < vocabulary as u64) {
            place(token, added["id"].as_u64(), kind)?;
        }
    }
    let ids: BTreeMap<&str, usize> =
        tokens.iter().enumerate().filter_map(|(id, token)| Some((token.as_deref()?, id))).collect();
    let merges = merges(&model["merges"]).ok_or_else(|| malformed("model.merges"))?;

    entries.string("tokenizer.ggml.model", if is_sentence_piece { "llama" } else { "gpt2" });
    let pre = if is_sentence_piece {
        "default"
    } else {
        let pre = PreTokenizer::from_json(&json["pre_tokenizer"]);
        pre.ok_or_else(|| unsupported("the pre-tokenizer", &json["pre_tokenizer"]))?.gguf_name()
    };
    entries.string("tokenizer.ggml.pre", pre);
    let texts: Vec<String> =
        tokens.iter().enumerate().map(|(id, token)| token.clone().unwrap_or_else(|| format!("[PAD{id}]"))).collect();
    entries.strings("tokenizer.ggml.tokens", texts.iter().map(String::as_str));
    entries.i32s("tokenizer.ggml.token_type", &kinds);
    if is_sentence_piece {
        entries.f32s("tokenizer.ggml.scores", &scores(&merges, &ids, vocabulary));
        entries.flag("tokenizer.ggml.add_space_prefix", prepends_space(&json));
    } else {
        let joined: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        entries.strings("tokenizer.ggml.merges", joined.iter().map(String::as_str));
    }
    special_tokens(source, &json, &ids, entries)
}

/// Whether a blank is put in front of a text: by the normalizer, or by a pre-tokenizer that writes blanks as SentencePiece does.
fn prepends_space(json: &Value) -> bool {
    let steps = json["pre_tokenizer"]["pretokenizers"].as_array().into_iter().flatten();
    let by_cutting = steps.chain([&json["pre_tokenizer"]]).filter(|step| step["type"] == "Metaspace").any(|step| {
        let scheme = step["prepend_scheme"].as_str();
        scheme.map_or(step["add_prefix_space"] != false, |scheme| scheme != "never")
    });
    by_cutting || json["normalizer"].to_string().contains("\"Prepend\"")
}

/// Pairs of tokens, in either of the two ways they are written.
fn merges(value: &Value) -> Option<Vec<(&str, &str)>> {
    value
        .as_array()?
        .iter()
        .map(|merge| match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

/// SentencePiece merges what scores best: the earlier a merge, the higher the score of its result.
fn scores(merges: &[(&str, &str)], ids: &BTreeMap<&str, usize>, vocabulary: usize) -> Vec<f32> {
    let mut scores = vec![-(merges.len() as f32) - 1.0; vocabulary];
    for (rank, (left, right)) in merges.iter().enumerate().rev() {
        if let Some(&id) = ids.get(format!("{left}{right}").as_str()) {
            scores[id] = -(rank as f32);
        }
    }
    scores
}

fn special_tokens(
    source: &Checkpoint,
    json: &Value,
    ids: &BTreeMap<&str, usize>,
    entries: &mut KeyValues,
) -> Result<()> {
    let settings = source.tokenizer_config()?.unwrap_or_default();
    let config = source.config()?;
    // Either a string or an object that describes an added token.
    let named = |field: &str| {
        let token = settings.get(field)?;
        ids.get(token.as_str().or_else(|| token.get("content")?.as_str())?).copied()
    };
    let numbered = |field: &str| {
        let id = config.get(field)?;
        let id = if let Value::Array(list) = id { list.first()? } else { id };
        usize::try_from(id.as_u64()?).ok().filter(|&id| id < ids.len().max(1))
    };
    for (key, token, id) in [
        ("tokenizer.ggml.bos_token_id", "bos_token", "bos_token_id"),
        ("tokenizer.ggml.eos_token_id", "eos_token", "eos_token_id"),
        ("tokenizer.ggml.unknown_token_id", "unk_token", ""),
        ("tokenizer.ggml.padding_token_id", "pad_token", "pad_token_id"),
    ] {
        if let Some(id) = named(token).or_else(|| numbered(id)) {
            entries.u32(key, id as u32);
        }
    }
    let adds = |special: &str, edge: fn(&[Value]) -> Option<&Value>| {
        let processor = &json["post_processor"];
        let steps = match processor["processors"].as_array() {
            Some(several) => several.iter().find_map(|processor| processor["single"].as_array()),
            None => processor["single"].as_array(),
        };
        let token = edge(steps?)?["SpecialToken"]["id"].as_str()?;
        (named(special) == ids.get(token).copied()).then_some(())
    };
    entries.flag("tokenizer.ggml.add_bos_token", adds("bos_token", <[Value]>::first).is_some());
    entries.flag("tokenizer.ggml.add_eos_token", adds("eos_token", <[Value]>::last).is_some());
    if let Some(template) = chat_template(source, &settings)? {
        entries.string("tokenizer.chat_template", &template);
    }
    Ok(())
}

/// The template, from the file `chat_template.jinja`, which transformers reads first, or from the tokenizer's settings (the
/// default one of several).
fn chat_template(source: &Checkpoint, settings: &Value) -> Result<Option<String>> {
    let file = source.side_files()?.into_iter().find(|file| file.name == "chat_template.jinja");
    if let Some(template) = file.and_then(|file| String::from_utf8(file.bytes).ok()) {
        return Ok(Some(template));
    }
    Ok(match settings.get("chat_template") {
        Some(Value::String(template)) => Some(template.clone()),
        Some(Value::Array(list)) => {
            let default = list.iter().find(|item| item["name"] == "default");
            default.and_then(|item| item["template"].as_str()).map(str::to_owned)
        }
        _ => None,
    })
}
