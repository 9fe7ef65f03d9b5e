//! Weights from their stored form to f32, 4096 x 4096 (Llama-3.1-8B): codes on a grid, packed words, checkpoints.

#![allow(missing_docs, reason = "criterion's macros make public items")]

mod common;

use common::noise;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array1, Array2, array};
use serde_json::{Value, json};
use sparq::Quantized;
use sparq::model::open_checkpoint;
use sparq::prelude::*;
use sparq::tensor::codec::compressed_tensors::{WordLayout, pack_weight, unpack_weight};
use sparq::tensor::codec::ggml::quantize_rows;
use sparq::tensor::codec::gptq::{GptqVersion, pack_qweight, pack_qzeros, unpack_qweight};
use sparq::tensor::{Checkpoint, DType, GgufWriter, TensorData, write_safetensors_file};
use std::hint::black_box;
use std::path::Path;

const OUT: usize = 4096;
const WIDTH: usize = 4096;
const WEIGHTS: u64 = (OUT * WIDTH) as u64;
const GROUP: usize = 128;
const EMBEDDING: &str = "model.embed_tokens.weight";
const LAYER: &str = "model.layers.0.mlp.down_proj";

fn grids(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("grids");
    group.sample_size(10).throughput(Throughput::Elements(WEIGHTS));
    for bits in [Bits::B4, Bits::B8] {
        let layer = quantized(bits);
        group.bench_function(BenchmarkId::new("dequantize", name(bits)), |bencher| {
            bencher.iter(|| black_box(&layer).dequantize());
        });
    }
    group.finish();
}

fn words(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("words");
    group.sample_size(10).throughput(Throughput::Elements(WEIGHTS));
    for bits in [Bits::B3, Bits::B4, Bits::B8] {
        let (codes, count) = (quantized(bits).codes, u32::from(bits.get()));
        let (rows, columns) = (pack_weight(codes.view(), count), pack_qweight(codes.view(), count));
        group.bench_function(BenchmarkId::new("unpack compressed-tensors", name(bits)), |bencher| {
            bencher.iter(|| unpack_weight(black_box(rows.view()), count, WIDTH, WordLayout::Dense).expect("packed"));
        });
        group.bench_function(BenchmarkId::new("unpack gptq", name(bits)), |bencher| {
            bencher.iter(|| unpack_qweight(black_box(columns.view()), count, WIDTH).expect("packed"));
        });
    }
    group.finish();
}

/// Reads through the checkpoint: unpacking or decoding, scales, and the check that every value is finite. The files are
/// in the page cache.
fn checkpoints(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checkpoints");
    group.sample_size(10).throughput(Throughput::Elements(WEIGHTS));
    let layer = quantized(Bits::B4);
    let packed = [("read compressed-tensors", compressed_tensors(&layer)), ("read gptq", gptq(&layer))];
    let packed = packed.map(|(format, checkpoint)| (BenchmarkId::new(format, name(Bits::B4)), checkpoint));
    let types = [DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q6_K];
    let ggufs = types.map(|dtype| (BenchmarkId::new("read gguf", dtype), gguf(dtype)));
    let weight = format!("{LAYER}.weight");
    for (id, checkpoint) in packed.into_iter().chain(ggufs) {
        group.bench_function(id, |bencher| {
            bencher.iter(|| checkpoint.read_matrix(black_box(&weight)).expect("readable"));
        });
    }
    group.finish();
}

fn name(bits: Bits) -> String {
    format!("int{bits} g{GROUP}")
}

/// Noise, rounded.
fn quantized(bits: Bits) -> Quantized {
    let weight = noise(OUT, WIDTH, 1);
    let problem = LayerProblem::uncalibrated("bench", weight.view()).expect("finite");
    let scheme = QuantScheme::new(bits).group(GROUP).expect("not 0");
    Rtn::new(scheme).compress(&problem).expect("needs nothing").quantized().expect("rounded").clone()
}

