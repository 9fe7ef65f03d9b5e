//! SentencePiece's byte-pair encoding as `tokenizer.json`, from a GGUF file's metadata or from `tokenizer.model`.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use serde_json::{Map, Value, json};

use crate::container::gguf::vocabulary::{TokenKind, Vocabulary};
use crate::files::read_limited;
use crate::tokenizer_files::MAKE_ONE;
use crate::{Error, Fault, Result, limits};

/// What the tokenizer is made of. Its order of merges is the order of the scores of their results.
pub(crate) struct Pieces<'a> {
    /// What it was read from, and what the list of pieces is called there.
    pub(crate) file: &'a Path,
    pub(crate) key: &'static str,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) scores: Vec<f32>,
    /// Whether a blank is put in front of a text.
    pub(crate) prefix_space: bool,
    /// The tokens that are put before and behind a text.
    pub(crate) edges: [Option<usize>; 2],
}

impl Pieces<'_> {
    /// The contents of `tokenizer.json`.
    pub(crate) fn json(&self) -> Result<Value> {
        let Self { vocabulary, prefix_space, edges, .. } = self;
        let ids = vocabulary.ids(self.file)?;
        let merges = self.merges(&ids)?;
        let unknown = vocabulary.kinds.iter().position(|&kind| kind == TokenKind::Unknown);
        let unknown = unknown.map(|id| vocabulary.tokens[id].as_str());
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab_json(&ids), "merges": merges,
        });
        let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if *prefix_space {
            normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        let edges = edges.map(|edge| edge.and_then(|id| Some((id, vocabulary.tokens.get(id)?.as_str()))));
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": vocabulary.added_tokens(),
            "normalizer": { "type": "Sequence", "normalizers": normalizers },
            "pre_tokenizer": null,
            "post_processor": template(edges),
            "decoder": { "type": "Sequence", "decoders": decoders },
            "model": model,
        }))
    }

    /// Every way to put a token together from two others, best score first; among equals in the order of ids. Pairs, because
    /// tokens may hold blanks.
    fn merges(&self, ids: &BTreeMap<&str, usize>) -> Result<Vec<[String; 2]>> {
        let refuse = |expected, found: usize| {
            let (file, key) = (self.file.to_path_buf(), self.key.to_owned());
            Err(Error::InvalidMetadata { file, key, expected, found: format!("{found} bytes") })
        };
        let Self { vocabulary, scores, .. } = self;
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
}

pub(crate) fn vocab_json(ids: &BTreeMap<&str, usize>) -> Value {
    ids.iter().map(|(&token, &id)| (token.to_owned(), Value::from(id))).collect::<Map<_, _>>().into()
}

/// The post-processor that puts the tokens of begin and end around a text, or null.
pub(crate) fn template([begin, end]: [Option<(usize, &str)>; 2]) -> Value {
    if begin.is_none() && end.is_none() {
        return Value::Null;
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
    json!({
        "type": "TemplateProcessing", "single": sequence("A", 0), "pair": pair, "special_tokens": special_tokens,
    })
}

/// What is needed of SentencePiece's `ModelProto` (sentencepiece_model.proto); other fields are passed over.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(float, tag = "2")]
    score: f32,
    #[prost(uint32, optional, tag = "3")]
    kind: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(uint32, optional, tag = "3")]
    model_type: Option<u32>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "41")]
    begin: Option<i32>,
    #[prost(int32, optional, tag = "42")]
    end: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
}

/// The model type of byte-pair encoding.
const BPE: u32 = 2;

/// A `tokenizer.model` as `tokenizer.json`. `settings` are those of `tokenizer_config.json`: which tokens go around a text.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] if it is none; [`Error::Unsupported`] for other models than byte-pair encoding that falls
/// back to bytes, and for texts that are rewritten before they are cut.
pub(crate) fn from_file(path: &Path, settings: &Value) -> Result<Value> {
    let bytes = read_limited(path, limits::SIDE_FILE_BYTES)?;
    let malformed =
        |reason: String| Error::malformed(path, Fault::BadValue { what: "a SentencePiece model", value: reason });
    let model = Model::decode(bytes.as_slice()).map_err(|error| malformed(error.to_string()))?;
    let unsupported = |what: &str, value: &str| Error::Unsupported {
        file: path.to_path_buf(),
        what: what.to_owned(),
        value: value.to_owned(),
    };
    let (trainer, normalizer) = (model.trainer.unwrap_or_default(), model.normalizer.unwrap_or_default());
    if trainer.model_type != Some(BPE) || trainer.byte_fallback != Some(true) {
        let what = "a SentencePiece model that is no byte-pair encoding with bytes to fall back to";
        return Err(unsupported(what, MAKE_ONE));
    }
    if normalizer.charsmap.is_some_and(|map| !map.is_empty()) || normalizer.remove_extra_whitespaces == Some(true) {
        return Err(unsupported("a SentencePiece model that rewrites texts", "its normalizer"));
    }
    let kind = |piece: &Piece| TokenKind::from_number(u64::from(piece.kind.unwrap_or(1)));
    let kinds = model.pieces.iter().map(kind).collect::<Option<Vec<_>>>();
    let kinds = kinds.ok_or_else(|| malformed("the kind of a piece".to_owned()))?;
    let (scores, tokens) = model.pieces.into_iter().map(|piece| (piece.score, piece.text)).unzip();
    let edge = |key: &str, default: bool, id: Option<i32>, usual: i32| {
        let wanted = settings[key].as_bool().unwrap_or(default);
        usize::try_from(id.unwrap_or(usual)).ok().filter(|_| wanted)
    };
    let pieces = Pieces {
        file: path,
        key: "pieces",
        vocabulary: Vocabulary { tokens, kinds },
        scores,
        prefix_space: normalizer.add_dummy_prefix.unwrap_or(true),
        edges: [edge("add_bos_token", true, trainer.begin, 1), edge("add_eos_token", false, trainer.end, 2)],
    };
    pieces.json()
}
