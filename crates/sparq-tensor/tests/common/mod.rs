//! A small GGUF writer for tests: enough of the format to say what a test wants to say, truthful or not.
#![allow(dead_code)] // every test binary uses another part

use std::path::{Path, PathBuf};

/// A metadata value.
#[derive(Debug, Clone)]
pub(crate) enum Kv {
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Str(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// Type number and bytes as they are.
    Raw(u32, Vec<u8>),
}

/// A tensor: GGUF name, dimensions innermost first, ggml type number, bytes.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dimensions: Vec<u64>,
    pub(crate) ggml_type: u32,
    pub(crate) bytes: Vec<u8>,
    /// Written instead of the true offset.
    pub(crate) offset: Option<u64>,
}

/// A GGUF file in the making.
#[derive(Debug, Clone)]
pub(crate) struct Gguf {
    pub(crate) version: u32,
    pub(crate) entries: Vec<(String, Kv)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: usize,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) entry_count: Option<u64>,
}

pub(crate) fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Distinct, exactly representable values.
pub(crate) fn ramp(count: usize, start: f32) -> Vec<f32> {
    (0..count).map(|i| start + i as f32 * 0.25).collect()
}

impl Gguf {
    pub(crate) fn empty() -> Self {
        Self {
            version: 3,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            tensor_count: None,
            entry_count: None,
        }
    }

