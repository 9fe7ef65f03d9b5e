//! Files as people have them: under other names, in parts, incomplete, with tensors that no model reads.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Gguf, Kv, floats, ramp};
use ndarray::{Array2, ArrayD, array};
use serde_json::{Value, json};
use sparq_model::open_checkpoint;
use sparq_tensor::{Checkpoint, DType, Error, SourceFormat, TensorData, write_safetensors_file};
use std::fs;
use std::path::Path;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4cac19\nsize 269060552\n";

fn write(path: impl AsRef<Path>, names: &[&str]) {
    let values: Vec<ArrayD<f32>> = (1..=names.len()).map(|i| Array2::from_elem((2, 2), i as f32).into_dyn()).collect();
    let tensors: Vec<_> = names.iter().zip(&values).map(|(name, v)| (*name, TensorData::F32(v.view()))).collect();
    write_safetensors_file(path, &tensors).unwrap();
}

#[test]
fn a_file_is_what_its_first_bytes_say() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["sha256-6e9f90f0", "model.bin", "model.safetensors"] {
        fs::write(at(name), Gguf::tiny("llama").to_bytes()).unwrap();
        assert_eq!(open_checkpoint(at(name)).unwrap().format(), SourceFormat::Gguf, "{name}");
    }
    assert_eq!(open_checkpoint(directory.path()).unwrap().format(), SourceFormat::Gguf);
    write(at("weights.gguf"), &["w"]);
    assert!(Checkpoint::open(at("weights.gguf")).unwrap().contains("w"));
    fs::remove_file(at("model.safetensors")).unwrap();
    fs::remove_file(at("weights.gguf")).unwrap();
    write(at("adapter.safetensors"), &["w"]);
    fs::remove_file(at("sha256-6e9f90f0")).unwrap();
    fs::remove_file(at("model.bin")).unwrap();
    assert!(Checkpoint::open(directory.path()).unwrap().contains("w"), "the only one, whatever its name");
    fs::rename(at("adapter.safetensors"), at("sha256-0")).unwrap();
    assert!(Checkpoint::open(directory.path()).unwrap().contains("w"), "without an ending too");
    write(at("second.safetensors"), &["w"]);
    let message = Checkpoint::open(directory.path()).unwrap_err().to_string();
    assert!(message.contains("2 safetensors files"), "{message}");
}

#[test]
fn what_stands_in_for_a_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (text, word) in [
        (POINTER, "git-lfs pointer"),
        ("<!DOCTYPE html>\n<html></html>", "web page"),
        ("{\"error\":\"Repository not found\"}", "error message"),
    ] {
        for name in ["model.safetensors", "pointer.gguf", "sha256-0"] {
            fs::write(path.join(name), text).unwrap();
            let error = Checkpoint::open(path.join(name)).unwrap_err();
            assert!(matches!(&error, Error::OtherContent { found, .. } if found.contains(word)), "{name}: {error}");
        }
        assert!(matches!(Checkpoint::open(path), Err(Error::OtherContent { .. })));
        assert!(matches!(sparq_tensor::read_imatrix(path.join("sha256-0")), Err(Error::OtherContent { .. })));
    }
    write(path.join("model.safetensors"), &["w"]);
    fs::write(path.join("config.json"), POINTER).unwrap();
    let error = Checkpoint::open(path).unwrap_err();
    assert!(error.to_string().contains("config.json is a git-lfs pointer"), "{error}");
    fs::write(path.join("config.json"), "{}").unwrap();
    fs::write(path.join("tokenizer.model"), POINTER).unwrap();
    let side_files = Checkpoint::open(path).unwrap().side_files();
    assert!(matches!(side_files, Err(Error::OtherContent { .. })), "a pointer is not carried over either");
}

#[test]
fn a_tensor_that_only_the_index_knows_is_missed_by_who_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path().join("a.safetensors"), &["w"]);
    let index = json!({"weight_map": {"w": "a.safetensors", "mtp.fc.weight": "a.safetensors"}});
    fs::write(directory.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.read_matrix("w").unwrap(), array![[1.0, 1.0], [1.0, 1.0]]);
    assert!(matches!(checkpoint.read("mtp.fc.weight"), Err(Error::UnknownTensor { .. })));
}

