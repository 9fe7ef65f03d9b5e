//! GPT-2 in GGUF files: matrices that are the other way round there, names of two fashions.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Gguf, Kv};
use serde_json::{Value, json};
use sparq_model::open_checkpoint;
use sparq_tensor::codec::decode_rows;
use sparq_tensor::codec::ggml::quantize_rows;
use sparq_tensor::{
    Checkpoint, CheckpointWriter, DType, Error, GgufWriter, TensorInGguf, TensorInfo, TensorPart, TensorSpec,
    WriteOptions,
};
use std::path::Path;

const QKV: &str = "transformer.h.0.attn.c_attn.weight";

fn open(gguf: &Gguf) -> sparq_tensor::Result<Checkpoint> {
    let directory = tempfile::tempdir().unwrap();
    open_checkpoint(gguf.write_to(directory.path()))
}

/// With the fused matrix in blocks.
fn with_blocks() -> Gguf {
    let mut gguf = Gguf::tiny_gpt2();
    let values = ndarray::Array2::from_shape_fn((96, 32), |(row, column)| (row * 31 + column * 7) as f32 % 13.0 - 6.0);
    let tensor = gguf.tensor("blk.0.attn_qkv.weight");
    (tensor.ggml_type, tensor.bytes) = (8, quantize_rows(DType::Q8_0, values.view(), None).unwrap());
    gguf
}

fn types(matrices: DType) -> impl Fn(&TensorInfo) -> DType {
    move |tensor| if tensor.shape.len() == 1 { DType::F32 } else { matrices }
}

