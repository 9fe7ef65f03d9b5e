//! Agreement with transformers on the fixtures, and with a plain f64 forward pass.
#![allow(clippy::unwrap_used)]

mod common;

use common::{difference, expected, logits, model_fixtures, token_sequences};
use ndarray::{Array2, ArrayView1};
use serde_json::Value;
use sparq_model::{GenerateOptions, Model, ModelConfig, Sampler};
use sparq_tensor::Checkpoint;
use std::ops::ControlFlow;

#[test]
fn logits_agree_with_transformers() {
    for folder in model_fixtures() {
        let (shape, values) = expected(&folder, "logits");
        let wanted = Array2::from_shape_vec((shape[0], shape[1]), values).unwrap().mapv(|v| v as f32);
        let sequences = token_sequences(&folder, "tokens");
        let model = Model::open(&folder).unwrap();
        let got = logits(&model, &sequences);
        let error = difference(got.view(), wanted.view());
        eprintln!("{}: {error:e}", folder.display());
        assert!(error < 1e-4, "{}: {error}", folder.display());

        for variant in ["config.v4.json", "config.v5.json"] {
            let Ok(bytes) = std::fs::read(folder.join(variant)) else { continue };
            let config: Value = serde_json::from_slice(&bytes).unwrap();
            let copy = common::with_config(&folder, |current| *current = config);
            assert_eq!(
                logits(&Model::open(copy.path()).unwrap(), &sequences),
                got,
                "{variant} of {}",
                folder.display()
            );
        }
    }
}

#[test]
fn greedy_continuations_agree_with_transformers() {
    let mut seen = 0;
    for folder in model_fixtures() {
        if !common::has_expected(&folder, "generated") {
            continue;
        }
        seen += 1;
        let text = &token_sequences(&folder, "generated")[0];
        let options = GenerateOptions { max_tokens: text.len() - 8, stop: Vec::new(), sampler: Sampler::Greedy };
        let mut model = Model::open(&folder).unwrap();
        model.make_resident().unwrap();
        let mut observed = Vec::new();
        let generated = model.generate(&text[..8], &options, |token| {
            observed.push(token);
            ControlFlow::Continue(())
        });
        assert_eq!(generated.unwrap(), text[8..], "{}", folder.display());
        assert_eq!(observed, text[8..]);
    }
    assert!(seen > 0);
}

#[test]
fn agrees_with_a_plain_f64_forward_pass() {
    let mut seen = 0;
    for folder in model_fixtures() {
        let model = Model::open(&folder).unwrap();
        if !is_plain(model.config()) {
            continue; // transformers has been asked in f64 as well, when the fixtures were made
        }
        seen += 1;
        let sequences = token_sequences(&folder, "tokens");
        let got = model.hidden(&[&sequences[0][..13], &sequences[1]]).unwrap();
        let first = reference(model.checkpoint(), model.config(), &sequences[0][..13]);
        let second = reference(model.checkpoint(), model.config(), &sequences[1]);
        let wanted: Vec<f64> = first.into_iter().chain(second).flatten().collect();
        for (got, wanted) in got.iter().zip(wanted) {
            assert!((f64::from(*got) - wanted).abs() < 2e-5, "{}: {got} {wanted}", folder.display());
        }
    }
    assert!(seen >= 12);
}

/// Whether the reference below computes models of this kind.
fn is_plain(config: &ModelConfig) -> bool {
    use sparq_model::RopeScaling::{Default, Linear, Llama3};
    let scaling = config.rope.as_ref().map(|rope| &rope.scaling);
    matches!(config.model_type.as_str(), "llama" | "mistral" | "qwen2")
        && matches!(scaling, Some(Default | Linear { .. } | Llama3 { .. }))
}

