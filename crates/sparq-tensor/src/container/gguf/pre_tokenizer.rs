//! How text is cut before byte-pair merges are applied, as GGUF and as `tokenizer.json` say it.

use serde_json::{Value, json};

use super::metadata::Metadata;
use crate::Result;

/// A way to cut text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreTokenizer {
    Gpt2,
    /// GPT-2's with every digit on its own.
    SingleDigits,
    Llama3,
    Qwen2,
    /// The pieces of Llama 3, of which none is looked up whole: OLMo 2, Phi-4.
    Dbrx,
    /// Words are cut where small letters are followed by capitals: Phi-4-mini.
    Gpt4o,
    /// As [`Gpt4o`](Self::Gpt4o), every digit on its own: Mistral since Nemo.
    Tekken,
}

/// Contractions; letters with one leading non-letter; numbers; punctuation; line breaks; spaces but the one before a
/// word.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with every digit on its own.
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Cuts as [`LLAMA3_PATTERN`] does: what its quantifiers would give back is of no use to what follows them.
const CL100K_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
/// Capitals and then small letters, with a contraction behind; otherwise as [`LLAMA3_PATTERN`].
const O200K_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same without contractions, every digit on its own.
const TEKKEN_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl PreTokenizer {
    const ALL: [Self; 7] =
        [Self::Gpt2, Self::SingleDigits, Self::Llama3, Self::Qwen2, Self::Dbrx, Self::Gpt4o, Self::Tekken];

    pub(super) fn from_metadata(metadata: &Metadata) -> Result<Self> {
        const KEY: &str = "tokenizer.ggml.pre";
        match metadata.string(KEY)?.unwrap_or("default") {
            "default" | "gpt-2" | "olmo" | "phi-2" => Ok(Self::Gpt2),
            "smollm" | "starcoder" | "refact" => Ok(Self::SingleDigits),
            "llama-bpe" | "llama3" | "llama-v3" => Ok(Self::Llama3),
            "qwen2" | "deepseek-r1-qwen" => Ok(Self::Qwen2),
            "dbrx" | "smaug-bpe" => Ok(Self::Dbrx),
            "gpt-4o" => Ok(Self::Gpt4o),
            "tekken" => Ok(Self::Tekken),
            other => Err(metadata.unsupported(KEY, other)),
        }
    }

    /// The inverse of [`json`](Self::json); `None` for what GGUF has no name for here.
    pub(super) fn from_json(json: &Value) -> Option<Self> {
        let wanted = same_cuts(json);
        Self::ALL.into_iter().find(|known| same_cuts(&known.json()) == wanted)
    }

    /// The value of `tokenizer.ggml.pre`.
    pub(super) fn gguf_name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::SingleDigits => "smollm",
            Self::Llama3 => "llama-bpe",
            Self::Qwen2 => "qwen2",
            Self::Dbrx => "dbrx",
            Self::Gpt4o => "gpt-4o",
            Self::Tekken => "tekken",
        }
    }

    /// Whether the vocabulary has words that its merges do not lead to.
    pub(super) fn ignores_merges(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    /// What text becomes before it is cut.
    pub(crate) fn normalizer(self) -> Value {
        if self == Self::Qwen2 { json!({ "type": "NFC" }) } else { Value::Null }
    }

    pub(crate) fn json(self) -> Value {
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
            Self::Dbrx => split(CL100K_PATTERN),
            Self::Gpt4o => split(O200K_PATTERN),
            Self::Tekken => split(TEKKEN_PATTERN),
        };
        json!({ "type": "Sequence", "pretokenizers": [first, byte_level(false)] })
    }
}

/// `json` without what makes no difference to the pieces.
fn same_cuts(json: &Value) -> Vec<Value> {
    let steps = json.get("pretokenizers").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![json.clone()]);
    let mut steps: Vec<Value> = steps;
    for step in steps.iter_mut().filter_map(Value::as_object_mut) {
        step.remove("trim_offsets"); // offsets are no tokens
        if step.get("type").is_some_and(|kind| kind == "ByteLevel") {
            step.entry("use_regex").or_insert(true.into());
        }
        // The patterns match all of a text: to keep the matches is to take away what is between them, which is nothing.
        let (behavior, invert) = (step.get("behavior").cloned(), step.get("invert").cloned());
        if behavior == Some("Removed".into()) && invert == Some(true.into()) {
            step.insert("behavior".into(), "Isolated".into());
            step.insert("invert".into(), false.into());
        }
    }
    steps
}
