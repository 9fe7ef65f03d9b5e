//! The forward pass of one sequence: attention alone, and whole blocks of SmolLM2-135M (hidden 576) and Llama-3.2-1B
//! (2048).

#![allow(missing_docs, reason = "criterion's macros make public items")]

mod common;

use common::noise;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array1, Array2, ArrayView2};
use serde_json::json;
use sparq::Model;
use sparq::model::{BatchLayout, Block, Gradients, LinearId, Precision, weight_gradient};
use sparq::tensor::{TensorData, write_safetensors_file};
use std::hint::black_box;

/// Dimensions of a Llama.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    hidden: usize,
    ffn: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

const SMOLLM2: Shape = Shape { name: "SmolLM2-135M", hidden: 576, ffn: 1536, heads: 9, kv_heads: 3, head_dim: 64 };
const LLAMA_1B: Shape = Shape { name: "Llama-3.2-1B", hidden: 2048, ffn: 8192, heads: 32, kv_heads: 8, head_dim: 64 };
const LLAMA_8B: Shape = Shape { name: "Llama-3.1-8B", hidden: 4096, ffn: 14336, heads: 32, kv_heads: 8, head_dim: 128 };

/// Attention is a part of a block's first stage; the library does not run it alone. So this is a whole block, its heads
/// as they are, with two channels around them: of what it computes, about one operation in a hundred belongs to linear
/// layers, the rest to rotary embedding, scores, softmax and the sum of values.
fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(10);
    for shape in [SMOLLM2, LLAMA_8B] {
        let block = block(Shape { hidden: 2, ffn: 2, ..shape });
        for tokens in [512, 2048] {
            let (residual, layout) = (noise(tokens, 2, 1), BatchLayout::new(&[tokens]));
            let heads = format!("{}x{}, {} for keys", shape.heads, shape.head_dim, shape.kv_heads);
            group.throughput(Throughput::Elements(attention_flops(shape, tokens)));
            group.bench_function(BenchmarkId::new(format!("prefill, {tokens} tokens"), heads), |bencher| {
                bencher.iter(|| block.forward(black_box(residual.clone()), layout.clone()).expect("fits"));
            });
        }
    }
    group.finish();
}

fn blocks(criterion: &mut Criterion) {
    const TOKENS: usize = 512;
    let mut group = criterion.benchmark_group("blocks");
    group.sample_size(10).throughput(Throughput::Elements(TOKENS as u64));
    for shape in [SMOLLM2, LLAMA_1B] {
        let block = block(shape);
        let (residual, layout) = (noise(TOKENS, shape.hidden, 1), BatchLayout::new(&[TOKENS]));
        for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
            group.bench_function(BenchmarkId::new(format!("{TOKENS} tokens, {name}"), shape.name), |bencher| {
                bencher.iter(|| {
                    let state = block.begin(black_box(residual.clone()), layout.clone()).expect("fits");
                    block.finish(state.with_precision(precision)).expect("fits")
                });
            });
        }
    }
    group.finish();
}

/// The way back through a block, its forward pass computed once more, with the gradients at weights.
fn backward(criterion: &mut Criterion) {
    struct Weights(f32);
    impl Gradients for Weights {
        fn linear(&mut self, _: &Block, _: LinearId, input: ArrayView2<'_, f32>, gradient: ArrayView2<'_, f32>) {
            self.0 += black_box(weight_gradient(input, gradient))[[0, 0]];
        }
    }
    const TOKENS: usize = 512;
    let mut group = criterion.benchmark_group("backward");
    group.sample_size(10).throughput(Throughput::Elements(TOKENS as u64));
    for shape in [SMOLLM2, LLAMA_1B] {
        let block = block(shape);
        let (residual, gradient) = (noise(TOKENS, shape.hidden, 1), noise(TOKENS, shape.hidden, 2));
        let layout = BatchLayout::new(&[TOKENS]);
        group.bench_function(BenchmarkId::new(format!("{TOKENS} tokens"), shape.name), |bencher| {
            bencher.iter(|| {
                let (residual, gradient) = (black_box(residual.clone()), gradient.clone());
                block.backward(residual, layout.clone(), gradient, &mut Weights(0.0)).expect("fits")
            });
        });
    }
    group.finish();
}

/// Of scores and of the sum of values, a multiplication and an addition for each component of each head and each pair of
/// a query with a key not after it.
fn attention_flops(shape: Shape, tokens: usize) -> u64 {
    let pairs = tokens * (tokens + 1) / 2;
    (2 * 2 * pairs * shape.heads * shape.head_dim) as u64
}

/// The only block of a model with noise for weights.
fn block(shape: Shape) -> Block {
    let Shape { hidden, ffn, heads, kv_heads, head_dim, .. } = shape;
    let config = json!({
        "model_type": "llama", "vocab_size": 1, "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": 1,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tie_word_embeddings": true,
    });
    let matrices = [
        ("embed_tokens", 1, hidden),
        ("layers.0.self_attn.q_proj", heads * head_dim, hidden),
        ("layers.0.self_attn.k_proj", kv_heads * head_dim, hidden),
        ("layers.0.self_attn.v_proj", kv_heads * head_dim, hidden),
        ("layers.0.self_attn.o_proj", hidden, heads * head_dim),
        ("layers.0.mlp.gate_proj", ffn, hidden),
        ("layers.0.mlp.up_proj", ffn, hidden),
        ("layers.0.mlp.down_proj", hidden, ffn),
    ];
    let matrices = (2..).zip(matrices).map(|(seed, (name, out, width))| (name, weight(out, width, seed).into_dyn()));
    let norms = ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"];
    let norms = norms.map(|name| (name, Array1::ones(hidden).into_dyn()));
    let tensors: Vec<_> =
        matrices.chain(norms).map(|(name, values)| (format!("model.{name}.weight"), values)).collect();
    let views: Vec<_> = tensors.iter().map(|(name, values)| (name.as_str(), TensorData::F32(values.view()))).collect();

    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("config.json"), config.to_string()).expect("written");
    write_safetensors_file(directory.path().join("model.safetensors"), &views).expect("written");
    Model::open(directory.path()).expect("a model").load_block(0).expect("a block")
}

/// Noise that leaves the size of what it is multiplied with about as it is.
fn weight(out: usize, width: usize, seed: u32) -> Array2<f32> {
    noise(out, width, seed) * (3.0 / width as f32).sqrt()
}

criterion_group!(benches, attention, blocks, backward);
criterion_main!(benches);