    /// A whole tiny model: hidden 32, 2 heads of 16 and one for keys and values, one block, 8 tokens, F32.
    pub(crate) fn tiny(architecture: &str) -> Self {
        let mut gguf = Self::empty();
        gguf.set("general.architecture", Kv::Str(architecture.into()));
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 128),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            gguf.set(&format!("{architecture}.{key}"), Kv::U32(value));
        }
        gguf.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Kv::F32(1e-5));
        gguf.set(&format!("{architecture}.rope.freq_base"), Kv::F32(100_000.0));
        for (name, dimensions) in [
            ("token_embd.weight", vec![32, 8]),
            ("output_norm.weight", vec![32]),
            ("blk.0.attn_norm.weight", vec![32]),
            ("blk.0.attn_q.weight", vec![32, 32]),
            ("blk.0.attn_k.weight", vec![32, 16]),
            ("blk.0.attn_v.weight", vec![32, 16]),
            ("blk.0.attn_output.weight", vec![32, 32]),
            ("blk.0.ffn_norm.weight", vec![32]),
            ("blk.0.ffn_gate.weight", vec![32, 64]),
            ("blk.0.ffn_up.weight", vec![32, 64]),
            ("blk.0.ffn_down.weight", vec![64, 32]),
        ] {
            gguf.add_f32(name, &dimensions);
        }
        gguf
    }

    /// A whole tiny GPT-2: hidden 32, 2 heads of 16, feed-forward 64, one block, 16 positions, 8 tokens, F32.
    pub(crate) fn tiny_gpt2() -> Self {
        let mut gguf = Self::empty();
        gguf.set("general.architecture", Kv::Str("gpt2".into()));
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 16),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("attention.head_count", 2),
        ] {
            gguf.set(&format!("gpt2.{key}"), Kv::U32(value));
        }
        gguf.set("gpt2.attention.layer_norm_epsilon", Kv::F32(1e-5));
        for (name, dimensions) in
            [("token_embd", vec![32, 8]), ("position_embd", vec![32, 16]), ("output_norm", vec![32])]
        {
            gguf.add_f32(&format!("{name}.weight"), &dimensions);
        }
        gguf.add_f32("output_norm.bias", &[32]);
        for (module, dimensions) in [
            ("attn_norm", vec![32]),
            ("attn_qkv", vec![32, 96]),
            ("attn_output", vec![32, 32]),
            ("ffn_norm", vec![32]),
            ("ffn_up", vec![32, 64]),
            ("ffn_down", vec![64, 32]),
        ] {
            gguf.add_f32(&format!("blk.0.{module}.weight"), &dimensions);
            gguf.add_f32(&format!("blk.0.{module}.bias"), &dimensions[dimensions.len() - 1..]);
        }
        gguf
    }

    /// As [`Gguf::tiny`], with a byte-level tokenizer of 8 tokens.
    pub(crate) fn tiny_with_tokenizer(architecture: &str, pre: &str) -> Self {
        Self::tiny(architecture).with_tokenizer(pre)
    }

    /// Adds a byte-level tokenizer of 8 tokens.
    pub(crate) fn with_tokenizer(mut self, pre: &str) -> Self {
        let gguf = &mut self;
        let tokens = ["<s>", "</s>", "a", "b", "ab", "1", "Ġ", "<tool>"];
        gguf.set("tokenizer.ggml.model", Kv::Str("gpt2".into()));
        gguf.set("tokenizer.ggml.pre", Kv::Str(pre.into()));
        gguf.set("tokenizer.ggml.tokens", Kv::Strings(tokens.iter().map(ToString::to_string).collect()));
        gguf.set("tokenizer.ggml.token_type", Kv::I32s(vec![3, 3, 1, 1, 1, 1, 1, 4]));
        gguf.set("tokenizer.ggml.merges", Kv::Strings(vec!["a b".into()]));
        gguf.set("tokenizer.ggml.bos_token_id", Kv::U32(0));
        gguf.set("tokenizer.ggml.eos_token_id", Kv::U32(1));
        gguf.set("tokenizer.chat_template", Kv::Str("{{ messages }}".into()));
        self
    }

    pub(crate) fn set(&mut self, key: &str, value: Kv) {
        self.entries.retain(|(existing, _)| existing != key);
        self.entries.push((key.to_owned(), value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.entries.retain(|(existing, _)| existing != key);
    }

    /// Adds an F32 tensor with [`ramp`] values that differ from every other tensor's.
    pub(crate) fn add_f32(&mut self, name: &str, dimensions: &[u64]) {
        let count = dimensions.iter().product::<u64>() as usize;
        let start = self.tensors.len() as f32 * 1000.0;
        self.add(name, dimensions, 0, floats(ramp(count, start)));
    }

    pub(crate) fn add(&mut self, name: &str, dimensions: &[u64], ggml_type: u32, bytes: Vec<u8>) {
        let dimensions = dimensions.to_vec();
        self.tensors.push(Tensor { name: name.to_owned(), dimensions, ggml_type, bytes, offset: None });
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            string(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            out.extend(tensor.dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
            out.extend(tensor.ggml_type.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(self.alignment) as u64;
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.bytes);
        }
        out
    }

    pub(crate) fn write_to(&self, directory: &Path) -> PathBuf {
        let path = directory.join("model.gguf");
        std::fs::write(&path, self.to_bytes()).unwrap();
        path
    }
}

impl Kv {
    fn write(&self, out: &mut Vec<u8>) {
        let mut put = |number: u32, bytes: &[u8]| {
            out.extend(number.to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Kv::U32(n) => put(4, &n.to_le_bytes()),
            Kv::I32(n) => put(5, &n.to_le_bytes()),
            Kv::F32(x) => put(6, &x.to_le_bytes()),
            Kv::Bool(flag) => put(7, &[u8::from(*flag)]),
            Kv::U64(n) => put(10, &n.to_le_bytes()),
            Kv::Raw(number, bytes) => put(*number, bytes),
            Kv::Str(text) => {
                put(8, &[]);
                string(out, text);
            }
            Kv::Strings(texts) => {
                array(out, 8, texts.len());
                for text in texts {
                    string(out, text);
                }
            }
            Kv::I32s(numbers) => {
                array(out, 5, numbers.len());
                out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
            }
            Kv::F32s(numbers) => {
                array(out, 6, numbers.len());
                out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
            }
        }
    }
}

fn array(out: &mut Vec<u8>, element: u32, count: usize) {
    out.extend(9u32.to_le_bytes());
    out.extend(element.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
