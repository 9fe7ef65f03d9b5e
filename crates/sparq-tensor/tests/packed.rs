//! Quantized checkpoints in others' formats: values by a slow oracle, and lies.
#![allow(clippy::unwrap_used)]

use ndarray::{Array1, Array2, ArrayD, IxDyn, array, s};
use proptest::prelude::*;
use serde_json::{Value, json};
use sparq_tensor::codec::compressed_tensors::{pack_weight, pack_zero_points};
use sparq_tensor::codec::gptq::{GptqVersion, pack_qweight, pack_qzeros};
use sparq_tensor::{Checkpoint, DType, Error, Packing, TensorData, TensorPart, write_safetensors_file};
use std::path::Path;
use std::sync::Arc;

/// Tensors of a file in the making.
enum Data {
    I32(ArrayD<i32>),
    I64(ArrayD<i64>),
    I8(ArrayD<i8>),
    F16(ArrayD<f32>),
    Bf16(ArrayD<f32>),
    F32(ArrayD<f32>),
}

impl Data {
    fn view(&self) -> TensorData<'_> {
        match self {
            Data::I32(array) => TensorData::I32(array.view()),
            Data::I64(array) => TensorData::I64(array.view()),
            Data::I8(array) => TensorData::I8(array.view()),
            Data::F16(array) => TensorData::AsF16(array.view()),
            Data::Bf16(array) => TensorData::AsBF16(array.view()),
            Data::F32(array) => TensorData::F32(array.view()),
        }
    }
}

struct Made {
    tensors: Vec<(String, Data)>,
    quantization: Value,
}

impl Made {
    fn set(&mut self, name: &str, data: Data) {
        self.tensors.retain(|(existing, _)| existing != name);
        self.tensors.push((name.to_owned(), data));
    }

    fn remove(&mut self, name: &str) {
        self.tensors.retain(|(existing, _)| existing != name);
    }

    fn write(&self, directory: &Path) {
        let tensors: Vec<_> = self.tensors.iter().map(|(name, data)| (name.as_str(), data.view())).collect();
        write_safetensors_file(directory.join("model.safetensors"), &tensors).unwrap();
        let config = json!({ "model_type": "llama", "quantization_config": self.quantization });
        std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    }

    fn open(&self) -> Result<Checkpoint, Error> {
        let directory = tempfile::tempdir().unwrap();
        self.write(directory.path());
        Checkpoint::open(directory.path()) // the mapping keeps the files alive
    }

    fn read(&self) -> Array2<f32> {
        let checkpoint = Arc::new(self.open().unwrap());
        let matrix = checkpoint.read_matrix("a.weight").unwrap();
        // Rows that are decoded on their own are the same, wherever one starts.
        let (rows, width) = matrix.dim();
        let part = TensorPart::whole("a.weight", [rows, width]);
        let stored = checkpoint.stored_rows(&part, rows).unwrap().unwrap();
        for first in [0, rows / 3, rows - 1] {
            let mut values = vec![0.0; (rows - first).min(19) * width];
            stored.decode(first, &mut values).unwrap();
            assert_eq!(values, matrix.slice(s![first.., ..]).iter().take(values.len()).copied().collect::<Vec<_>>());
        }
        matrix
    }

    /// The message of the refusal, on opening or reading.
    fn refusal(&self) -> String {
        match self.open().and_then(|checkpoint| checkpoint.read("a.weight")) {
            Ok(values) => panic!("accepted: {values}"),
            Err(error) => error.to_string(),
        }
    }
}

fn codes(rows: usize, width: usize, bits: u32) -> Array2<u8> {
    Array2::from_shape_fn((rows, width), |(r, c)| ((7 * c + 5 * r + c / 3) % (1 << bits)) as u8)
}

/// Scales that are exact in every float type.
fn scales(rows: usize, groups: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, groups), |(r, g)| (1 + (r + 3 * g) % 7) as f32 / 8.0)
}

fn zeros(rows: usize, groups: usize, bits: u32) -> Array2<u8> {
    Array2::from_shape_fn((rows, groups), |(r, g)| ((3 * r + g) % (1 << bits)) as u8)
}

