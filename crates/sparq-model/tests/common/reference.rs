//! A plain forward pass in f64, by loops over one sequence.

use ndarray::{Array1, Array2, ArrayD, ArrayView1, Ix1, Ix2};
use sparq_model::ModelConfig;
use sparq_tensor::Checkpoint;

/// Whether the reference here computes models of this kind.
pub(crate) fn is_plain(config: &ModelConfig) -> bool {
    use sparq_model::RopeScaling::{Default, Linear, Llama3};
    let scaling = config.rope.as_ref().map(|rope| &rope.scaling);
    matches!(config.model_type.as_str(), "llama" | "mistral" | "qwen2")
        && matches!(scaling, Some(Default | Linear { .. } | Llama3 { .. }))
}

/// Hidden states after the final norm.
pub(crate) fn reference(checkpoint: &Checkpoint, config: &ModelConfig, tokens: &[u32]) -> Vec<Vec<f64>> {
    let read = |name: &str| checkpoint.contains(name).then(|| checkpoint.read(name).unwrap().mapv(f64::from));
    let embedding: Array2<f64> = read("model.embed_tokens.weight").unwrap().into_dimensionality::<Ix2>().unwrap();
    let mut x: Vec<Vec<f64>> = tokens.iter().map(|token| embedding.row(*token as usize).to_vec()).collect();
    for layer in 0..config.layers {
        x = block(&read, config, layer, x);
    }
    norm(&vector(&read, "model.norm.weight"), config, &x)
}

fn vector(read: &dyn Fn(&str) -> Option<ArrayD<f64>>, name: &str) -> Array1<f64> {
    read(name).unwrap().into_dimensionality::<Ix1>().unwrap()
}

fn norm(weight: &Array1<f64>, config: &ModelConfig, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    x.iter()
        .map(|x| {
            let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (mean + f64::from(config.norm_epsilon)).sqrt();
            x.iter().zip(weight).map(|(v, w)| v * scale * w).collect()
        })
        .collect()
}

/// What leaves block `layer`, whose tensors `read` gives.
pub(crate) fn block(
    read: &dyn Fn(&str) -> Option<ArrayD<f64>>,
    config: &ModelConfig,
    layer: usize,
    mut x: Vec<Vec<f64>>,
) -> Vec<Vec<f64>> {
    let matrix = |name: &str| read(name).unwrap().into_dimensionality::<Ix2>().unwrap();
    let norm = |name: &str, x: &[Vec<f64>]| norm(&vector(read, name), config, x);
    let linear = |name: &str, x: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let weight = matrix(&format!("{name}.weight"));
        let bias_name = format!("{name}.bias");
        let bias = read(&bias_name);
        x.iter()
            .map(|x| {
                let row = |i: usize| weight.row(i).dot(&ArrayView1::from(x)) + bias.as_ref().map_or(0.0, |b| b[i]);
                (0..weight.nrows()).map(row).collect()
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
    x
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
