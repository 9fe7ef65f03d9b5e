//! The vocabulary in GGUF metadata, and the `tokenizer_config.json` made from it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::{Error, Fault, Result};

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    /// A row of the embedding that no text leads to.
    Unused,
    /// Stands for one byte.
    Byte,
}

impl TokenKind {
    /// By the number that SentencePiece and GGUF have for it.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// Tokens with their kinds; ids are positions.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) tokens: Vec<String>,
    pub(crate) kinds: Vec<TokenKind>,
}

impl Vocabulary {
    /// `None` if the file has no tokenizer. `file` is the whole GGUF file.
    pub(super) fn from_metadata(metadata: &Metadata, file: &[u8]) -> Result<Option<Self>> {
        const KINDS: &str = "tokenizer.ggml.token_type";
        let Some(tokens) = metadata.strings("tokenizer.ggml.tokens", file)? else { return Ok(None) };
        let kinds = match metadata.integers(KINDS, file)? {
            None => vec![TokenKind::Normal; tokens.len()],
            Some(numbers) => {
                let kinds: Option<Vec<_>> = numbers.into_iter().map(TokenKind::from_number).collect();
                let kinds = kinds.ok_or_else(|| {
                    let fault = Fault::UnknownType { what: "token type", found: "a number beyond 1 to 6".into() };
                    Error::malformed(metadata.file(), fault)
                })?;
                check_length(metadata, KINDS, kinds.len(), tokens.len())?;
                kinds
            }
        };
        Ok(Some(Self { tokens, kinds }))
    }

    /// Ids by token, without the unused ones. `file` is what it was read from.
    pub(crate) fn ids(&self, file: &Path) -> Result<BTreeMap<&str, usize>> {
        let mut ids = BTreeMap::new();
        for (id, (token, kind)) in self.tokens.iter().zip(&self.kinds).enumerate() {
            if *kind != TokenKind::Unused && ids.insert(token.as_str(), id).is_some() {
                let fault = Fault::Duplicate { what: "token", name: token.clone() };
                return Err(Error::malformed(file, fault));
            }
        }
        Ok(ids)
    }

    /// The tokens that are matched in the text before anything else.
    pub(crate) fn added_tokens(&self) -> Vec<Value> {
        let added = |(id, (token, kind)): (usize, (&String, &TokenKind))| {
            let special = matches!(kind, TokenKind::Control | TokenKind::Unknown);
            (special || *kind == TokenKind::UserDefined).then(|| {
                json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special,
                })
            })
        };
        self.tokens.iter().zip(&self.kinds).enumerate().filter_map(added).collect()
    }

    /// The token whose id is the value of `key`.
    pub(super) fn token_at(&self, metadata: &Metadata, key: &str) -> Result<Option<(usize, &str)>> {
        let Some(id) = metadata.integer(key)? else { return Ok(None) };
        match usize::try_from(id).ok().and_then(|id| Some((id, self.tokens.get(id)?))) {
            Some((id, token)) => Ok(Some((id, token))),
            None => Err(Error::InvalidMetadata {
                file: metadata.file().to_path_buf(),
                key: key.to_owned(),
                expected: "the number of a token",
                found: id.to_string(),
            }),
        }
    }
}

/// Refuses an array that runs parallel to another and has not its length.
pub(super) fn check_length(metadata: &Metadata, key: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::InvalidMetadata {
        file: metadata.file().to_path_buf(),
        key: key.to_owned(),
        expected: "one element per token",
        found: format!("{found} elements for {expected} tokens"),
    })
}

/// `tokenizer_config.json`: the special tokens' names and the chat template. `file` is the whole GGUF file.
pub(super) fn tokenizer_config(metadata: &Metadata, file: &[u8]) -> Result<Option<Value>> {
    let Some(vocabulary) = Vocabulary::from_metadata(metadata, file)? else { return Ok(None) };
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    for (name, key) in [
        ("bos_token", "tokenizer.ggml.bos_token_id"),
        ("eos_token", "tokenizer.ggml.eos_token_id"),
        ("unk_token", "tokenizer.ggml.unknown_token_id"),
        ("pad_token", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some((_, token)) = vocabulary.token_at(metadata, key)? {
            config.insert(name.into(), token.into());
        }
    }
    if let Some(add) = metadata.flag("tokenizer.ggml.add_bos_token")? {
        config.insert("add_bos_token".into(), add.into());
    }
    if let Some(template) = metadata.string("tokenizer.chat_template")? {
        config.insert("chat_template".into(), template.into());
    }
    Ok(Some(config.into()))
}