fn dequantized(
    codes: &Array2<u8>,
    scales: &Array2<f32>,
    zeros: &Array2<u8>,
    group: impl Fn(usize) -> usize,
) -> Array2<f32> {
    Array2::from_shape_fn(codes.dim(), |(r, c)| {
        scales[[r, group(c)]] * (f32::from(codes[[r, c]]) - f32::from(zeros[[r, group(c)]]))
    })
}

fn scheme(bits: u32, group: Option<usize>, symmetric: bool) -> Value {
    let strategy = if group.is_some() { "group" } else { "channel" };
    json!({
        "targets": ["Linear"],
        "weights": {
            "num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy, "group_size": group,
            "dynamic": false,
        },
    })
}

/// compressed-tensors, 6 × 40 in groups of 8, asymmetric.
fn compressed_tensors(bits: u32) -> Made {
    let (codes, scales, zeros) = (codes(6, 40, bits), scales(6, 5), zeros(6, 5, bits));
    let tensors = vec![
        ("a.weight_packed".into(), Data::I32(pack_weight(codes.view(), bits).into_dyn())),
        ("a.weight_scale".into(), Data::Bf16(scales.into_dyn())),
        ("a.weight_zero_point".into(), Data::I32(pack_zero_points(zeros.view(), bits).into_dyn())),
        ("a.weight_shape".into(), Data::I64(array![6, 40].into_dyn())),
        ("b.weight".into(), Data::F32(ArrayD::zeros(IxDyn(&[2, 2])))),
    ];
    let quantization = json!({
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": { "group_0": scheme(bits, Some(8), false) }, "ignore": ["b"],
    });
    Made { tensors, quantization }
}

/// GPTQ, 32 × 64 in groups of 16.
fn gptq(bits: u32, version: GptqVersion, zeros: &Array2<u8>) -> Made {
    let (codes, scales) = (codes(32, 64, bits), scales(32, 4));
    let order: Array1<i32> = (0..64).map(|channel| channel / 16).collect();
    let tensors = vec![
        ("a.qweight".into(), Data::I32(pack_qweight(codes.view(), bits).into_dyn())),
        ("a.qzeros".into(), Data::I32(pack_qzeros(zeros.view(), bits, version).unwrap().into_dyn())),
        ("a.scales".into(), Data::F16(scales.t().to_owned().into_dyn())),
        ("a.g_idx".into(), Data::I32(order.into_dyn())),
        ("a.bias".into(), Data::F16(ArrayD::zeros(IxDyn(&[32])))),
    ];
    let format = if version == GptqVersion::V1 { "gptq" } else { "gptq_v2" };
    let quantization = json!({
        "quant_method": "gptq", "bits": bits, "group_size": 16, "sym": false, "desc_act": false,
        "checkpoint_format": format, "pack_dtype": "int32",
    });
    Made { tensors, quantization }
}

#[test]
fn compressed_tensors_weights_take_the_place_of_their_parts() {
    for bits in 1..=8 {
        let made = compressed_tensors(bits);
        let expected = dequantized(&codes(6, 40, bits), &scales(6, 5), &zeros(6, 5, bits), |column| column / 8);
        let checkpoint = made.open().unwrap();
        let names: Vec<&str> = checkpoint.tensors().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a.weight", "b.weight"]);
        let info = checkpoint.get("a.weight").unwrap();
        assert_eq!((info.shape.as_slice(), info.dtype), (&[6, 40][..], DType::BF16));
        assert_eq!(info.packing, Some(Packing::CompressedTensors { bits: bits as u8 }));
        // Small integers times eighths are exact in bfloat16 up to 256 eighths.
        let rounded = expected.mapv(|value| half::bf16::from_f32(value).to_f32());
        assert_eq!(checkpoint.read_matrix("a.weight").unwrap(), rounded, "{bits} bits");
        let bytes: Vec<u8> =
            expected.iter().flat_map(|&value| half::bf16::from_f32(value + 0.0).to_le_bytes()).collect();
        assert_eq!(checkpoint.read_bytes("a.weight").unwrap(), bytes);
        assert_eq!(checkpoint.config().unwrap(), &json!({ "model_type": "llama" }));
        let config = checkpoint.side_files();
        assert!(
            config.is_err() || config.unwrap().iter().all(|file| !file.bytes.windows(12).any(|w| w == b"quantization"))
        );
    }
}

