use crate::scratch::{path, put};
use sparq_eval::{Task, TaskDefinition};
use sparq_export::{Solution, SolvedLayers};
use sparq_model::{Model, ModelConfig, Tokenizer, open_checkpoint};
use sparq_pipeline::Recipe;
use sparq_tensor::{TensorData, write_safetensors_file};
use std::path::Path;

/// Elements of a tensor that is still read: time, not memory, is what this saves.
const READ: usize = 1 << 16;

/// Opens whatever is at `path` as a checkpoint and as a model, and reads all of it.
fn open(path: &Path) {
    let Ok(checkpoint) = open_checkpoint(path) else { return };
    for tensor in checkpoint.tensors().filter(|tensor| tensor.elements() <= READ) {
        let _ = checkpoint.read(&tensor.name);
        let _ = checkpoint.read_bytes(&tensor.name);
    }
    let _ = checkpoint.tokenizer_json();
    let _ = checkpoint.tokenizer_config();
    let _ = checkpoint.side_files();
    let _ = checkpoint.content_hash();
    let _ = Model::open(path);
}

/// One safetensors file.
pub fn safetensors(data: &[u8]) {
    open(&put("one.safetensors", data));
}

/// One GGUF file, opened as a model with its tokenizer.
pub fn gguf(data: &[u8]) {
    let path = put("one.gguf", data);
    open(&path);
    if let Ok(model) = Model::open(&path) {
        if let Ok(tokenizer) = model.tokenizer() {
            let _ = tokenizer.encode("The 3 quick brown foxes.\n", true);
        }
    }
}

/// `model.safetensors.index.json` beside one honest shard.
pub fn index(data: &[u8]) {
    let shard = path("sharded/model-00001-of-00001.safetensors");
    if !shard.exists() {
        let values = ndarray::array![[1.0_f32, 2.0]].into_dyn();
        write_safetensors_file(&shard, &[("w", TensorData::F32(values.view()))]).expect("written");
    }
    let index = put("sharded/model.safetensors.index.json", data);
    open(index.parent().expect("a directory"));
}

/// A quantized checkpoint: the first line is config.json, the rest model.safetensors.
pub fn quantized(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let config = put("quantized/config.json", &data[..at]);
    put("quantized/model.safetensors", data.get(at + 1..).unwrap_or_default());
    open(config.parent().expect("a directory"));
}

/// config.json.
pub fn config(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        let _ = ModelConfig::parse(&value);
    }
}

/// tokenizer.json, and with it a text of all sorts.
pub fn tokenizer(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_json(data, None) {
        let tokens = tokenizer.encode("A b\u{e9} \u{1f600}\t12 345\r\n \u{0}<s>", true);
        if let Ok(tokens) = tokens {
            let _ = tokenizer.decode(&tokens, false);
        }
        let _ = tokenizer.decode(&[0, 1, u32::MAX], true);
    }
}

/// A recipe in text form, and as JSON.
pub fn recipe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(recipe) = text.parse::<Recipe>() {
        let again: Recipe = recipe.to_string().parse().expect("what a recipe prints is a recipe");
        assert_eq!(again.to_string(), recipe.to_string());
    }
    if let Ok(recipe) = serde_json::from_str::<Recipe>(text) {
        let _ = recipe.compressor();
    }
}

/// A task: the definition up to a line of `---`, then lines of data.
pub fn task(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (definition, lines) = text.split_once("\n---\n").unwrap_or((text, ""));
    if let Ok(definition) = TaskDefinition::from_toml("task.toml", definition) {
        let _ = Task::from_texts(definition, &[("lines.jsonl", lines)]).map(|task| task.limit(3, 0));
    }
    let _ = Task::from_jsonl("lines", lines);
}

/// `solution.json` beside one honest block file, then all its layers.
pub fn solution(data: &[u8]) {
    let block = path("solution/block-00000.safetensors");
    if !block.exists() {
        let (bytes, scales) = (ndarray::array![[0x21_u8, 0x43]].into_dyn(), ndarray::array![[0.5_f32]].into_dyn());
        let parts = [
            ("a.codes", TensorData::U8(bytes.view())),
            ("a.mask", TensorData::U8(bytes.view())),
            ("a.zeros", TensorData::U8(bytes.view())),
            ("a.scales", TensorData::AsF16(scales.view())),
            ("a.weight", TensorData::F32(scales.view())),
        ];
        write_safetensors_file(&block, &parts).expect("written");
    }
    // The hash of the block file changes with nothing but this code: the fuzzer need not guess it.
    let hash = sparq_tensor::file_sha256(&block).expect("readable");
    let text = String::from_utf8_lossy(data).replace("HASH", &hash);
    let manifest = put("solution/solution.json", text.as_bytes());
    if let Ok(solution) = Solution::open(manifest.parent().expect("a directory")) {
        for layer in solution.layers() {
            let _ = solution.layer(&layer.name);
        }
    }
}