fn compressed_tensors(layer: &Quantized) -> Checkpoint {
    let words = pack_weight(layer.codes.view(), 4).into_dyn();
    let scales = layer.scales();
    let (scales, shape) = (scales.view().into_dyn(), array![OUT as i64, WIDTH as i64].into_dyn());
    let tensors = [
        ("weight_packed", TensorData::I32(words.view())),
        ("weight_scale", TensorData::AsF16(scales)),
        ("weight_shape", TensorData::I64(shape.view())),
    ];
    let weights = json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": GROUP});
    let config = json!({
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    });
    packed(&tensors, &config)
}

fn gptq(layer: &Quantized) -> Checkpoint {
    let words = pack_qweight(layer.codes.view(), 4).into_dyn();
    let scales = layer.scales();
    let zeros = pack_qzeros(layer.zeros().view(), 4, GptqVersion::V1).expect("no zero point is 0").into_dyn();
    let order = Array1::from_iter((0..WIDTH).map(|channel| (channel / GROUP) as i32)).into_dyn();
    let tensors = [
        ("qweight", TensorData::I32(words.view())),
        ("qzeros", TensorData::I32(zeros.view())),
        ("scales", TensorData::AsF16(scales.t().into_dyn())),
        ("g_idx", TensorData::I32(order.view())),
    ];
    let config = json!({
        "quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": true, "desc_act": false,
        "checkpoint_format": "gptq", "pack_dtype": "int32",
    });
    packed(&tensors, &config)
}

/// A checkpoint of one layer stored in parts. Its files need not outlive their mapping.
fn packed(parts: &[(&str, TensorData<'_>)], quantization: &Value) -> Checkpoint {
    let directory = tempfile::tempdir().expect("a directory");
    let named: Vec<_> = parts.iter().map(|(part, data)| (format!("{LAYER}.{part}"), data.clone())).collect();
    let tensors: Vec<_> = named.iter().map(|(name, data)| (name.as_str(), data.clone())).collect();
    write_safetensors_file(directory.path().join("model.safetensors"), &tensors).expect("written");
    write_config(directory.path(), &json!({"model_type": "llama", "quantization_config": quantization}));
    Checkpoint::open(directory.path()).expect("a checkpoint")
}

/// A GGUF file with a layer of this type. Its rows repeat: choosing codes for all of them takes longer than reading.
fn gguf(dtype: DType) -> Checkpoint {
    const ROWS: usize = 64;
    let directory = tempfile::tempdir().expect("a directory");
    let (weight, destination) = (format!("{LAYER}.weight"), directory.path().join("model.gguf"));
    // The writer takes names and shapes from a checkpoint; its values are of no consequence.
    let (embedding, values) = (Array2::zeros((1, WIDTH)).into_dyn(), Array2::zeros((OUT, WIDTH)).into_dyn());
    let tensors = [(EMBEDDING, TensorData::I8(embedding.view())), (&weight, TensorData::I8(values.view()))];
    write_safetensors_file(directory.path().join("model.safetensors"), &tensors).expect("written");
    let config = json!({
        "model_type": "llama", "vocab_size": 1, "hidden_size": WIDTH, "intermediate_size": WIDTH,
        "num_hidden_layers": 1, "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
    });
    write_config(directory.path(), &config);
    let source = open_checkpoint(directory.path()).expect("a checkpoint");
    let blocks = |rows| quantize_rows(dtype, noise(rows, WIDTH, 2).view(), None).expect("a type that is written");
    let mut writer = GgufWriter::create(&destination, &source, |_| dtype, None, false).expect("planned");
    writer.write_bytes(EMBEDDING, &blocks(1)).expect("written");
    writer.write_bytes(&weight, &blocks(ROWS).repeat(OUT / ROWS)).expect("written");
    writer.finish().expect("complete");
    open_checkpoint(&destination).expect("a checkpoint")
}

fn write_config(directory: &Path, config: &Value) {
    std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
}

criterion_group!(benches, grids, words, checkpoints);
criterion_main!(benches);