/// A dense Hugging Face directory with what `source` says, its names changed, and a mask.
fn as_first_checkpoint(source: &Checkpoint, path: &Path) {
    let short = |name: &str| name.trim_start_matches("transformer.").to_owned();
    let mask = TensorSpec::new("h.0.attn.bias", vec![1, 1, 16, 16], DType::F32);
    let tensors = source.tensors().map(|info| TensorSpec::new(short(&info.name), info.shape.clone(), DType::F32));
    let plan = tensors.chain([mask]).collect();
    let mut writer = CheckpointWriter::create(path, plan, WriteOptions::default()).unwrap();
    for tensor in source.tensors() {
        writer.write_f32(&short(&tensor.name), source.read(&tensor.name).unwrap().view()).unwrap();
    }
    writer.write_f32("h.0.attn.bias", ndarray::ArrayD::zeros(vec![1, 1, 16, 16]).view()).unwrap();
    for file in source.side_files().unwrap() {
        writer.write_side_file(&file.name, &file.bytes).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn matrices_are_presented_as_in_by_out() {
    let gguf = Gguf::tiny_gpt2();
    let checkpoint = open(&gguf).unwrap();
    let info = checkpoint.get(QKV).unwrap();
    assert_eq!((info.shape.as_slice(), info.bytes), ([32, 96].as_slice(), 96 * 32 * 4));
    assert_eq!(checkpoint.get("transformer.h.0.mlp.c_proj.weight").unwrap().shape, [64, 32]);
    assert_eq!(checkpoint.get("transformer.wpe.weight").unwrap().shape, [16, 32], "positions are as they are");
    let theirs = &gguf.tensors.iter().find(|tensor| tensor.name == "blk.0.attn_qkv.weight").unwrap().bytes;
    let stored = theirs.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    let stored = ndarray::Array2::from_shape_vec((96, 32), stored).unwrap();
    assert_eq!(checkpoint.read_matrix(QKV).unwrap(), stored.t());
    let bytes: Vec<u8> = stored.t().iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(*checkpoint.read_bytes(QKV).unwrap(), bytes);
    // Logical layers are rows of the file.
    let keys = TensorPart { tensor: QKV.into(), shape: vec![32, 96], first_row: 32, transposed: true };
    assert_eq!(checkpoint.read_part(&keys, 32).unwrap(), stored.slice(ndarray::s![32..64, ..]));
    let config = checkpoint.config().unwrap();
    for (field, value) in [
        ("model_type", json!("gpt2")),
        ("n_embd", json!(32)),
        ("n_inner", json!(64)),
        ("n_positions", json!(16)),
        ("activation_function", json!("gelu_new")),
        ("tie_word_embeddings", json!(true)),
        ("vocab_size", json!(8)),
    ] {
        assert_eq!(config[field], value, "{field}");
    }
}

#[test]
fn blocks_are_turned_when_read_and_never_as_bytes() {
    let gguf = with_blocks();
    let checkpoint = open(&gguf).unwrap();
    let bytes = gguf.tensors.iter().find(|tensor| tensor.name == "blk.0.attn_qkv.weight").unwrap().bytes.clone();
    let decoded = decode_rows(DType::Q8_0, &bytes, 96 * 32).unwrap();
    let decoded = ndarray::Array2::from_shape_vec((96, 32), decoded).unwrap();
    assert_eq!(checkpoint.read_matrix(QKV).unwrap(), decoded.t());
    let values = TensorPart { tensor: QKV.into(), shape: vec![32, 96], first_row: 64, transposed: true };
    assert_eq!(checkpoint.read_part(&values, 32).unwrap(), decoded.slice(ndarray::s![64.., ..]));
    let error = checkpoint.read_bytes(QKV).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { .. }) && error.to_string().contains("Q8_0"), "{error}");
    // A file made of it has the same blocks, whichever way they are handed over.
    let out = tempfile::tempdir().unwrap();
    let as_they_are = |tensor: &TensorInfo| tensor.dtype;
    for rows in [false, true] {
        let path = out.path().join(format!("{rows}.gguf"));
        let mut writer = GgufWriter::create(&path, &checkpoint, as_they_are, None, false).unwrap();
        for tensor in checkpoint.tensors() {
            if rows && tensor.name == QKV {
                assert!(matches!(writer.write_bytes(QKV, &bytes), Err(Error::InvalidPlan { .. })));
                assert!(matches!(writer.write_rows(QKV, &bytes[1..]), Err(Error::SizeMismatch { .. })));
                writer.write_rows(QKV, &bytes).unwrap();
            } else {
                writer.copy(&checkpoint, &tensor.name).unwrap();
            }
        }
        assert!(matches!(writer.copy(&checkpoint, QKV), Err(Error::WrittenTwice { .. })));
        writer.finish().unwrap();
        let again = open_checkpoint(&path).unwrap();
        for tensor in checkpoint.tensors() {
            let (ours, theirs) = (again.read(&tensor.name).unwrap(), checkpoint.read(&tensor.name).unwrap());
            assert_eq!(ours, theirs, "{}", tensor.name);
        }
        assert!(std::fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes));
    }
    let mut writer =
        GgufWriter::create(out.path().join("x.gguf"), &checkpoint, types(DType::F16), None, false).unwrap();
    assert!(matches!(writer.copy(&checkpoint, QKV), Err(Error::InvalidPlan { .. })), "another type");
    assert!(matches!(writer.copy(&checkpoint, "nowhere"), Err(Error::NotPlanned { .. })));
}

#[test]
fn the_first_checkpoints_have_names_and_masks_of_their_own() {
    let source = open(&Gguf::tiny_gpt2().with_tokenizer("gpt-2")).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let (first, path) = (parent.path().join("first"), parent.path().join("model.gguf"));
    as_first_checkpoint(&source, &first);
    let first = open_checkpoint(first).unwrap();
    let qkv = TensorInGguf::of(&first, "h.0.attn.c_attn.weight").unwrap();
    assert_eq!((qkv.name.as_str(), qkv.presented.as_str()), ("blk.0.attn_qkv.weight", QKV));
    assert!(qkv.transposed && !TensorInGguf::of(&first, "h.0.attn.c_attn.bias").unwrap().transposed);
    assert_eq!(TensorInGguf::of(&first, "h.0.attn.bias"), None);
    let mut writer = GgufWriter::create(&path, &first, types(DType::F32), Some(0), false).unwrap();
    for tensor in first.tensors().filter(|tensor| tensor.name != "h.0.attn.bias") {
        writer.write_f32(&tensor.name, first.read(&tensor.name).unwrap().view()).unwrap();
    }
    writer.finish().unwrap();
    let made = open_checkpoint(&path).unwrap();
    let names = |checkpoint: &Checkpoint| checkpoint.tensors().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&made), names(&source));
    for name in names(&source) {
        assert_eq!(made.read(&name).unwrap(), source.read(&name).unwrap(), "{name}");
    }
    assert_eq!(made.config().unwrap(), source.config().unwrap());
}