#[test]
fn element_types_of_today_are_listed_and_copied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    for (name, bytes) in
        [("F8_E8M0", 4), ("F4", 2), ("F6_E2M3", 3), ("F6_E3M2", 3), ("C64", 32), ("F8_E4M3FNUZ", 4), ("F8_E5M2FNUZ", 4)]
    {
        let header = json!({"x": {"dtype": name, "shape": [4], "data_offsets": [0, bytes]}}).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend((0..bytes).map(|byte| byte as u8 + 1));
        fs::write(&path, file).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.get("x").unwrap().dtype.to_string(), name);
        assert_eq!(checkpoint.read_bytes("x").unwrap().len(), bytes);
        assert!(matches!(checkpoint.read("x"), Err(Error::NotDecodable { .. })), "{name}");
    }
}

#[test]
fn prefixes_are_taken_off_before_anything_is_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["_orig_mod.model.embed_tokens.weight", "_orig_mod.lm_head.weight"];
    write(directory.path().join("model.safetensors"), &names);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.get("lm_head.weight").unwrap().name, "lm_head.weight");
    assert_eq!(checkpoint.read("model.embed_tokens.weight").unwrap()[[0, 0]], 1.0);
    assert!(checkpoint.remarks()[0].contains("_orig_mod.model."), "{:?}", checkpoint.remarks());
}

#[test]
fn an_output_matrix_of_its_own_wins_over_the_flag() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["model.embed_tokens.weight", "lm_head.weight"];
    let open = |config: &Value| {
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        Checkpoint::open(directory.path()).unwrap()
    };
    let tied = |checkpoint: &Checkpoint| checkpoint.config().unwrap()["tie_word_embeddings"].as_bool();
    write(directory.path().join("model.safetensors"), &names);
    let checkpoint = open(&json!({"model_type": "llama", "tie_word_embeddings": true}));
    assert_eq!((tied(&checkpoint), checkpoint.remarks().len()), (Some(false), 1));
    let written: Value = serde_json::from_slice(&checkpoint.side_files().unwrap()[0].bytes).unwrap();
    assert_eq!(written["tie_word_embeddings"], false, "others read it the same way");
    assert_eq!(tied(&open(&json!({"model_type": "gemma3_text"}))), Some(false), "a family that ties by itself");
    assert_eq!(tied(&open(&json!({"model_type": "llama"}))), None);

    let same = array![[1.5f32, 2.0], [3.0, 4.0]].into_dyn();
    let tensors = [(names[0], TensorData::F32(same.view())), (names[1], TensorData::AsF16(same.view()))];
    write_safetensors_file(directory.path().join("model.safetensors"), &tensors).unwrap();
    let checkpoint = open(&json!({"model_type": "llama", "tie_word_embeddings": true}));
    assert_eq!((tied(&checkpoint), checkpoint.remarks().len()), (Some(true), 0), "equal in another type");
}

#[test]
fn code_goes_where_auto_map_goes() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path().join("model.safetensors"), &["w"]);
    fs::write(directory.path().join("modeling_x.py"), "from .layers_x import Layer\n").unwrap();
    fs::write(directory.path().join("layers_x.py"), "class Layer: pass\n").unwrap();
    let carried = |config: Value, tokenizer: Value| -> Vec<String> {
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        fs::write(directory.path().join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
        let files = Checkpoint::open(directory.path()).unwrap().side_files().unwrap();
        files.into_iter().map(|file| file.name).filter(|name| name.contains(".py")).collect()
    };
    let map = || json!({"auto_map": {"AutoModelForCausalLM": "modeling_x.Model"}});
    assert_eq!(carried(map(), json!({})), ["layers_x.py", "modeling_x.py"]);
    assert_eq!(carried(json!({}), map()), ["layers_x.py", "modeling_x.py"]);
    assert!(carried(json!({"auto_map": null}), json!({})).is_empty());
}