/// Hidden states after the final norm, by loops over one sequence.
fn reference(checkpoint: &Checkpoint, config: &ModelConfig, tokens: &[u32]) -> Vec<Vec<f64>> {
    let matrix = |name: &str| checkpoint.read_matrix(name).unwrap().mapv(f64::from);
    let vector = |name: &str| checkpoint.read_vector(name).unwrap().mapv(f64::from);
    let linear = |name: &str, x: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let weight = matrix(&format!("{name}.weight"));
        let bias_name = format!("{name}.bias");
        let bias = checkpoint.contains(&bias_name).then(|| vector(&bias_name));
        x.iter()
            .map(|x| {
                let row = |i: usize| weight.row(i).dot(&ArrayView1::from(x)) + bias.as_ref().map_or(0.0, |b| b[i]);
                (0..weight.nrows()).map(row).collect()
            })
            .collect()
    };
    let norm = |name: &str, x: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let weight = vector(name);
        x.iter()
            .map(|x| {
                let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
                let scale = 1.0 / (mean + f64::from(config.norm_epsilon)).sqrt();
                x.iter().zip(&weight).map(|(v, w)| v * scale * w).collect()
            })
            .collect()
    };
    let head_dim = config.head_dim;
    let rotate = |x: &mut [Vec<f64>]| {
        for (position, x) in x.iter_mut().enumerate() {
            for head in x.chunks_exact_mut(head_dim) {
                for pair in 0..head_dim / 2 {
                    let angle = position as f64 * frequency(config, pair);
                    let (a, b) = (head[pair], head[pair + head_dim / 2]);
                    head[pair] = a * angle.cos() - b * angle.sin();
                    head[pair + head_dim / 2] = b * angle.cos() + a * angle.sin();
                }
            }
        }
    };
    let embedding = matrix("model.embed_tokens.weight");
    let mut x: Vec<Vec<f64>> = tokens.iter().map(|token| embedding.row(*token as usize).to_vec()).collect();
    for layer in 0..config.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed = norm(&name("input_layernorm.weight"), &x);
        let mut q = linear(&name("self_attn.q_proj"), &normed);
        let mut k = linear(&name("self_attn.k_proj"), &normed);
        let v = linear(&name("self_attn.v_proj"), &normed);
        rotate(&mut q);
        rotate(&mut k);
        let mut attended = vec![vec![0.0; config.heads * head_dim]; x.len()];
        for head in 0..config.heads {
            let kv_head = head / (config.heads / config.kv_heads);
            let part = |x: &[f64], head: usize| x[head * head_dim..(head + 1) * head_dim].to_vec();
            for i in 0..x.len() {
                let seen = |j: usize| j <= i && config.windows[layer].is_none_or(|window| i - j < window);
                let score = |j: usize| -> f64 {
                    let product: f64 = part(&q[i], head).iter().zip(part(&k[j], kv_head)).map(|(a, b)| a * b).sum();
                    (product / (head_dim as f64).sqrt()).exp()
                };
                let total: f64 = (0..=i).filter(|j| seen(*j)).map(score).sum();
                for j in (0..=i).filter(|j| seen(*j)) {
                    for (component, value) in part(&v[j], kv_head).into_iter().enumerate() {
                        attended[i][head * head_dim + component] += score(j) / total * value;
                    }
                }
            }
        }
        add(&mut x, &linear(&name("self_attn.o_proj"), &attended));
        let normed = norm(&name("post_attention_layernorm.weight"), &x);
        let mut gate = linear(&name("mlp.gate_proj"), &normed);
        for (gate, up) in gate.iter_mut().flatten().zip(linear(&name("mlp.up_proj"), &normed).into_iter().flatten()) {
            *gate = *gate / (1.0 + (-*gate).exp()) * up;
        }
        add(&mut x, &linear(&name("mlp.down_proj"), &gate));
    }
    norm("model.norm.weight", &x)
}

fn add(x: &mut [Vec<f64>], y: &[Vec<f64>]) {
    for (x, y) in x.iter_mut().flatten().zip(y.iter().flatten()) {
        *x += y;
    }
}

fn frequency(config: &ModelConfig, pair: usize) -> f64 {
    use sparq_model::RopeScaling::{Default, Linear, Llama3};
    let rope = config.rope.as_ref().unwrap();
    let plain = rope.theta.powf(-2.0 * pair as f64 / config.head_dim as f64);
    match rope.scaling {
        Default => plain,
        Linear { factor } => plain / factor,
        Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => {
            let turns = original_positions as f64 * plain / std::f64::consts::TAU;
            let smooth = (turns - low_frequency_factor) / (high_frequency_factor - low_frequency_factor);
            let smooth = smooth.clamp(0.0, 1.0);
            plain * (smooth + (1.0 - smooth) / factor)
        }
        ref other => panic!("{other:?}"),
    }
}