#[test]
fn symmetric_channel_and_tensor_scales() {
    let mut made = compressed_tensors(4);
    made.remove("a.weight_zero_point");
    let fixed = |groups| Array2::from_elem((6, groups), 8u8);
    assert_eq!(made.read(), dequantized(&codes(6, 40, 4), &scales(6, 5), &fixed(5), |column| column / 8));
    made.quantization["config_groups"]["group_0"] = scheme(4, None, true);
    made.set("a.weight_scale", Data::F16(scales(6, 1).into_dyn()));
    assert_eq!(made.read(), dequantized(&codes(6, 40, 4), &scales(6, 1), &fixed(1), |_| 0));
    made.set("a.weight_scale", Data::F32(array![0.5].into_dyn()));
    assert_eq!(made.read(), dequantized(&codes(6, 40, 4), &Array2::from_elem((6, 1), 0.5), &fixed(1), |_| 0));
    made.quantization["config_groups"] = json!({ "W4A16": ["Linear"] });
    assert!(made.open().is_ok(), "groups of 128 are one group of 40");
    made.quantization["config_groups"] = json!({ "NVFP4": ["Linear"] });
    assert!(made.refusal().contains("NVFP4"));
    made.quantization["config_groups"] = json!({ "W8A16": ["Linear"], "group_0": scheme(4, None, true) });
    assert!(made.open().is_ok(), "the words tell which entry is meant");
}

#[test]
fn products_are_rounded_to_the_type_of_the_scales() {
    let mut made = compressed_tensors(8);
    made.remove("a.weight_zero_point");
    let third = Array2::from_elem((6, 5), 1.0f32 / 3.0);
    made.set("a.weight_scale", Data::F16(third.into_dyn()));
    let scale = half::f16::from_f32(1.0 / 3.0).to_f32();
    let expected = codes(6, 40, 8).mapv(|code| half::f16::from_f32(scale * (f32::from(code) - 128.0)).to_f32());
    assert_eq!(made.read(), expected);
}

#[test]
fn groups_may_be_named_and_minus_one_names_none() {
    let mut made = compressed_tensors(4);
    let named = |column: usize| (column * 3) % 5;
    let order: Array1<i32> = (0..40).map(|column| named(column) as i32).collect();
    made.set("a.weight_g_idx", Data::I32(order.clone().into_dyn()));
    let oracle = |group: fn(usize) -> usize| dequantized(&codes(6, 40, 4), &scales(6, 5), &zeros(6, 5, 4), group);
    assert_eq!(made.read(), oracle(|column| (column * 3) % 5));
    let mut unset = order.clone();
    unset[7] = -1;
    made.set("a.weight_g_idx", Data::I32(unset.into_dyn()));
    assert_eq!(made.read(), oracle(|column| column / 8));
    for wrong in [5, -2] {
        let mut order = order.clone();
        order[3] = wrong;
        made.set("a.weight_g_idx", Data::I32(order.into_dyn()));
        let message = made.refusal();
        assert!(message.contains("a.weight_g_idx") && message.contains(&wrong.to_string()), "{message}");
    }
}

#[test]
fn old_words_of_whole_codes_are_understood() {
    // 320 codes of 3 bits are 30 words without gaps, 32 words of ten.
    let mut made = compressed_tensors(3);
    let codes = codes(6, 320, 3);
    let words = Array2::from_shape_fn((6, 32), |(row, word)| {
        (0..10).fold(0i32, |packed, at| packed | i32::from(codes[[row, 10 * word + at]]) << (3 * at))
    });
    made.remove("a.weight_zero_point");
    made.set("a.weight_packed", Data::I32(words.into_dyn()));
    made.set("a.weight_shape", Data::I64(array![6, 320].into_dyn()));
    made.set("a.weight_scale", Data::F32(scales(6, 40).into_dyn()));
    assert_eq!(made.read(), dequantized(&codes, &scales(6, 40), &Array2::from_elem((6, 40), 4), |column| column / 8));
}

