//! GGUF files written here: what is read from them is what went in, whatever the source was.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Gguf, Kv};
use serde_json::{Value, json};
use sparq_model::open_checkpoint;
use sparq_tensor::{Checkpoint, CheckpointWriter, DType, Error, GgufWriter, TensorInfo, TensorSpec, WriteOptions};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Vectors in F32, matrices in `matrices`.
fn types(matrices: DType) -> impl Fn(&TensorInfo) -> DType {
    move |tensor| if tensor.shape.len() == 1 { DType::F32 } else { matrices }
}

fn write(source: &Checkpoint, path: &Path, matrices: DType) -> Result<(), Error> {
    let mut writer = GgufWriter::create(path, source, types(matrices), Some(0), false)?;
    for tensor in source.tensors() {
        writer.write_f32(&tensor.name, source.read(&tensor.name)?.view())?;
    }
    assert!(!path.exists());
    writer.finish().map(|_| ())
}

/// A dense Hugging Face directory with what `source` says.
fn as_directory(source: &Checkpoint, parent: &Path) -> PathBuf {
    let path = parent.join("directory");
    let plan = source.tensors().map(|tensor| TensorSpec::new(&tensor.name, tensor.shape.clone(), DType::F32)).collect();
    let mut writer = CheckpointWriter::create(&path, plan, WriteOptions::default()).unwrap();
    for tensor in source.tensors() {
        writer.write_f32(&tensor.name, source.read(&tensor.name).unwrap().view()).unwrap();
    }
    for file in source.side_files().unwrap() {
        writer.write_side_file(&file.name, &file.bytes).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn assert_same(a: &Checkpoint, b: &Checkpoint) {
    let names = |checkpoint: &Checkpoint| checkpoint.tensors().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for name in names(a) {
        assert_eq!(a.read(&name).unwrap(), b.read(&name).unwrap(), "{name}");
    }
    assert_eq!(a.config().unwrap(), b.config().unwrap());
    let json = |checkpoint: &Checkpoint| {
        checkpoint.tokenizer_json().unwrap().map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    assert_eq!(json(a), json(b));
    assert_eq!(a.tokenizer_config().unwrap(), b.tokenizer_config().unwrap());
}

/// Through a file made of a GGUF file, and one made of a directory.
fn round_trips(gguf: &Gguf) {
    let directory = tempfile::tempdir().unwrap();
    let source = open_checkpoint(gguf.write_to(directory.path())).unwrap();
    let copied = directory.path().join("copied.gguf");
    write(&source, &copied, DType::F32).unwrap();
    assert_same(&open_checkpoint(&copied).unwrap(), &source);
    let made = directory.path().join("made.gguf");
    let dense = open_checkpoint(as_directory(&source, directory.path())).unwrap();
    write(&dense, &made, DType::F32).unwrap();
    assert_same(&open_checkpoint(&made).unwrap(), &source);
    // The rows of queries and keys are in llama.cpp's order again: the same bytes as in the first file.
    let bytes = |path: &Path| std::fs::read(path).unwrap();
    let query = gguf.tensors.iter().find(|tensor| tensor.name.starts_with("blk.0.attn_q")).unwrap().bytes.clone();
    for path in [&copied, &made] {
        assert!(bytes(path).windows(query.len()).any(|window| window == query));
    }
}

#[test]
fn models_with_byte_level_tokenizers() {
    for (architecture, pre) in [
        ("llama", "smollm"),
        ("llama", "llama-bpe"),
        ("qwen2", "qwen2"),
        ("qwen3", "gpt-2"),
        ("llama", "dbrx"),
        ("llama", "tekken"),
        ("qwen3", "gpt-4o"),
    ] {
        let mut gguf = Gguf::tiny_with_tokenizer(architecture, pre);
        gguf.set("tokenizer.ggml.add_bos_token", Kv::Bool(architecture == "llama"));
        gguf.set("tokenizer.ggml.add_eos_token", Kv::Bool(false));
        round_trips(&gguf);
    }
}

#[test]
fn gpt2_whose_matrices_are_the_other_way_round() {
    let mut gguf = Gguf::tiny_gpt2().with_tokenizer("gpt-2");
    gguf.set("tokenizer.ggml.add_bos_token", Kv::Bool(false));
    gguf.set("tokenizer.ggml.add_eos_token", Kv::Bool(false));
    round_trips(&gguf);
    gguf.add_f32("output.weight", &[32, 8]);
    round_trips(&gguf);
}

#[test]
fn experts_of_a_block_are_one_tensor_again() {
    let mut gguf = Gguf::tiny("qwen3moe");
    gguf.tensors.retain(|tensor| !tensor.name.starts_with("blk.0.ffn_") || tensor.name.contains("norm"));
    for (key, value) in [("expert_count", 3), ("expert_used_count", 2), ("expert_feed_forward_length", 64)] {
        gguf.set(&format!("qwen3moe.{key}"), Kv::U32(value));
    }
    gguf.add_f32("blk.0.ffn_gate_inp.weight", &[32, 3]);
    for name in ["blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight"] {
        gguf.add_f32(name, &[32, 64, 3]);
    }
    gguf.add_f32("blk.0.ffn_down_exps.weight", &[64, 32, 3]);
    round_trips(&gguf);
    // Experts of one block cannot have several types.
    let directory = tempfile::tempdir().unwrap();
    let source = open_checkpoint(gguf.write_to(directory.path())).unwrap();
    let mixed = |tensor: &TensorInfo| match tensor.shape.len() {
        2 if tensor.name.contains("experts.1.") => DType::F16,
        _ => DType::F32,
    };
    let error = GgufWriter::check(&source, mixed).unwrap_err().to_string();
    assert!(error.contains("experts.") && error.contains("one tensor"), "{error}");
}

#[test]
fn norms_of_gemma_and_what_llama_cpp_takes_for_granted() {
    let mut gguf = Gguf::tiny("gemma3");
    gguf.set("gemma3.attention.sliding_window", Kv::U32(32));
    gguf.set("gemma3.rope.scaling.type", Kv::Str("linear".into()));
    gguf.set("gemma3.rope.scaling.factor", Kv::F32(8.0));
    round_trips(&gguf);
    let directory = tempfile::tempdir().unwrap();
    let source = open_checkpoint(gguf.write_to(directory.path())).unwrap();
    let path = as_directory(&source, directory.path());
    for (field, value) in [
        ("query_pre_attn_scalar", json!(24)),
        ("rope_local_base_freq", json!(2e4)),
        ("sliding_window_pattern", json!(2)),
        ("final_logit_softcapping", json!(30.0)),
    ] {
        let mut config = source.config().unwrap().clone();
        config[field] = value;
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        let error = GgufWriter::check(&open_checkpoint(&path).unwrap(), types(DType::F32)).unwrap_err();
        assert!(error.to_string().contains("llama.cpp"), "{field}: {error}");
    }
}

#[test]
fn a_sentence_piece_tokenizer() {
    let mut gguf = Gguf::tiny("llama");
    let tokens = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "▁a", "b"];
    gguf.set("tokenizer.ggml.model", Kv::Str("llama".into()));
    gguf.set("tokenizer.ggml.tokens", Kv::Strings(tokens.map(str::to_owned).to_vec()));
    gguf.set("tokenizer.ggml.token_type", Kv::I32s(vec![2, 3, 3, 6, 1, 1, 1, 1]));
    gguf.set("tokenizer.ggml.scores", Kv::F32s(vec![0.0, 0.0, 0.0, 0.0, -2.0, -2.0, 0.0, -2.0]));
    gguf.set("tokenizer.ggml.bos_token_id", Kv::U32(1));
    gguf.set("tokenizer.ggml.eos_token_id", Kv::U32(2));
    gguf.set("tokenizer.ggml.unknown_token_id", Kv::U32(0));
    gguf.set("tokenizer.ggml.add_bos_token", Kv::Bool(true));
    round_trips(&gguf);
}

#[test]
fn rotary_scaling_and_windows() {
    let mut gguf = Gguf::tiny("llama");
    gguf.set("llama.rope.scaling.type", Kv::Str("yarn".into()));
    gguf.set("llama.rope.scaling.factor", Kv::F32(4.0));
    gguf.set("llama.rope.scaling.original_context_length", Kv::U32(64));
    gguf.set("llama.attention.sliding_window", Kv::U32(32));
    round_trips(&gguf);
    // Llama 3's rule becomes a tensor of divisors, and the tensor the rule again.
    let directory = tempfile::tempdir().unwrap();
    let source = open_checkpoint(Gguf::tiny("llama").write_to(directory.path())).unwrap();
    let path = as_directory(&source, directory.path());
    let mut config = source.config().unwrap().clone();
    config["rope_theta"] = json!(500_000.0);
    config["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    let scaled = open_checkpoint(&path).unwrap();
    let (made, again) = (directory.path().join("made.gguf"), directory.path().join("again.gguf"));
    write(&scaled, &made, DType::F32).unwrap();
    let made = open_checkpoint(&made).unwrap();
    assert_eq!(made.config().unwrap()["rope_scaling"], config["rope_scaling"]);
    write(&made, &again, DType::F32).unwrap();
    assert_same(&open_checkpoint(&again).unwrap(), &made);
}

#[test]
fn half_precision_and_vocabularies_that_are_padded() {
    let directory = tempfile::tempdir().unwrap();
    let mut gguf = Gguf::tiny_with_tokenizer("llama", "smollm");
    let embedding = gguf.tensor("token_embd.weight");
    (embedding.dimensions, embedding.bytes) = (vec![32, 10], common::floats(common::ramp(320, 0.0)));
    let source = open_checkpoint(gguf.write_to(directory.path())).unwrap();
    let dense = open_checkpoint(as_directory(&source, directory.path())).unwrap();
    let made = directory.path().join("made.gguf");
    let mut writer = GgufWriter::create(&made, &dense, types(DType::BF16), Some(32), false).unwrap();
    for tensor in dense.tensors() {
        // Ramps up to some thousands in quarters do not fit eight bits: small values do.
        let values = dense.read(&tensor.name).unwrap().mapv(|value| (value % 8.0).round());
        writer.write_f32(&tensor.name, values.view()).unwrap();
    }
    writer.finish().unwrap();
    let made = open_checkpoint(&made).unwrap();
    assert_eq!(made.get("model.embed_tokens.weight").unwrap().dtype, DType::BF16);
    let tokenizer: Value = serde_json::from_slice(&made.tokenizer_json().unwrap().unwrap()).unwrap();
    let original: Value = serde_json::from_slice(&source.tokenizer_json().unwrap().unwrap()).unwrap();
    assert_eq!(tokenizer["model"]["vocab"], original["model"]["vocab"], "padding belongs to no text");
}

#[test]
fn parts_are_read_as_one_model() {
    let directory = tempfile::tempdir().unwrap();
    let source = open_checkpoint(Gguf::tiny_with_tokenizer("llama", "smollm").write_to(directory.path())).unwrap();
    let (whole, parts) = (directory.path().join("whole.gguf"), directory.path().join("parts"));
    write(&source, &whole, DType::F16).unwrap();
    let write_parts = |most: u64, overwrite: bool| {
        let mut writer = GgufWriter::create_parts(&parts, &source, types(DType::F16), Some(0), overwrite, most)?;
        for tensor in source.tensors() {
            writer.write_f32(&tensor.name, source.read(&tensor.name)?.view())?;
        }
        writer.finish()
    };
    let planned = |most| GgufWriter::planned_size(&source, types(DType::F16), Some(0), most).unwrap().file_bytes;
    let expected = open_checkpoint(&whole).unwrap();
    for (most, overwrite) in [(3000, false), (1, true), (u64::MAX, true)] {
        let written = write_parts(most, overwrite).unwrap();
        let files: Vec<PathBuf> = std::fs::read_dir(&parts).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), written.shards);
        assert_eq!(written.shards == 1, most == u64::MAX);
        let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert_eq!(bytes, planned(Some(most)));
        // By the directory and by each part.
        for path in files.iter().chain([&parts]) {
            let read = open_checkpoint(path).unwrap();
            assert_eq!(read.config().unwrap(), expected.config().unwrap());
            assert_eq!(read.tokenizer_json().unwrap(), expected.tokenizer_json().unwrap());
            assert!(read.tensors().map(|info| &info.name).eq(expected.tensors().map(|info| &info.name)));
            for info in expected.tensors() {
                assert_eq!(read.read(&info.name).unwrap(), expected.read(&info.name).unwrap(), "{}", info.name);
            }
        }
    }
    assert!(matches!(write_parts(3000, false), Err(Error::DestinationExists { .. })));
    std::fs::write(parts.join("notes.txt"), "somebody's").unwrap();
    assert!(matches!(write_parts(3000, true), Err(Error::NotOverwritable { .. })));
    assert_eq!(planned(None), whole.metadata().unwrap().len());
}

#[test]
fn what_cannot_be_written_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let source = open_checkpoint(Gguf::tiny_with_tokenizer("llama", "smollm").write_to(directory.path())).unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    let create = |source: &Checkpoint, matrices, overwrite| {
        GgufWriter::create(&path, source, types(matrices), None, overwrite).map(|_| ()).unwrap_err().to_string()
    };
    assert!(create(&source, DType::Q4_K, false).contains("whole number of Q4_K blocks"));
    assert!(create(&source, DType::U8, false).contains("no type U8"));

    let mut writer = GgufWriter::create(&path, &source, types(DType::F16), None, false).unwrap();
    let values = source.read("lm_head.weight").or_else(|_| source.read("model.embed_tokens.weight")).unwrap();
    assert!(matches!(writer.write_f32("nowhere", values.view()), Err(Error::NotPlanned { .. })));
    assert!(matches!(writer.write_f32("model.norm.weight", values.view()), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(writer.write_bytes("model.norm.weight", &[0; 3]), Err(Error::SizeMismatch { .. })));
    let huge = values.mapv(|_| 1e6);
    let error = writer.write_f32("model.embed_tokens.weight", huge.view()).unwrap_err();
    assert!(matches!(error, Error::NotRepresentable { .. }), "{error}");
    assert!(matches!(writer.finish(), Err(Error::NotWritten { .. })));
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);

    std::fs::write(&path, "somebody's notes").unwrap();
    assert!(create(&source, DType::F32, false).contains("exists"));
    assert!(create(&source, DType::F32, true).contains("not a checkpoint"));
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's notes");
    std::fs::write(&path, "GGUF of old").unwrap();
    GgufWriter::create(&path, &source, types(DType::F32), None, true).unwrap();

    let changed = |change: &dyn Fn(&mut Value, &mut Value)| {
        let parent = tempfile::tempdir().unwrap();
        let dense = as_directory(&source, parent.path());
        let mut config = source.config().unwrap().clone();
        let mut tokenizer = serde_json::from_slice(&source.tokenizer_json().unwrap().unwrap()).unwrap();
        change(&mut config, &mut tokenizer);
        std::fs::write(dense.join("config.json"), config.to_string()).unwrap();
        std::fs::write(dense.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        GgufWriter::check(&open_checkpoint(dense).unwrap(), types(DType::F32))
    };
    let refused = |change: &dyn Fn(&mut Value, &mut Value), word: &str| {
        let message = changed(change).unwrap_err().to_string();
        assert!(message.contains(word), "{message} should name {word}");
    };
    refused(&|config, _| config["model_type"] = json!("gemma"), "gemma");
    refused(&|config, _| config["num_hidden_layers"] = json!(null), "num_hidden_layers");
    refused(&|config, _| config["hidden_size"] = json!(-3), "hidden_size");
    refused(&|config, _| config["rope_scaling"] = json!({ "rope_type": "longrope" }), "longrope");
    refused(&|_, tokenizer| tokenizer["model"]["type"] = json!("Unigram"), "Unigram");
    refused(&|_, tokenizer| tokenizer["pre_tokenizer"] = json!({ "type": "Whitespace" }), "Whitespace");
    refused(&|_, tokenizer| tokenizer["model"]["vocab"]["a"] = json!(800), "vocab");
    refused(&|_, tokenizer| tokenizer["model"]["merges"] = json!(["ab"]), "merges");
}

/// The metadata of the file that is made of a directory whose tokenizer is changed, as a checkpoint.
fn rewritten(pre: &str, change: impl FnOnce(&mut Value, &Path)) -> (TempDir, Checkpoint) {
    let directory = tempfile::tempdir().unwrap();
    let source = open_checkpoint(Gguf::tiny_with_tokenizer("llama", pre).write_to(directory.path())).unwrap();
    let dense = as_directory(&source, directory.path());
    let mut tokenizer = serde_json::from_slice(&source.tokenizer_json().unwrap().unwrap()).unwrap();
    change(&mut tokenizer, &dense);
    std::fs::write(dense.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let made = directory.path().join("made.gguf");
    write(&open_checkpoint(dense).unwrap(), &made, DType::F32).unwrap();
    let made = open_checkpoint(made).unwrap();
    (directory, made)
}

fn tokenizer_of(checkpoint: &Checkpoint) -> Value {
    serde_json::from_slice(&checkpoint.tokenizer_json().unwrap().unwrap()).unwrap()
}

#[test]
fn what_older_tokenizers_leave_out_is_understood() {
    let (_kept, unchanged) = rewritten("gpt-2", |_, _| {});
    let (_kept, nameless) = rewritten("gpt-2", |tokenizer, _| {
        tokenizer["model"].as_object_mut().unwrap().remove("type");
        tokenizer["pre_tokenizer"].as_object_mut().unwrap().remove("use_regex");
    });
    assert_eq!(tokenizer_of(&nameless), tokenizer_of(&unchanged));
    let (_kept, inverted) = rewritten("dbrx", |tokenizer, _| {
        let split = &mut tokenizer["pre_tokenizer"]["pretokenizers"][0];
        split["behavior"] = json!("Removed");
        split["invert"] = json!(true);
    });
    assert!(tokenizer_of(&inverted)["pre_tokenizer"].to_string().contains("?+"));
}

#[test]
fn the_template_of_a_file_comes_before_that_of_the_settings() {
    let (_kept, made) = rewritten("gpt-2", |_, dense| {
        std::fs::write(dense.join("chat_template.jinja"), "NEW").unwrap();
    });
    assert_eq!(made.tokenizer_config().unwrap().unwrap()["chat_template"], "NEW");
}

#[test]
fn added_tokens_beyond_the_embedding_are_left_out() {
    let (_kept, made) = rewritten("gpt-2", |tokenizer, _| {
        let image = json!({ "id": 8, "content": "<image>", "special": true });
        tokenizer["added_tokens"].as_array_mut().unwrap().push(image);
    });
    let tokenizer = tokenizer_of(&made);
    assert_eq!(tokenizer["added_tokens"].as_array().unwrap().len(), 3);
}
