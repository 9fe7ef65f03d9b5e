//! Models that know nothing score what guessing scores, on every multiple-choice task.
#![allow(clippy::unwrap_used)]

use ndarray::ArrayD;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sparq_eval::{Item, Task, TaskKind, TaskOptions};
use sparq_model::Model;
use sparq_tensor::{CheckpointWriter, DType, TensorSpec, WriteOptions};
use std::path::Path;

/// A tiny model with random weights and a tokenizer of 1,024 tokens, which can write any text.
fn random_model(folder: &Path, seed: u64) -> Model {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/demo-model");
    let (hidden, inner, head, vocabulary) = (32, 48, 16, 1024);
    let config = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": {hidden},
        "intermediate_size": {inner}, "head_dim": {head}, "num_attention_heads": 2, "num_key_value_heads": 1,
        "num_hidden_layers": 1, "vocab_size": {vocabulary}, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1}}"#
    );
    let block = "model.layers.0";
    let shapes = [
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("lm_head.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        (format!("{block}.input_layernorm.weight"), vec![hidden]),
        (format!("{block}.post_attention_layernorm.weight"), vec![hidden]),
        (format!("{block}.self_attn.q_proj.weight"), vec![2 * head, hidden]),
        (format!("{block}.self_attn.k_proj.weight"), vec![head, hidden]),
        (format!("{block}.self_attn.v_proj.weight"), vec![head, hidden]),
        (format!("{block}.self_attn.o_proj.weight"), vec![hidden, 2 * head]),
        (format!("{block}.mlp.gate_proj.weight"), vec![inner, hidden]),
        (format!("{block}.mlp.up_proj.weight"), vec![inner, hidden]),
        (format!("{block}.mlp.down_proj.weight"), vec![hidden, inner]),
    ];
    let plan = shapes.iter().map(|(name, shape)| TensorSpec::new(name.as_str(), shape.clone(), DType::F32)).collect();
    let destination = folder.join(format!("random-{seed}"));
    let mut writer = CheckpointWriter::create(&destination, plan, WriteOptions::default()).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for (name, shape) in &shapes {
        // Weights from -0.5 to 0.5; norms are 1.
        let weight = || (random.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5;
        let count: usize = shape.iter().product();
        let values =
            if shape.len() == 1 { vec![1.0; count] } else { std::iter::repeat_with(weight).take(count).collect() };
        let values = ArrayD::from_shape_vec(shape.clone(), values).unwrap();
        writer.write_f32(name, values.view()).unwrap();
    }
    writer.write_side_file("config.json", config.as_bytes()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        writer.write_side_file(file, &std::fs::read(demo.join(file)).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let mut model = Model::open(&destination).unwrap();
    model.make_resident().unwrap();
    model
}

#[test]
fn random_models_score_at_chance_on_every_task_with_choices() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.is_dir() {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: ../shared is absent");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A random model prefers some letter or the shortest choice. Several models have different preferences.
    let models: Vec<Model> = (0..4).map(|seed| random_model(folder.path(), seed)).collect();
    let names = ["arc_challenge", "arc_easy", "bbh", "blimp", "copa", "mmlu_pro", "openbook_qa", "piqa", "winogrande"];
    let mut tried = 0;
    for task in names.into_iter().flat_map(|name| Task::load_all(name, Some(&data)).unwrap()) {
        if task.chance() == 0.0 {
            continue;
        }
        tried += 1;
        // A random model prefers the shorter of two sentences, which is the right one more often than not.
        let tokenizer = models[0].tokenizer().unwrap();
        let length = |text: &str| tokenizer.encode(text, false).unwrap().len();
        let is_pair = task.definition().kind == TaskKind::MinimalPair;
        let same_length = |item: &Item| {
            let lengths: Vec<usize> = item.continuations().map(length).collect();
            lengths.iter().all(|length| *length == lengths[0])
        };
        let task = task.only(|item| !is_pair || same_length(item)).unwrap().limit(50, 0);
        // How far each item is from chance, on average over the models.
        let mut distances = vec![0.0; task.items().len()];
        for model in &models {
            let result = task.evaluate(model, &TaskOptions::default(), &()).unwrap();
            for ((distance, score), item) in distances.iter_mut().zip(result.scores()).zip(&result.items) {
                *distance += (score - item.chance) / models.len() as f64;
            }
        }
        let distance = sparq_metric::mean(&distances).unwrap();
        let error = sparq_metric::standard_error(&distances).unwrap();
        eprintln!("{}: chance {:.3} {distance:+.3} ± {error:.3}", task.name(), task.chance());
        // 99.9 %: some thirty tasks are tried.
        assert!(distance.abs() <= 3.3 * error, "{}: {distance} ± {error} from chance", task.name());
    }
    assert_eq!(tried, 31);
}