#[test]
fn one_byte_each() {
    let codes = Array2::from_shape_fn((3, 4), |(r, c)| (40 * r as i16 + 9 * c as i16 - 60) as i8);
    let zero = array![[5i8], [-7], [0]];
    let mut made = Made {
        tensors: vec![
            ("a.weight".into(), Data::I8(codes.clone().into_dyn())),
            ("a.weight_scale".into(), Data::F32(scales(3, 1).into_dyn())),
        ],
        quantization: json!({ "quant_method": "compressed-tensors", "format": "int-quantized" }),
    };
    let oracle = |zero: &Array2<i8>| {
        Array2::from_shape_fn((3, 4), |(r, c)| {
            scales(3, 1)[[r, 0]] * (f32::from(codes[[r, c]]) - f32::from(zero[[r, 0]]))
        })
    };
    assert_eq!(made.read(), oracle(&Array2::zeros((3, 1))));
    made.set("a.weight_zero_point", Data::I8(zero.clone().into_dyn()));
    assert_eq!(made.read(), oracle(&zero));
}

#[test]
fn gptq_weights_of_both_versions() {
    for bits in [2, 3, 4, 8] {
        let zeros = zeros(32, 4, bits).mapv(|zero| zero.max(1));
        let expected = dequantized(&codes(32, 64, bits), &scales(32, 4), &zeros, |column| column / 16);
        for version in [GptqVersion::V1, GptqVersion::V2] {
            let mut made = gptq(bits, version, &zeros);
            let checkpoint = made.open().unwrap();
            let names: Vec<&str> = checkpoint.tensors().map(|tensor| tensor.name.as_str()).collect();
            assert_eq!(names, ["a.bias", "a.weight"]);
            assert_eq!(checkpoint.get("a.weight").unwrap().packing, Some(Packing::Gptq { bits: bits as u8 }));
            assert_eq!(checkpoint.read_matrix("a.weight").unwrap(), expected, "{bits} bits, {version:?}");
            made.remove("a.g_idx");
            assert_eq!(made.read(), expected);
            made.quantization["group_size"] = json!(32);
            assert!(made.refusal().contains("group_size"));
        }
    }
}

#[test]
fn gptq_groups_follow_g_idx_and_exceptions_their_words() {
    let zeros = zeros(32, 4, 4).mapv(|zero| zero.max(1));
    let mut made = gptq(4, GptqVersion::V2, &zeros);
    let order: Array1<i32> = (0..64).map(|column| (column * 7) % 4).collect();
    made.set("a.g_idx", Data::I32(order.into_dyn()));
    assert_eq!(made.read(), dequantized(&codes(32, 64, 4), &scales(32, 4), &zeros, |column| (column * 7) % 4));
    made.quantization["bits"] = json!(8);
    assert!(made.refusal().contains("words"));
    made.quantization["dynamic"] = json!({ "+:a": { "bits": 4 } });
    assert!(made.open().is_ok());
    made.set("a.g_idx", Data::I32(Array1::from_elem(64, 4).into_dyn()));
    assert!(made.refusal().contains("a.g_idx"));
}