/// Writes a tiny model in two parts, and gives the paths.
fn split(directory: &Path, change: impl Fn(usize, &mut Gguf)) -> [std::path::PathBuf; 2] {
    [0, 1].map(|part| {
        let mut gguf = if part == 0 { Gguf::tiny_with_tokenizer("llama", "gpt-2") } else { Gguf::tiny("llama") };
        let total = gguf.tensors.len() as u32;
        gguf.tensors = if part == 0 { gguf.tensors[..4].to_vec() } else { gguf.tensors[4..].to_vec() };
        if part == 1 {
            gguf.entries.clear();
        }
        gguf.set("split.no", Kv::U32(part as u32));
        gguf.set("split.count", Kv::U32(2));
        gguf.set("split.tensors.count", Kv::U32(total));
        change(part, &mut gguf);
        let path = directory.join(format!("m-0000{}-of-00002.gguf", part + 1));
        fs::write(&path, gguf.to_bytes()).unwrap();
        path
    })
}

#[test]
fn the_parts_of_a_gguf_file_are_one_model() {
    let directory = tempfile::tempdir().unwrap();
    let apart = tempfile::tempdir().unwrap();
    let whole = open_checkpoint(Gguf::tiny_with_tokenizer("llama", "gpt-2").write_to(apart.path())).unwrap();
    let parts = split(directory.path(), |_, _| ());
    for path in [directory.path(), &parts[0], &parts[1]] {
        let checkpoint = open_checkpoint(path).unwrap();
        assert_eq!(checkpoint.tensors().len(), whole.tensors().len());
        for tensor in whole.tensors() {
            assert_eq!(checkpoint.read(&tensor.name).unwrap(), whole.read(&tensor.name).unwrap(), "{}", tensor.name);
        }
        assert_eq!(checkpoint.tokenizer_json().unwrap(), whole.tokenizer_json().unwrap());
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = |change: &dyn Fn(usize, &mut Gguf)| open_checkpoint(&split(directory.path(), change)[0]).unwrap_err();
    for (key, value) in [("split.no", 5), ("split.count", 3), ("split.tensors.count", 99)] {
        let error = open(&|part, gguf| {
            if part == 1 || key != "split.no" {
                gguf.set(key, Kv::U32(value));
            }
        });
        assert!(matches!(error, Error::Malformed { .. } | Error::Unsupported { .. }), "{key}: {error}");
    }
    let error = open(&|part, gguf| {
        if part == 1 {
            gguf.add_f32("token_embd.weight", &[32, 8]);
        }
    });
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let parts = split(directory.path(), |_, _| ());
    fs::remove_file(&parts[1]).unwrap();
    assert!(matches!(open_checkpoint(&parts[0]), Err(Error::MissingFile { file, .. }) if file == parts[1]));
    let other = directory.path().join("part1.gguf");
    fs::rename(&parts[0], &other).unwrap();
    let error = open_checkpoint(&other).unwrap_err().to_string();
    assert!(error.contains("NAME-00001-of-00002.gguf"), "{error}");
}

#[test]
fn small_quantized_types_of_llama_cpp_are_read_or_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut gguf = Gguf::tiny("llama");
    let tensor = gguf.tensor("blk.0.ffn_up.weight");
    (tensor.ggml_type, tensor.bytes) = (20, [&[0x00, 0x38][..], &[0x88; 16]].concat().repeat(64));
    let path = gguf.write_to(directory.path());
    let checkpoint = open_checkpoint(&path).unwrap();
    assert_eq!(checkpoint.get("model.layers.0.mlp.up_proj.weight").unwrap().dtype, DType::IQ4_NL);
    let values = checkpoint.read("model.layers.0.mlp.up_proj.weight").unwrap();
    assert!(values.iter().all(|&value| value == 0.5), "0.5 times the value of code 8, which is 1");
    for (number, name) in [(16, "IQ2_XXS"), (34, "TQ1_0"), (39, "MXFP4")] {
        gguf.tensor("blk.0.ffn_up.weight").ggml_type = number;
        let error = open_checkpoint(gguf.write_to(directory.path())).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { value, .. } if value == name), "{error}");
        assert!(!error.to_string().contains("malformed"), "{error}");
    }
}

