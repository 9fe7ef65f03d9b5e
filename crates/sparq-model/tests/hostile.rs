//! Configs and checkpoints that are damaged or lie.
#![allow(clippy::unwrap_used)]

mod common;

use common::{llama, with_config};
use proptest::prelude::*;
use serde_json::{Value, json};
use sparq_model::{Error, Model, ModelConfig, Tokenizer};

fn base() -> Value {
    json!({
        "model_type": "qwen2", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "max_position_embeddings": 64, "tie_word_embeddings": false, "rope_theta": 1e4, "bos_token_id": 1,
        "eos_token_id": [1, 2], "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"], "dtype": "float32",
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    })
}

/// Configs of the other families, every field that they read written down.
fn others() -> Vec<Value> {
    let with = |extra: Value| {
        let mut config = base();
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    let longrope =
        json!({"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [1.0, 3.0], "factor": 4.0});
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1, "truncate": true,
        "mscale": 1.0, "mscale_all_dim": 0.5, "original_max_position_embeddings": 32});
    vec![
        with(json!({"model_type": "llama", "rope_parameters": yarn})),
        with(json!({"model_type": "mistral", "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}})),
        with(json!({"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2})),
        with(json!({"model_type": "qwen3", "attention_bias": true})),
        with(json!({"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "norm_topk_prob": true, "decoder_sparse_step": 2, "mlp_only_layers": [0]})),
        with(json!({"model_type": "olmo2"})),
        with(json!({"model_type": "gemma3_text", "query_pre_attn_scalar": 8, "final_logit_softcapping": 30.0,
            "hidden_activation": "gelu_pytorch_tanh", "sliding_window_pattern": 2, "rope_local_base_freq": 1e4,
            "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}})),
        with(json!({"model_type": "phi3", "rope_parameters": longrope, "original_max_position_embeddings": 32,
            "partial_rotary_factor": 1.0})),
        json!({"model_type": "gpt2", "vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 24,
            "n_positions": 32, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "scale_attn_by_inverse_layer_idx": true, "tie_word_embeddings": true}),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..100).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop_oneof!["llama", "mistral", "gelu", "relu", "linear", "default", "yarn"].prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([1, "x", null])),
        Just(json!({"rope_type": "linear", "factor": -1})),
    ]
}

proptest! {
    #[test]
    fn configs_with_any_fields_replaced_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any_value(), any::<bool>()), 1..4)
    ) {
        let mut config = base();
        for (index, value, nested) in changes {
            let object = if nested && config["rope_parameters"].is_object() {
                config["rope_parameters"].as_object_mut().unwrap()
            } else {
                config.as_object_mut().unwrap()
            };
            if !object.is_empty() {
                let key = object.keys().nth(index.index(object.len())).unwrap().clone();
                object.insert(key, value);
            }
        }
        if let Ok(config) = ModelConfig::parse(&config) {
            prop_assert!(config.heads % config.kv_heads == 0 && config.head_dim % 2 == 0);
            prop_assert_eq!(config.windows.len(), config.layers);
            prop_assert!(config.norm_epsilon.is_finite() && config.rope.is_some_and(|rope| rope.theta.is_finite()));
        }
    }

    #[test]
    fn other_families_with_any_fields_replaced_never_panic(
        family in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4),
        inside: bool,
    ) {
        let mut config = family.get(&others()).clone();
        for (index, value) in changes {
            let whole = config.as_object_mut().unwrap();
            let parameters = whole.get_mut("rope_parameters").filter(|_| inside).and_then(Value::as_object_mut);
            let object = match parameters {
                Some(object) if !object.is_empty() => object,
                _ => whole,
            };
            let key = object.keys().nth(index.index(object.len())).unwrap().clone();
            object.insert(key, value);
        }
        if let Ok(config) = ModelConfig::parse(&config) {
            prop_assert!(config.heads % config.kv_heads == 0);
            prop_assert_eq!(config.windows.len(), config.layers);
            prop_assert!(config.attention_scale.is_finite() && config.embedding_scale.is_finite());
            prop_assert!(config.experts.is_none_or(|experts| (1..=experts.count).contains(&experts.per_token)));
            prop_assert!(config.rope.is_none_or(|rope| rope.dimensions % 2 == 0 && rope.dimensions <= config.head_dim));
        }
    }

    #[test]
    fn tokenizers_from_any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Tokenizer::from_json(&bytes, None).is_err());
    }
}

#[test]
fn the_unchanged_config_is_fine() {
    assert_eq!(ModelConfig::parse(&base()).unwrap().windows, [None, Some(8)]);
}

#[test]
fn the_unchanged_configs_of_other_families_are_fine() {
    for config in others() {
        ModelConfig::parse(&config).unwrap();
    }
}

#[test]
fn switches_that_are_not_implemented_are_named() {
    for (family, field, value) in [
        ("gemma3_text", "attn_logit_softcapping", json!(50.0)),
        ("gemma3_text", "use_bidirectional_attention", json!(true)),
        ("gpt2", "scale_attn_weights", json!(false)),
        ("gpt2", "add_cross_attention", json!(true)),
        ("gpt2", "n_head", json!(3)),
        ("phi3", "partial_rotary_factor", json!(0.3)),
        ("mixtral", "num_experts_per_tok", json!(5)),
        ("qwen3_moe", "num_experts", json!(100_000)),
        ("qwen3_moe", "mlp_only_layers", json!(["0"])),
    ] {
        let mut config = others().into_iter().find(|config| config["model_type"] == family).unwrap();
        config[field] = value.clone();
        match ModelConfig::parse(&config) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{family}: {field} = {value}: {other:?}"),
        }
    }
}

#[test]
fn unknown_architectures_say_what_is_supported() {
    let mut config = base();
    config["model_type"] = json!("mamba");
    let message = ModelConfig::parse(&config).unwrap_err().to_string();
    for word in ["mamba", "llama", "mistral", "qwen2", "gemma3_text", "gpt2", "qwen3_moe", "hidden_size", "layer_types"]
    {
        assert!(message.contains(word), "{message}");
    }
    assert!(ModelConfig::parse(&json!([])).is_err());
    assert!(ModelConfig::parse(&json!({})).is_err());
}

#[test]
fn fields_out_of_range_are_named() {
    for (field, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-4)),
        ("vocab_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(5)),
        ("hidden_act", json!("softmax")),
        ("rms_norm_eps", json!("tiny")),
        ("layer_types", json!(["full_attention"])),
        ("layer_types", json!(["full_attention", "chunked_attention"])),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("partial_rotary_factor", json!(0.5)),
    ] {
        let mut config = base();
        config[field] = value.clone();
        match ModelConfig::parse(&config) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field} = {value}: {other:?}"),
        }
    }
}

#[test]
fn tensors_that_do_not_fit_the_config_are_named() {
    let fixture = &llama();
    let grown = with_config(fixture, |config| config["intermediate_size"] = json!(41));
    match Model::open(grown.path()) {
        Err(Error::TensorShape { name, expected, .. }) => {
            assert_eq!((name.as_str(), expected[0]), ("model.layers.0.mlp.gate_proj.weight", 41));
        }
        other => panic!("{other:?}"),
    }
    let deeper = with_config(fixture, |config| config["num_hidden_layers"] = json!(3));
    match Model::open(deeper.path()) {
        Err(Error::MissingTensor { name, .. }) => assert_eq!(name, "model.layers.2.self_attn.q_proj.weight"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_without_tokenizer_says_so() {
    assert!(matches!(Model::open(llama()).unwrap().tokenizer(), Err(Error::NoTokenizer)));
}

#[test]
fn weights_that_are_not_numbers_are_named() {
    let fixture = &llama();
    let copy = with_config(fixture, |_| ());
    let path = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let description: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let name = "model.layers.1.mlp.up_proj.weight";
    let offset = description[name]["data_offsets"][0].as_u64().unwrap() as usize + 8 + header;
    bytes[offset + 4..offset + 8].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let model = Model::open(copy.path()).unwrap();
    model.load_block(0).unwrap();
    let message = model.load_block(1).unwrap_err().to_string();
    assert!(message.contains(name), "{message}");
}

#[test]
fn a_tokenizer_whose_skipped_parts_are_no_json_is_an_error() {
    // Found by fuzzing: the decoder is read a second time, after its type, by a parser that trusts the first.
    let not_json: &[u8] =
        b"{\"version\":\"1.0\",\"added_tokens\":[],\"decoder\":{\x1dtype\":\"ByteLevel\"},\"model\":{}}";
    let not_utf8: &[u8] =
        b"{\"version\":\"1.0\",\"added_tokens\":[],\"decoder\":{\"\x8c\x86pe\":\"ByteLevel\"},\"model\":
        {\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}}";
    for json in [not_json, not_utf8] {
        let error = sparq_model::Tokenizer::from_json(json, None).expect_err("not JSON");
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn codes_without_their_scales_are_not_taken_as_numbers() {
    for (dtype, size) in [("I8", 1), ("F8_E4M3", 1), ("I32", 4), ("U8", 1)] {
        let copy = with_config(&llama(), |_| ());
        let path = copy.path().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let (name, mut data) = ("model.layers.1.mlp.up_proj.weight", Vec::new());
        for (key, tensor) in tensors.as_object_mut().unwrap().iter_mut().filter(|(key, _)| *key != "__metadata__") {
            let offset = |at: usize| tensor["data_offsets"][at].as_u64().unwrap() as usize + 8 + header;
            let mut own = bytes[offset(0)..offset(1)].to_vec();
            if key == name {
                tensor["dtype"] = json!(dtype);
                own.truncate(own.len() / 4 * size);
            }
            tensor["data_offsets"] = json!([data.len(), data.len() + own.len()]);
            data.extend(own);
        }
        let header = tensors.to_string();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        std::fs::write(&path, file).unwrap();
        match Model::open(copy.path()) {
            Err(Error::TensorType { name: named, dtype: found }) => {
                assert_eq!((named.as_str(), found.to_string().as_str()), (name, dtype));
            }
            other => panic!("{dtype}: {other:?}"),
        }
    }
}

#[test]
fn what_is_missing_is_told_with_what_is_there() {
    let copy = with_config(&llama(), |config| config["model_type"] = json!("gpt2"));
    std::fs::write(copy.path().join("config.json"), others().pop().unwrap().to_string()).unwrap();
    let message = Model::open(copy.path()).unwrap_err().to_string();
    assert!(message.contains("wte.weight") && message.contains("such as lm_head.weight, model."), "{message}");
}