#[test]
fn settings_beside_the_configuration_count_too() {
    let zeros = Array2::from_elem((32, 4), 8);
    let made = gptq(4, GptqVersion::V1, &zeros);
    let directory = tempfile::tempdir().unwrap();
    made.write(directory.path());
    std::fs::write(directory.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    assert!(Checkpoint::open(directory.path()).unwrap().contains("a.qweight"), "nothing says what it is");
    std::fs::write(directory.path().join("quantize_config.json"), made.quantization.to_string()).unwrap();
    assert_eq!(Checkpoint::open(directory.path()).unwrap().read("a.weight").unwrap(), made.read().into_dyn());
}

#[test]
fn zero_points_that_are_one_off_are_read_as_what_they_are() {
    let zeros = Array2::from_elem((32, 4), 8);
    let mut made = gptq(4, GptqVersion::V2, &zeros);
    made.quantization["sym"] = json!(true);
    let as_declared = made.open().unwrap().read("a.weight").unwrap();
    made.quantization["checkpoint_format"] = json!("gptq");
    assert_eq!(made.open().unwrap().read("a.weight").unwrap(), as_declared, "every zero point would be 9");
    made.quantization["sym"] = json!(false);
    assert_ne!(made.open().unwrap().read("a.weight").unwrap(), as_declared, "of an asymmetric grid nobody knows");
}

#[test]
fn files_of_auto_round_in_the_packing_of_gptq_are_read() {
    let mut made = gptq(4, GptqVersion::V1, &Array2::from_elem((32, 4), 8));
    made.quantization["quant_method"] = json!("auto-round");
    assert!(made.refusal().contains("auto-round"));
    made.quantization["packing_format"] = json!("auto_round:auto_gptq");
    assert_eq!(made.open().unwrap().read("a.weight").unwrap(), made.read().into_dyn());
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let refused = |change: fn(&mut Value), word: &str| {
        let mut made = compressed_tensors(4);
        change(&mut made.quantization);
        let message = made.refusal();
        assert!(message.contains(word), "{message} should name {word}");
    };
    refused(|config| config["quant_method"] = json!("awq"), "awq");
    refused(|config| config["format"] = json!("nvfp4-pack-quantized"), "nvfp4");
    refused(|config| config["transform_config"] = json!({ "config_groups": {} }), "transform_config");
    refused(|config| config["sparsity_config"] = json!({ "format": "sparse-bitmask" }), "sparse");
    refused(|config| config["config_groups"]["group_0"]["weights"]["type"] = json!("float"), "float");
    refused(|config| config["config_groups"]["group_0"]["weights"]["num_bits"] = json!(5), "config_groups");
    refused(|config| config["config_groups"]["group_0"]["weights"]["num_bits"] = json!(-4), "num_bits");
    refused(|config| config["config_groups"]["group_0"]["weights"]["group_size"] = json!(0), "group_size");
    refused(|config| config["config_groups"] = json!([]), "config_groups");
    let refused = |change: fn(&mut Value), word: &str| {
        let mut made = gptq(4, GptqVersion::V2, &Array2::from_elem((32, 4), 8));
        change(&mut made.quantization);
        let message = made.refusal();
        assert!(message.contains(word), "{message} should name {word}");
    };
    refused(|config| config["bits"] = json!(5), "bits");
    refused(|config| config["bits"] = json!(null), "bits");
    refused(|config| config["group_size"] = json!("x"), "group_size");
    refused(|config| config["checkpoint_format"] = json!("marlin"), "marlin");
    refused(|config| config["pack_dtype"] = json!("int16"), "pack_dtype");
}

#[test]
fn parts_that_do_not_fit_are_refused_by_name() {
    let refused = |change: fn(&mut Made), word: &str| {
        let mut made = compressed_tensors(4);
        change(&mut made);
        let message = made.refusal();
        assert!(message.contains(word), "{message} should name {word}");
    };
    refused(|made| made.remove("a.weight_scale"), "a.weight_scale");
    refused(|made| made.remove("a.weight_shape"), "a.weight_shape");
    refused(|made| made.set("a.weight_shape", Data::I64(array![6, -40].into_dyn())), "a.weight_shape");
    refused(|made| made.set("a.weight_shape", Data::I64(array![i64::MAX, i64::MAX].into_dyn())), "a.weight_shape");
    refused(|made| made.set("a.weight_shape", Data::I64(array![6].into_dyn())), "a.weight_shape");
    refused(|made| made.set("a.weight_shape", Data::I64(array![6, 80].into_dyn())), "config_groups");
    refused(|made| made.set("a.weight_shape", Data::I64(array![7, 40].into_dyn())), "rows");
    refused(|made| made.set("a.weight_scale", Data::F32(scales(6, 7).into_dyn())), "a.weight_scale");
    refused(|made| made.set("a.weight_scale", Data::F32(scales(3, 5).into_dyn())), "a.weight_scale");
    refused(|made| made.set("a.weight_scale", Data::I32(ArrayD::ones(IxDyn(&[6, 5])))), "I32");
    refused(|made| made.set("a.weight_packed", Data::F32(ArrayD::ones(IxDyn(&[6, 5])))), "F32");
    refused(|made| made.set("a.weight_packed", Data::I32(ArrayD::ones(IxDyn(&[30])))), "a.weight_packed");
    refused(|made| made.set("a.weight_zero_point", Data::I32(ArrayD::ones(IxDyn(&[2, 5])))), "a.weight_zero_point");
    refused(|made| made.set("a.weight_zero_point", Data::I8(ArrayD::from_elem(IxDyn(&[6, 5]), 8))), "zero point is 8");
    refused(|made| made.set("a.weight_g_idx", Data::I32(ArrayD::zeros(IxDyn(&[39])))), "weight_g_idx");
    refused(|made| made.set("a.weight", Data::F32(ArrayD::zeros(IxDyn(&[6, 40])))), "occurs twice");
    let refused = |change: fn(&mut Made), word: &str| {
        let mut made = gptq(4, GptqVersion::V2, &Array2::from_elem((32, 4), 8));
        change(&mut made);
        let message = made.refusal();
        assert!(message.contains(word), "{message} should name {word}");
    };
    refused(|made| made.remove("a.qzeros"), "a.qzeros");
    refused(|made| made.set("a.qzeros", Data::I32(ArrayD::ones(IxDyn(&[4, 3])))), "a.qzeros");
    refused(|made| made.set("a.scales", Data::F16(ArrayD::ones(IxDyn(&[4, 31])))), "a.scales");
    refused(|made| made.set("a.scales", Data::F16(ArrayD::ones(IxDyn(&[0, 32])))), "a.scales");
    refused(|made| made.set("a.g_idx", Data::I32(ArrayD::zeros(IxDyn(&[0])))), "a.qweight");
    refused(|made| made.set("a.g_idx", Data::I32(ArrayD::zeros(IxDyn(&[4, 16])))), "a.g_idx");
    refused(|made| made.set("a.qweight", Data::I32(ArrayD::zeros(IxDyn(&[8, 0])))), "a.qweight");
    refused(|made| made.set("a.g_idx", Data::I32(ArrayD::from_elem(IxDyn(&[64]), -1))), "a.g_idx");
}

#[test]
fn scales_that_are_no_numbers_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    compressed_tensors(4).write(directory.path());
    let path = directory.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let one = half::bf16::from_f32(scales(6, 5)[[0, 0]]).to_le_bytes();
    let at = bytes.windows(2).rposition(|window| window == one).unwrap();
    bytes[at..at + 2].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = Checkpoint::open(directory.path()).unwrap().read("a.weight").unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
}

proptest! {
    /// Any bytes in the data, any small shape in the header: an answer or an error, never a panic.
    #[test]
    fn mutated_files_do_not_panic(at in 0usize..2000, value in 0u8.., bits in 2u32..=8, kind in 0usize..2) {
        let made = if kind == 0 {
            compressed_tensors(bits)
        } else {
            let bits = if bits == 8 { 8 } else { 2 + bits % 3 };
            gptq(bits, GptqVersion::V2, &Array2::from_elem((32, 4), 1))
        };
        let directory = tempfile::tempdir().unwrap();
        made.write(directory.path());
        let path = directory.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        std::fs::write(&path, bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(directory.path()) {
            for tensor in checkpoint.tensors() {
                let _ = checkpoint.read(&tensor.name).map(|values| assert_eq!(values.shape(), tensor.shape));
                let _ = checkpoint.read_bytes(&tensor.name);
            }
        }
    }
}
