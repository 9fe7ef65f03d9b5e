//! Writes the seed corpora: small honest inputs that show the fuzzer the formats. `cargo run --bin seeds -- corpus`.

use ndarray::array;
use sparq_tensor::{TensorData, write_safetensors_file};
use std::path::Path;

fn put(root: &Path, target: &str, name: &str, bytes: &[u8]) {
    let directory = root.join(target);
    std::fs::create_dir_all(&directory).expect("created");
    std::fs::write(directory.join(name), bytes).expect("written");
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// A llama of one token and one tiny tensor; `kind` is its ggml type.
fn gguf(kind: u32, tensor: &[u8], width: u64) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    let numbers = [
        ("llama.block_count", 1_u32),
        ("llama.embedding_length", 32),
        ("llama.feed_forward_length", 64),
        ("llama.attention.head_count", 2),
        ("llama.context_length", 16),
    ];
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend((numbers.len() as u64 + 4).to_le_bytes());
    text(&mut bytes, "general.architecture");
    bytes.extend(8_u32.to_le_bytes());
    text(&mut bytes, "llama");
    for (name, value) in numbers {
        text(&mut bytes, name);
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    text(&mut bytes, "llama.attention.layer_norm_rms_epsilon");
    bytes.extend(6_u32.to_le_bytes());
    bytes.extend(1e-5_f32.to_le_bytes());
    text(&mut bytes, "tokenizer.ggml.model");
    bytes.extend(8_u32.to_le_bytes());
    text(&mut bytes, "gpt2");
    text(&mut bytes, "tokenizer.ggml.tokens");
    bytes.extend(9_u32.to_le_bytes());
    bytes.extend(8_u32.to_le_bytes());
    bytes.extend(3_u64.to_le_bytes());
    for token in ["a", "b", "ab"] {
        text(&mut bytes, token);
    }
    text(&mut bytes, "token_embd.weight");
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend(width.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend(tensor);
    bytes
}

fn main() {
    let root = std::env::args().nth(1).unwrap_or_else(|| "corpus".to_owned());
    let root = Path::new(&root);
    let scratch = tempfile::tempdir().expect("a directory");
    let file = |tensors: &[(&str, TensorData<'_>)]| {
        let path = scratch.path().join("file");
        write_safetensors_file(&path, tensors).expect("written");
        std::fs::read(path).expect("readable")
    };

    let (floats, bytes) = (array![[1.0_f32, -2.0], [0.5, 0.0]].into_dyn(), array![[1_u8, 2, 3]].into_dyn());
    let plain = file(&[("a", TensorData::F32(floats.view())), ("b", TensorData::AsBF16(floats.view())), ("c", TensorData::U8(bytes.view()))]);
    put(root, "safetensors", "three", &plain);
    put(root, "safetensors", "empty", &file(&[]));

    for (name, kind, tensor, width) in
        [("f32", 0, vec![0; 128], 32), ("q4_0", 2, vec![1; 18], 32), ("q8_0", 8, vec![1; 34], 32), ("q4_k", 12, vec![1; 144], 256), ("q6_k", 14, vec![1; 210], 256)]
    {
        put(root, "gguf", name, &gguf(kind, &tensor, width));
    }

    put(root, "index", "one", br#"{"metadata":{"total_size":8},"weight_map":{"w":"model-00001-of-00001.safetensors"}}"#);
    put(root, "index", "up", br#"{"weight_map":{"w":"../one.safetensors"}}"#);

    let (words, scales, shape) = (array![[0x7777_7777_i32]].into_dyn(), array![[0.5_f32]].into_dyn(), array![1_i64, 8].into_dyn());
    let packed = file(&[
        ("model.layers.0.mlp.up_proj.weight_packed", TensorData::I32(words.view())),
        ("model.layers.0.mlp.up_proj.weight_scale", TensorData::AsF16(scales.view())),
        ("model.layers.0.mlp.up_proj.weight_shape", TensorData::I64(shape.view())),
    ]);
    let scheme = r#"{"model_type":"llama","quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"group_0":{"targets":["Linear"],"weights":{"num_bits":4,"type":"int","symmetric":true,"strategy":"channel","group_size":null,"dynamic":false}}},"ignore":["lm_head"]}}"#;
    put(root, "quantized", "compressed-tensors", &[scheme.as_bytes(), b"\n", &packed].concat());
    let (qweight, qzeros, order) =
        (array![[0x7654_3210_i32, 1, 2, 3, 4, 5, 6, 7]].into_dyn(), array![[0x7777_7777_i32]].into_dyn(), array![0_i32, 0, 0, 0, 0, 0, 0, 0].into_dyn());
    let eight = ndarray::Array2::<f32>::ones((1, 8)).into_dyn();
    let packed = file(&[
        ("model.layers.0.mlp.up_proj.qweight", TensorData::I32(qweight.view())),
        ("model.layers.0.mlp.up_proj.qzeros", TensorData::I32(qzeros.view())),
        ("model.layers.0.mlp.up_proj.scales", TensorData::AsF16(eight.view())),
        ("model.layers.0.mlp.up_proj.g_idx", TensorData::I32(order.view())),
    ]);
    let scheme = r#"{"model_type":"llama","quantization_config":{"quant_method":"gptq","bits":4,"group_size":8,"desc_act":false,"sym":true,"checkpoint_format":"gptq"}}"#;
    put(root, "quantized", "gptq", &[scheme.as_bytes(), b"\n", &packed].concat());

    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for entry in std::fs::read_dir(repository.join("crates/sparq-model/tests/fixtures")).expect("listable") {
        let path = entry.expect("an entry").path();
        for config in ["config.json", "config.v4.json"] {
            if let Ok(bytes) = std::fs::read(path.join(config)) {
                let name = format!("{}-{config}", path.file_name().expect("a name").to_string_lossy());
                put(root, "config", &name, &bytes);
            }
        }
    }
    for entry in std::fs::read_dir(repository.join("crates/sparq-eval/src/task/definitions")).expect("listable") {
        let path = entry.expect("an entry").path();
        let lines = "\n---\n{\"question\": \"What?\", \"choices\": [\"a\", \"b\"], \"answer\": 1}\n";
        let definition = std::fs::read(&path).expect("readable");
        put(root, "task", &path.file_name().expect("a name").to_string_lossy(), &[&definition, lines.as_bytes()].concat());
    }
    let words = r#"{"version":"1.0","added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"<s>":0,"a":1,"b":2,"ab":3},"merges":["a b"]}}"#;
    put(root, "tokenizer", "bpe", words.as_bytes());
    put(root, "tokenizer", "words", br#"{"version":"1.0","added_tokens":[],"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\s+|\\p{N}{1,3}"},"behavior":"Isolated","invert":false},"model":{"type":"WordLevel","vocab":{"<s>":0,"a":1},"unk_token":"<s>"}}"#);
    for (name, recipe) in [("joint", "s=0.25,q=4,group=64"), ("pattern", "s=2:4,q=8,group=channel,asymmetric=true,clip=mse"), ("wanda", "s=0.5,pruner=wanda,pipeline=sequential-a,damping=0.1")] {
        put(root, "recipe", name, recipe.as_bytes());
    }
    let json = r#"{"sparsity":"2:4","pruner":"sparsegpt","scheme":{"bits":4,"granularity":{"group":64},"symmetric":true,"scale_type":"f16"},"damping":0.01}"#;
    put(root, "recipe", "json", json.as_bytes());
    let layer = r#"{"file":"block-00000.safetensors","layer":{"name":"a","shape":[1,4],"scheme":{"bits":4,"granularity":{"group":4},"symmetric":false,"scale_type":"f16"},"pruned":true,"act_order":false},"report":{"damping":0.01,"fallbacks":[]}}"#;
    let solution = format!(r#"{{"format":"sparq-solution","schema":1,"settings":{{"a":"b"}},"contents":{{"files":{{"block-00000.safetensors":"HASH"}},"layers":[{layer}]}}}}"#);
    put(root, "solution", "one", solution.as_bytes());
    let codes: Vec<i16> = (0..40 * 70).map(|at| if at == 99 { 9_999 } else { (at * at % 7 * (at % 3) - 3) as i16 }).collect();
    for (name, (rows, columns), classes) in [("two", (40, 70), 2), ("one", (3, 9), 1), ("empty", (0, 9), 1)] {
        let classes: Vec<u8> = (0..columns).map(|column| (column % classes) as u8).collect();
        let bytes = sparq_coding::encode(&codes[..rows * columns], (rows, columns), &classes).expect("encoded");
        put(root, "coded", name, &bytes);
    }
    put(root, "coding", "small", &[20, 33, 3, 1, 2, 3, 4, 128, 7]);
    put(root, "packing", "four", &[3, 40, 2, 7, 31, 1, 2, 3, 250, 77]);
    put(root, "packing", "eight", &[2, 9, 6, 3, 8, 200, 13]);
}
