//! Compressing models as people have them: with tensors that no model reads, values that are no numbers, layers narrower
//! than a group.

use sparq::export::{CompressedTensors, Dense, Error as ExportError, ExportFormat, ExportReport, Gguf, GgufTypes};
use sparq::pipeline::Error;
use sparq::tensor::{Checkpoint, DType};
use sparq::{Compress, Model, Recipe};
use std::path::{Path, PathBuf};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model")
}

/// A tensor as a file has it.
struct Raw {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Raw {
    fn new(name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self { name: name.into(), dtype: dtype.into(), shape: shape.to_vec(), bytes }
    }
}

/// The demo model with other tensors.
fn changed(change: impl FnOnce(&mut Vec<Raw>)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let source = Checkpoint::open(demo()).expect("the demo model");
    let raw = |info: &sparq::tensor::TensorInfo| {
        let bytes = source.read_bytes(&info.name).expect("bytes").into_owned();
        Raw::new(&info.name, &info.dtype.to_string(), &info.shape, bytes)
    };
    let mut tensors: Vec<Raw> = source.tensors().map(raw).collect();
    change(&mut tensors);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in tensors {
        let (begin, end) = (data.len(), data.len() + tensor.bytes.len());
        data.extend(tensor.bytes);
        let entry = serde_json::json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]});
        header.insert(tensor.name, entry);
    }
    let header = serde_json::Value::from(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(directory.path().join("model.safetensors"), file).expect("written");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(demo().join(name), directory.path().join(name)).expect("copied");
    }
    directory
}

/// Compresses without data, in the directory of the source.
fn compress(source: &Path, recipe: &str, format: &dyn ExportFormat) -> Result<(ExportReport, Checkpoint), Error> {
    let model = Model::open(source).expect("a model");
    let recipe: Recipe = recipe.parse().expect("a recipe");
    let out = source.join("out");
    let _ = std::fs::remove_file(&out);
    let _ = std::fs::remove_dir_all(&out);
    let done = Compress::new(&model).recipe(recipe).keep_solution(false).to(&out, format)?;
    Ok((done.export, sparq::model::open_checkpoint(&out).expect("what was written")))
}

const RTN: &str = "s=0,q=4,pruner=magnitude,quantizer=rtn,group=32,scale=f16";

#[test]
fn tensors_that_no_model_reads_are_carried_along_or_left_out() {
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let source = changed(|tensors| {
        let inv_freq = "model.layers.0.self_attn.rotary_emb.inv_freq";
        tensors.push(Raw::new(inv_freq, "F32", &[2], floats(&[1.0, 0.5])));
        tensors.push(Raw::new("model.layers.0.mlp.up_proj.bias", "F32", &[192], floats(&[1.0; 192])));
        tensors.push(Raw::new("model.mask", "F32", &[2], floats(&[0.0, f32::NEG_INFINITY])));
        tensors.push(Raw::new("mtp.weight", "F4", &[2, 3], vec![1, 2, 3]));
    });
    let original = Checkpoint::open(source.path()).expect("a checkpoint");
    let names =
        ["model.layers.0.mlp.up_proj.bias", "model.layers.0.self_attn.rotary_emb.inv_freq", "model.mask", "mtp.weight"];
    for format in [&Dense as &dyn ExportFormat, &CompressedTensors::default()] {
        let (report, written) = compress(source.path(), RTN, format).expect("compressed");
        assert_eq!(report.unused, names);
        for name in names {
            assert_eq!(written.read_bytes(name).expect("there"), original.read_bytes(name).expect("there"), "{name}");
        }
    }
    for types in [GgufTypes::Exact, GgufTypes::All(DType::F16)] {
        let (report, written) = compress(source.path(), RTN, &Gguf::new(types)).expect("compressed");
        assert_eq!(report.unused, names);
        assert!(names.iter().all(|name| !written.contains(name)));
        assert_eq!(written.tensors().len() + names.len(), original.tensors().len());
    }
}

#[test]
fn infinity_anywhere_is_found_before_the_first_block() {
    let last = "model.layers.5.mlp.down_proj.weight";
    for (name, at) in [("model.embed_tokens.weight", 2 * 64 * 1000), ("model.norm.weight", 6), (last, 0)] {
        let source = changed(|tensors| {
            let tensor = tensors.iter_mut().find(|tensor| tensor.name == name).expect("there");
            tensor.bytes[at..at + 2].copy_from_slice(&[0x80, 0x7f]); // infinity in bf16
        });
        if name == "model.norm.weight" {
            assert!(Model::open(source.path()).is_err(), "read when the model is opened");
            continue;
        }
        let error = compress(source.path(), RTN, &Dense).expect_err("no checkpoint holds infinity");
        let Error::Export(ExportError::Tensor(sparq::tensor::Error::NonFinite { file, tensor, .. })) = &error else {
            panic!("{error:?}");
        };
        assert_eq!((tensor.as_str(), file.as_path()), (name, source.path().join("model.safetensors").as_path()));
        assert!(!source.path().join("out.partial").exists(), "nothing was begun");
    }
}

#[test]
fn a_group_wider_than_a_layer_is_a_channel_to_others() {
    let source = changed(|_| ());
    // Layers of 64 and of 192 channels.
    let recipe = RTN.replace("group=32", "group=96");
    let error = compress(source.path(), &recipe, &Dense).map(|_| ());
    assert!(error.is_ok(), "{error:?}");
    let (_, written) = compress(source.path(), &recipe, &CompressedTensors::default()).expect("compressed");
    let config = std::fs::read(written.path().join("config.json")).expect("config.json");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    let groups = config["quantization_config"]["config_groups"].as_object().expect("groups");
    for group in groups.values() {
        let is_wide = group["targets"][0].as_str().is_some_and(|name| name.ends_with("down_proj"));
        let expected = if is_wide { ("group", Some(96)) } else { ("channel", None) };
        let weights = &group["weights"];
        assert_eq!((weights["strategy"].as_str(), weights["group_size"].as_u64()), (Some(expected.0), expected.1));
    }
    assert_eq!(groups.len(), 2);
}

#[test]
fn an_output_matrix_of_its_own_is_used_everywhere() {
    let source = changed(|tensors| {
        let embedding = tensors.iter().find(|tensor| tensor.name == "model.embed_tokens.weight").expect("there");
        let mut bytes = embedding.bytes.clone();
        bytes.reverse();
        // Finite, and other numbers.
        bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|half| half[1] &= 0x3f);
        tensors.push(Raw::new("lm_head.weight", "BF16", &[1024, 64], bytes));
    });
    let logits = |model: &Model| {
        let hidden = model.hidden(&[&[5, 9, 300]]).expect("hidden states");
        model.logits(hidden.view()).expect("logits")
    };
    let model = Model::open(source.path()).expect("a model");
    assert!(!model.config().tie_word_embeddings);
    assert_ne!(logits(&model), logits(&Model::open(demo()).expect("the demo model")));
    for format in [&Dense as &dyn ExportFormat, &Gguf::new(GgufTypes::All(DType::F32))] {
        let (report, written) = compress(source.path(), "s=0.01,q=16,pruner=magnitude", format).expect("compressed");
        assert!(report.remarks[0].contains("lm_head.weight"), "{:?}", report.remarks);
        let config = written.config().expect("a config");
        assert_eq!(config["tie_word_embeddings"], false, "{}", format.name());
    }
}