#[test]
fn names_of_both_fashions_for_one_tensor_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let source = open(&Gguf::tiny_gpt2().with_tokenizer("gpt-2")).unwrap();
    let path = directory.path().join("both");
    let both = ["wte.weight", "transformer.wte.weight"];
    let plan = both.map(|name| TensorSpec::new(name, vec![8, 32], DType::F32)).into();
    let mut writer = CheckpointWriter::create(&path, plan, WriteOptions::default()).unwrap();
    for name in both {
        writer.write_f32(name, source.read("transformer.wte.weight").unwrap().view()).unwrap();
    }
    writer.write_side_file("config.json", source.config().unwrap().to_string().as_bytes()).unwrap();
    writer.finish().unwrap();
    let error = GgufWriter::check(&open_checkpoint(&path).unwrap(), types(DType::F32)).unwrap_err().to_string();
    assert!(error.contains("wte.weight") && error.contains("token_embd.weight"), "{error}");
}

#[test]
fn what_llama_cpp_does_not_compute_is_refused() {
    let source = open(&Gguf::tiny_gpt2().with_tokenizer("gpt-2")).unwrap();
    for (field, value) in [
        ("activation_function", json!("gelu")),
        ("activation_function", json!("relu")),
        ("scale_attn_by_inverse_layer_idx", json!(true)),
        ("scale_attn_weights", json!(false)),
        ("add_cross_attention", json!(true)),
        ("n_embd", json!(-1)),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("first");
        as_first_checkpoint(&source, &path);
        let mut config: Value = source.config().unwrap().clone();
        config[field] = value;
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        let error = GgufWriter::check(&open_checkpoint(&path).unwrap(), types(DType::F32)).unwrap_err();
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let refusal = |change: &dyn Fn(&mut Gguf)| {
        let mut gguf = Gguf::tiny_gpt2();
        change(&mut gguf);
        open(&gguf).unwrap_err().to_string()
    };
    for (key, value, word) in [
        ("attention.head_count_kv", 1, "attention"),
        ("attention.key_length", 8, "attention"),
        ("expert_count", 4, "experts"),
        ("context_length", 0, "context_length"),
    ] {
        let message = refusal(&|gguf| gguf.set(&format!("gpt2.{key}"), Kv::U32(value)));
        assert!(message.contains(word), "{key}: {message}");
    }
    for key in ["gpt2.attention.layer_norm_epsilon", "gpt2.context_length", "gpt2.feed_forward_length"] {
        assert!(refusal(&|gguf| gguf.remove(key)).contains(key), "{key}");
    }
    for dimensions in [vec![32 * 96], vec![32, 32, 3]] {
        let message = refusal(&|gguf| gguf.tensor("blk.0.attn_qkv.weight").dimensions = dimensions.clone());
        assert!(message.contains("blk.0.attn_qkv.weight") && message.contains("matrix"), "{message}");
    }
    let message = refusal(&|gguf| gguf.tensor("blk.0.attn_qkv.weight").name = "blk.0.attn_q.weight".into());
    assert!(message.contains("attn_q.weight"), "{message}");
    assert!(refusal(&|gguf| gguf.tensors.retain(|tensor| tensor.name != "token_embd.weight")).contains("token_embd"));
}