#[test]
fn what_no_model_reads_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut gguf = Gguf::tiny("llama");
    gguf.add("blk.0.attn_output.bias", &[32], 0, floats(ramp(32, 0.0)));
    let source = open_checkpoint(gguf.write_to(directory.path())).unwrap();
    let unused: Vec<&String> = source.unused().iter().collect();
    assert_eq!(unused, ["model.layers.0.self_attn.o_proj.bias"]);
}

#[test]
fn infinity_is_found_without_a_copy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let values = Array2::from_shape_fn((3, 5), |(r, c)| if (r, c) == (2, 1) { 1e30 } else { 1.0 }).into_dyn();
    write_safetensors_file(&path, &[("w", TensorData::F32(values.view()))]).unwrap();
    Checkpoint::open(&path).unwrap().check_finite("w").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 4 * 4;
    bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = Checkpoint::open(&path).unwrap().check_finite("w").unwrap_err();
    assert!(matches!(&error, Error::NonFinite { file, index, .. } if *file == path && *index == [2, 1]), "{error}");
}

const SENTENCE_PIECE: &[u8] = include_bytes!("fixtures/tokenizer.model");

/// The tokenizer made of `tokenizer.model`.
fn of_sentence_piece(model: &[u8], settings: &Value) -> Result<Option<Value>, Error> {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path().join("model.safetensors"), &["w"]);
    fs::write(directory.path().join("tokenizer.model"), model).unwrap();
    fs::write(directory.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    let json = Checkpoint::open(directory.path()).unwrap().tokenizer_json()?;
    Ok(json.map(|json| serde_json::from_slice(&json).unwrap()))
}

#[test]
fn a_sentencepiece_model_gives_the_ids_that_sentencepiece_gives() {
    let json = of_sentence_piece(SENTENCE_PIECE, &json!({})).unwrap().unwrap();
    let tokenizer: tokenizers::Tokenizer = json.to_string().parse().unwrap();
    let expected: Vec<(String, Vec<u32>)> =
        serde_json::from_slice(include_bytes!("fixtures/sentencepiece.json")).unwrap();
    assert!(expected.len() > 100);
    for (text, ids) in &expected {
        assert_eq!(tokenizer.encode(text.as_str(), true).unwrap().get_ids(), ids, "{text:?}");
    }
    // The settings say what goes around a text.
    let json = of_sentence_piece(SENTENCE_PIECE, &json!({ "add_bos_token": false, "add_eos_token": true }));
    let tokenizer: tokenizers::Tokenizer = json.unwrap().unwrap().to_string().parse().unwrap();
    let (text, ids) = &expected[0];
    let encoded = tokenizer.encode(text.as_str(), true).unwrap();
    assert_eq!(encoded.get_ids(), [&ids[1..], &[2]].concat());
}

#[test]
fn other_sentencepiece_models_are_refused() {
    let refused = |model: &[u8]| of_sentence_piece(model, &json!({})).unwrap_err().to_string();
    let cut = refused(&SENTENCE_PIECE[..SENTENCE_PIECE.len() / 2]);
    assert!(cut.contains("SentencePiece"), "{cut}");
    // Fields: the trainer's model type, bytes to fall back to; the normalizer's map, and whether blanks are taken out.
    for (trainer, normalizer, word) in [
        (&[0x18, 1, 0x98, 2, 1][..], &[][..], "byte-pair"),
        (&[0x18, 2], &[], "byte-pair"),
        (&[0x18, 2, 0x98, 2, 1], &[0x12, 1, 7], "rewrites"),
        (&[0x18, 2, 0x98, 2, 1], &[0x20, 1], "rewrites"),
    ] {
        let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
        let message = refused(&[field(0x12, trainer), field(0x1a, normalizer)].concat());
        assert!(message.contains(word), "{message}");
    }
    assert!(refused(b"").contains("byte-pair"));
}
