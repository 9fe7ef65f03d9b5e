//! GGUF files seen as Hugging Face checkpoints.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Gguf, Kv, floats, ramp};
use sparq_model::open_checkpoint;
use sparq_tensor::{Checkpoint, DType, Error, Fault, SourceFormat};
use tokenizers::Tokenizer;

fn open(gguf: &Gguf) -> sparq_tensor::Result<Checkpoint> {
    let directory = tempfile::tempdir().unwrap();
    // The mapping outlives the directory entry.
    open_checkpoint(gguf.write_to(directory.path()))
}

fn fault(gguf: &Gguf) -> (Option<String>, Fault) {
    match open(gguf).unwrap_err() {
        Error::Malformed { fault, .. } => (None, fault),
        Error::MalformedTensor { tensor, fault, .. } => (Some(tensor), fault),
        other => panic!("{other}"),
    }
}

fn tokenizer(gguf: &Gguf) -> Tokenizer {
    Tokenizer::from_bytes(open(gguf).unwrap().tokenizer_json().unwrap().unwrap()).unwrap()
}

#[test]
fn a_llama_file_looks_like_a_directory() {
    let checkpoint = open(&Gguf::tiny("llama")).unwrap();
    assert_eq!(checkpoint.format(), SourceFormat::Gguf);
    let names: Vec<&str> = checkpoint.tensors().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.0.mlp.gate_proj.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.v_proj.weight",
            "model.norm.weight",
        ]
    );
    assert_eq!(checkpoint.get("model.layers.0.mlp.down_proj.weight").unwrap().shape, [32, 64]);
    let config = checkpoint.config().unwrap();
    for (key, value) in [
        ("model_type", serde_json::json!("llama")),
        ("hidden_size", 32.into()),
        ("intermediate_size", 64.into()),
        ("num_hidden_layers", 1.into()),
        ("num_attention_heads", 2.into()),
        ("num_key_value_heads", 1.into()),
        ("head_dim", 16.into()),
        ("vocab_size", 8.into()),
        ("max_position_embeddings", 128.into()),
        ("rope_theta", 100_000.0.into()),
        ("rms_norm_eps", 1e-5.into()),
        ("tie_word_embeddings", true.into()),
        ("attention_bias", false.into()),
        ("rope_scaling", serde_json::Value::Null),
        ("torch_dtype", "float32".into()),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(checkpoint.tokenizer_json().unwrap(), None);
    assert_eq!(checkpoint.tokenizer_config().unwrap(), None);
}

#[test]
fn version_2_and_other_alignments_are_read() {
    let expected = open(&Gguf::tiny("llama")).unwrap().read("model.norm.weight").unwrap();
    let mut gguf = Gguf::tiny("llama");
    gguf.version = 2;
    gguf.alignment = 128;
    gguf.set("general.alignment", Kv::U32(128));
    assert_eq!(open(&gguf).unwrap().read("model.norm.weight").unwrap(), expected);
}

/// Rows as the converter stores them: per head seen as (2, half), swapped to (half, 2).
fn interleave(rows: &[Vec<f32>], head_dimension: usize) -> Vec<f32> {
    let half = head_dimension / 2;
    let mut out = Vec::new();
    for head in rows.chunks(head_dimension) {
        for index in 0..half {
            out.extend(&head[index]);
            out.extend(&head[half + index]);
        }
    }
    out
}

#[test]
fn query_and_key_rows_come_back_in_hugging_face_order() {
    let rows = |count: usize| ramp(count * 32, 7.0).chunks(32).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let bias = ramp(16, 3.0);
    let bias_rows: Vec<Vec<f32>> = bias.iter().map(|&value| vec![value]).collect();
    for (architecture, moves) in [("llama", true), ("qwen2", false)] {
        let mut gguf = Gguf::tiny(architecture);
        let stored = |rows: &[Vec<f32>]| if moves { interleave(rows, 16) } else { rows.concat() };
        gguf.tensor("blk.0.attn_q.weight").bytes = floats(stored(&rows(32)));
        gguf.tensor("blk.0.attn_k.weight").bytes = floats(stored(&rows(16)));
        gguf.add("blk.0.attn_k.bias", &[16], 0, floats(stored(&bias_rows)));
        gguf.add_f32("blk.0.attn_q.bias", &[32]);
        let checkpoint = open(&gguf).unwrap();
        let query = checkpoint.read_matrix("model.layers.0.self_attn.q_proj.weight").unwrap();
        assert_eq!(query.into_raw_vec_and_offset().0, rows(32).concat());
        let key = checkpoint.read_matrix("model.layers.0.self_attn.k_proj.weight").unwrap();
        assert_eq!(key.into_raw_vec_and_offset().0, rows(16).concat());
        let name = "model.layers.0.self_attn.k_proj.bias";
        assert_eq!(checkpoint.read_vector(name).unwrap().to_vec(), bias);
        assert_eq!(&*checkpoint.read_bytes(name).unwrap(), floats(bias.clone()).as_slice());
        assert_eq!(checkpoint.config().unwrap()["attention_bias"], true);
    }
}

#[test]
fn quantized_rows_are_moved_as_whole_blocks() {
    let mut gguf = Gguf::tiny("llama");
    // Q8_0 with scale 1 (0x3c00): row r holds r everywhere.
    let row = |r: u8| [vec![0x00, 0x3c], vec![r; 32]].concat();
    let rows: Vec<u8> = (0..16).flat_map(row).collect();
    let tensor = gguf.tensor("blk.0.attn_k.weight");
    (tensor.ggml_type, tensor.bytes) = (8, rows);
    let checkpoint = open(&gguf).unwrap();
    let name = "model.layers.0.self_attn.k_proj.weight";
    assert_eq!(checkpoint.get(name).unwrap().dtype, DType::Q8_0);
    let first: Vec<f32> = checkpoint.read_matrix(name).unwrap().column(0).to_vec();
    assert_eq!(first, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]);
    let bytes = checkpoint.read_bytes(name).unwrap();
    assert_eq!(bytes[..34], row(0));
    assert_eq!(bytes[34..68], row(2));
    assert_eq!(checkpoint.config().unwrap()["torch_dtype"], "float32");
}

#[test]
fn untied_output_and_half_types_show_in_the_configuration() {
    let mut gguf = Gguf::tiny("qwen2");
    gguf.add("output.weight", &[32, 8], 30, vec![0; 512]);
    let checkpoint = open(&gguf).unwrap();
    let config = checkpoint.config().unwrap();
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config["torch_dtype"], "bfloat16");
    assert_eq!(config["model_type"], "qwen2");
    assert_eq!(config["architectures"], serde_json::json!(["Qwen2ForCausalLM"]));
    assert_eq!(checkpoint.get("lm_head.weight").unwrap().dtype, DType::BF16);
}

#[test]
fn rope_frequencies_become_llama3_scaling() {
    let mut gguf = Gguf::tiny("llama");
    gguf.set("llama.rope.freq_base", Kv::F32(500_000.0));
    let (factor, low, high, length) = (32.0, 1.0, 4.0, 8192.0);
    let divisor = |i: u32| {
        let wavelength = std::f64::consts::TAU * 500_000f64.powf(f64::from(i) / 8.0);
        if wavelength < length / high {
            1.0
        } else if wavelength > length / low {
            factor
        } else {
            let smooth = (length / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    gguf.add("rope_freqs.weight", &[8], 0, floats((0..8).map(|i| divisor(i) as f32)));
    let checkpoint = open(&gguf).unwrap();
    assert!(!checkpoint.contains("rope_freqs.weight"));
    let expected = serde_json::json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    assert_eq!(checkpoint.config().unwrap()["rope_scaling"], expected);

    gguf.tensor("rope_freqs.weight").bytes = floats(ramp(8, 1.0));
    assert!(matches!(open(&gguf), Err(Error::Unsupported { .. })));
    let mut gguf = Gguf::tiny("llama");
    gguf.add_f32("rope_freqs.weight", &[4]);
    assert!(matches!(fault(&gguf).1, Fault::BadShape { .. }));
}

#[test]
fn linear_and_yarn_scaling_are_carried_over() {
    let mut gguf = Gguf::tiny("qwen2");
    gguf.set("qwen2.rope.scaling.type", Kv::Str("yarn".into()));
    gguf.set("qwen2.rope.scaling.factor", Kv::F32(4.0));
    gguf.set("qwen2.rope.scaling.original_context_length", Kv::U32(32768));
    let expected = serde_json::json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768 });
    assert_eq!(open(&gguf).unwrap().config().unwrap()["rope_scaling"], expected);
    gguf.set("qwen2.rope.scaling.type", Kv::Str("none".into()));
    assert!(open(&gguf).unwrap().config().unwrap()["rope_scaling"].is_null());
    gguf.set("qwen2.rope.scaling.type", Kv::Str("spiral".into()));
    assert!(matches!(open(&gguf), Err(Error::Unsupported { .. })));
}

#[test]
fn the_tokenizer_loads_and_keeps_its_ids() {
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2", "dbrx", "gpt-4o", "tekken"] {
        let mut gguf = Gguf::tiny_with_tokenizer("llama", pre);
        gguf.set("tokenizer.ggml.add_bos_token", Kv::Bool(false));
        let tokenizer = tokenizer(&gguf);
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids("ab a"), [4, 6, 2], "{pre}");
        assert_eq!(ids("ba<tool>ab</s>"), [3, 2, 7, 4, 1], "{pre}");
        assert_eq!(ids("a11"), [2, 5, 5], "{pre}");
        assert_eq!(tokenizer.decode(&[4, 6, 2, 1], true).unwrap(), "ab a", "{pre}");
        assert_eq!(tokenizer.decode(&[4, 7, 1], true).unwrap(), "ab<tool>", "{pre}");

        gguf.set("tokenizer.ggml.add_bos_token", Kv::Bool(true));
        gguf.set("tokenizer.ggml.add_eos_token", Kv::Bool(true));
        let tokenizer = self::tokenizer(&gguf);
        assert_eq!(tokenizer.encode("ab", true).unwrap().get_ids(), [0, 4, 1], "{pre}");
        assert_eq!(tokenizer.encode("ab", false).unwrap().get_ids(), [4], "{pre}");
        assert_eq!(tokenizer.encode(("a", "b"), true).unwrap().get_ids(), [0, 2, 1, 0, 3, 1], "{pre}");
    }
    let checkpoint = open(&Gguf::tiny_with_tokenizer("llama", "llama-bpe")).unwrap();
    let config = checkpoint.tokenizer_config().unwrap().unwrap();
    assert_eq!((&config["bos_token"], &config["eos_token"]), (&"<s>".into(), &"</s>".into()));
    assert_eq!(config["chat_template"], "{{ messages }}");
    let names: Vec<String> = checkpoint.side_files().unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["config.json", "tokenizer.json", "tokenizer_config.json"]);
}

#[test]
fn digits_and_words_are_cut_as_the_pre_tokenizer_says() {
    // With a merge of "1 1", only pre-tokenizers that keep digits together can use it.
    let pieces = |pre: &str| {
        let mut gguf = Gguf::tiny_with_tokenizer("qwen2", pre);
        let tokens = ["<s>", "</s>", "a", "b", "ab", "1", "Ġ", "11"];
        gguf.set("tokenizer.ggml.tokens", Kv::Strings(tokens.iter().map(ToString::to_string).collect()));
        gguf.set("tokenizer.ggml.token_type", Kv::I32s(vec![3, 3, 1, 1, 1, 1, 1, 1]));
        gguf.set("tokenizer.ggml.merges", Kv::Strings(vec!["a b".into(), "1 1".into()]));
        gguf.set("tokenizer.ggml.add_bos_token", Kv::Bool(false));
        tokenizer(&gguf).encode("1111", true).unwrap().get_ids().to_vec()
    };
    assert_eq!(pieces("gpt-2"), [7, 7]);
    assert_eq!(pieces("llama-bpe"), [7, 5, 5]); // three and one
    assert_eq!(pieces("smollm"), [5; 4]);
    assert_eq!(pieces("qwen2"), [5; 4]);
    assert_eq!(pieces("dbrx"), [7, 5, 5]);
    assert_eq!(pieces("gpt-4o"), [7, 5, 5]);
    assert_eq!(pieces("tekken"), [5; 4]);
}

#[test]
fn words_are_cut_before_capitals_where_the_pre_tokenizer_says() {
    // Merges of "b A" and "A '" show where nothing was cut.
    let pieces = |pre: &str, text: &str| {
        let mut gguf = Gguf::tiny_with_tokenizer("llama", pre);
        let tokens = ["<s>", "</s>", "b", "A", "bA", "'", "s", "b's"];
        gguf.set("tokenizer.ggml.tokens", Kv::Strings(tokens.iter().map(ToString::to_string).collect()));
        gguf.set("tokenizer.ggml.token_type", Kv::I32s(vec![3, 3, 1, 1, 1, 1, 1, 1]));
        gguf.set("tokenizer.ggml.merges", Kv::Strings(vec!["b A".into()]));
        gguf.set("tokenizer.ggml.add_bos_token", Kv::Bool(false));
        tokenizer(&gguf).encode(text, true).unwrap().get_ids().to_vec()
    };
    assert_eq!(
        (pieces("dbrx", "bA"), pieces("gpt-4o", "bA"), pieces("tekken", "bA")),
        (vec![4], vec![2, 3], vec![2, 3])
    );
}

#[test]
fn sentence_piece_vocabularies_merge_by_score_and_fall_back_to_bytes() {
    let mut gguf = Gguf::tiny("llama");
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let mut kinds = [vec![2, 3, 3], vec![6; 256]].concat();
    let mut scores = vec![0.0; tokens.len()];
    for (token, score) in
        [("▁", -9.0), ("a", -9.0), ("b", -9.0), ("ab", -2.0), ("▁a", -1.0), ("▁ab", -3.0), ("bb", -4.0)]
    {
        tokens.push(token.into());
        kinds.push(1);
        scores.push(score);
    }
    let id = |token: &str| tokens.iter().position(|t| t == token).unwrap() as u32;
    gguf.set("tokenizer.ggml.model", Kv::Str("llama".into()));
    gguf.set("tokenizer.ggml.tokens", Kv::Strings(tokens.clone()));
    gguf.set("tokenizer.ggml.token_type", Kv::I32s(kinds));
    gguf.set("tokenizer.ggml.scores", Kv::F32s(scores));
    gguf.set("tokenizer.ggml.bos_token_id", Kv::U32(1));
    gguf.set("tokenizer.ggml.eos_token_id", Kv::U32(2));
    let tokenizer = tokenizer(&gguf);
    let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    assert_eq!(ids("ab"), [1, id("▁ab")]); // "▁ a" has the best score, then "▁a b"
    assert_eq!(ids("abb ab"), [1, id("▁ab"), id("b"), id("▁ab")]); // "▁a b" before "b b"
    assert_eq!(ids("é"), [1, id("▁"), id("<0xC3>"), id("<0xA9>")]);
    assert_eq!(tokenizer.decode(&ids("ab é b"), true).unwrap(), "ab é b");

    // Pieces that hold blanks, as Gemma 3 has them for runs of blanks in the text.
    let mut blank = gguf.clone();
    let more = ["  ", "   ", "a b", " "].map(str::to_owned);
    blank.set("tokenizer.ggml.tokens", Kv::Strings([&tokens[..], &more].concat()));
    let kinds = [vec![2, 3, 3], vec![6; 256], vec![1; 7], vec![4, 4, 1, 1]].concat();
    blank.set("tokenizer.ggml.token_type", Kv::I32s(kinds));
    blank.set("tokenizer.ggml.scores", Kv::F32s(vec![-1.0; tokens.len() + 4]));
    let with_blanks = self::tokenizer(&blank);
    let ids = with_blanks.encode("ab  b", false).unwrap().get_ids().to_vec();
    assert!(ids.contains(&(tokens.len() as u32)), "{ids:?}");

    gguf.set("tokenizer.ggml.scores", Kv::F32s(vec![0.0]));
    assert!(matches!(open(&gguf).unwrap().tokenizer_json(), Err(Error::InvalidMetadata { .. })));
    gguf.remove("tokenizer.ggml.scores");
    assert!(matches!(open(&gguf).unwrap().tokenizer_json(), Err(Error::MissingMetadata { .. })));
}

#[test]
fn vocabularies_with_endless_merges_are_refused() {
    let with = |tokens: Vec<String>| {
        let mut gguf = Gguf::tiny("llama");
        gguf.set("tokenizer.ggml.model", Kv::Str("llama".into()));
        gguf.set("tokenizer.ggml.token_type", Kv::I32s(vec![1; tokens.len()]));
        gguf.set("tokenizer.ggml.scores", Kv::F32s(vec![0.0; tokens.len()]));
        gguf.set("tokenizer.ggml.tokens", Kv::Strings(tokens));
        open(&gguf).unwrap().tokenizer_json()
    };
    // Every split of every token is a merge: 2 MB of tokens would be 2 GB of them.
    let runs = |longest| (1..=longest).map(|length| "a".repeat(length)).collect();
    for tokens in [runs(1000), vec!["a".repeat(5000)]] {
        assert!(matches!(with(tokens), Err(Error::InvalidMetadata { .. })));
    }
}

#[test]
fn a_window_of_zero_is_none() {
    let mut gguf = Gguf::tiny("llama");
    gguf.set("llama.attention.sliding_window", Kv::U32(0));
    let checkpoint = open(&gguf).unwrap();
    let config = checkpoint.config().unwrap();
    assert_eq!((&config["model_type"], config.get("sliding_window")), (&serde_json::json!("llama"), None));
}

#[test]
fn a_part_of_interleaved_rows_is_what_the_whole_has_there() {
    let gguf = Gguf::tiny("llama");
    let checkpoint = open(&gguf).unwrap();
    let name = "model.layers.0.self_attn.q_proj.weight";
    let whole = checkpoint.read_matrix(name).unwrap();
    let part = sparq_tensor::TensorPart { first_row: 5, ..sparq_tensor::TensorPart::whole(name, [32, 32]) };
    assert_eq!(checkpoint.read_part(&part, 9).unwrap(), whole.slice(ndarray::s![5..14, ..]));
}

#[test]
fn tokenizers_without_an_equivalent_are_named() {
    let checkpoint = open(&Gguf::tiny_with_tokenizer("llama", "command-r")).unwrap();
    let error = checkpoint.tokenizer_json().unwrap_err();
    assert!(error.to_string().ends_with("tokenizer.ggml.pre is not supported: command-r"), "{error}");
    // The weights are usable all the same.
    assert_eq!(checkpoint.side_files().unwrap().len(), 1);

    for (key, value) in [
        ("tokenizer.ggml.merges", Kv::Strings(vec!["a x".into()])),
        ("tokenizer.ggml.merges", Kv::Strings(vec!["ab".into()])),
        ("tokenizer.ggml.merges", Kv::U32(1)),
        ("tokenizer.ggml.token_type", Kv::I32s(vec![1])),
        ("tokenizer.ggml.token_type", Kv::I32s(vec![-1; 8])),
        ("tokenizer.ggml.tokens", Kv::I32s(vec![1])),
    ] {
        let mut gguf = Gguf::tiny_with_tokenizer("llama", "gpt-2");
        gguf.set(key, value.clone());
        let result = open(&gguf).unwrap().tokenizer_json();
        assert!(matches!(result, Err(Error::InvalidMetadata { .. })), "{key} {value:?} {result:?}");
    }
    let mut gguf = Gguf::tiny_with_tokenizer("llama", "llama-bpe");
    gguf.set("tokenizer.ggml.bos_token_id", Kv::U32(8));
    assert!(matches!(open(&gguf).unwrap().tokenizer_json(), Err(Error::InvalidMetadata { .. })));
}

#[test]
fn unused_tokens_leave_gaps_in_the_ids() {
    let mut gguf = Gguf::tiny_with_tokenizer("qwen2", "qwen2");
    gguf.set("tokenizer.ggml.token_type", Kv::I32s(vec![3, 3, 1, 1, 1, 1, 5, 4]));
    let tokenizer = tokenizer(&gguf);
    assert_eq!(tokenizer.token_to_id("Ġ"), None);
    assert_eq!(tokenizer.encode("ab<tool>", true).unwrap().get_ids(), [4, 7]);
}

#[test]
fn what_cannot_be_translated_is_refused_by_name() {
    let mut gguf = Gguf::tiny("llama");
    gguf.set("general.architecture", Kv::Str("mamba".into()));
    assert!(matches!(open(&gguf), Err(Error::UnsupportedArchitecture { architecture, .. }) if architecture == "mamba"));
    for key in ["general.architecture", "llama.block_count", "llama.attention.layer_norm_rms_epsilon"] {
        let mut gguf = Gguf::tiny("llama");
        gguf.remove(key);
        assert!(matches!(open(&gguf), Err(Error::MissingMetadata { key: missing, .. }) if missing == key), "{key}");
    }
    for (key, value) in [
        ("general.architecture", Kv::U32(1)),
        ("general.alignment", Kv::F32(32.0)),
        ("llama.block_count", Kv::Str("1".into())),
        ("llama.block_count", Kv::U64(u64::MAX)),
        ("llama.embedding_length", Kv::U32(0)),
        ("llama.attention.head_count", Kv::I32(-2)),
        ("llama.attention.head_count_kv", Kv::I32s(vec![1])),
        ("llama.rope.freq_base", Kv::F32(f32::NAN)),
    ] {
        let mut gguf = Gguf::tiny("llama");
        gguf.set(key, value.clone());
        let result = open(&gguf);
        assert!(matches!(result, Err(Error::InvalidMetadata { .. })), "{key} {value:?}: {result:?}");
    }
    for (key, value) in
        [("expert_count", 8), ("rope.dimension_count", 8), ("attention.value_length", 8), ("block_count", 1 << 20)]
    {
        let mut gguf = Gguf::tiny("qwen2");
        gguf.set(&format!("qwen2.{key}"), Kv::U32(value));
        assert!(matches!(open(&gguf), Err(Error::Unsupported { .. })), "{key}");
    }
    let mut gguf = Gguf::tiny("llama");
    gguf.add_f32("blk.0.ssm_a", &[4]);
    assert!(matches!(open(&gguf), Err(Error::Unsupported { value, .. }) if value == "blk.0.ssm_a"));
    let mut gguf = Gguf::tiny("llama");
    gguf.tensors.remove(0);
    assert!(matches!(open(&gguf), Err(Error::MissingTensor { tensor, .. }) if tensor == "token_embd.weight"));
}

#[test]
fn lying_tensor_descriptions_are_refused_by_name() {
    const NAME: &str = "blk.0.ffn_up.weight";
    type Lie = (fn(&mut common::Tensor), fn(&Fault) -> bool);
    let lies: [Lie; 8] = [
        (|t| t.ggml_type = 4, |f| matches!(f, Fault::UnknownType { .. })),
        (|t| t.ggml_type = 12, |f| matches!(f, Fault::PartialBlock { columns: 32, .. })),
        (|t| t.dimensions = vec![u64::MAX, 2], |f| matches!(f, Fault::Overflow { .. })),
        (|t| t.dimensions = vec![32, 0], |f| matches!(f, Fault::BadShape { .. })),
        (|t| t.dimensions = vec![1; 5], |f| matches!(f, Fault::TooLarge { value: 5, .. })),
        (|t| t.dimensions = vec![32, 1 << 20], |f| matches!(f, Fault::OutOfRange { .. })),
        (|t| t.offset = Some(33), |f| matches!(f, Fault::Misaligned { value: 33, .. })),
        (|t| t.offset = Some(u64::MAX - 31), |f| matches!(f, Fault::Overflow { .. })),
    ];
    for (number, (lie, expected)) in lies.into_iter().enumerate() {
        let mut gguf = Gguf::tiny("llama");
        lie(gguf.tensor(NAME));
        let (tensor, fault) = fault(&gguf);
        assert_eq!(tensor.as_deref(), Some(NAME), "{number}: {fault}");
        assert!(expected(&fault), "{number}: {fault}");
    }
    let mut gguf = Gguf::tiny("llama");
    gguf.tensor(NAME).offset = Some(0);
    assert!(matches!(fault(&gguf).1, Fault::Overlap { .. }));
    let mut gguf = Gguf::tiny("llama");
    gguf.add_f32("blk.0.attn_q.bias", &[30]);
    assert!(matches!(fault(&gguf).1, Fault::BadShape { .. }));
    let mut gguf = Gguf::tiny("llama");
    gguf.add_f32("output_norm.weight", &[32]);
    assert!(matches!(fault(&gguf).1, Fault::Duplicate { .. }));
}

#[test]
fn lying_containers_are_refused() {
    let mut gguf = Gguf::tiny("llama");
    gguf.tensor_count = Some(u64::MAX);
    assert!(matches!(fault(&gguf).1, Fault::TooLarge { what: "the tensor count", .. }));
    gguf.tensor_count = Some(100_000);
    assert!(matches!(fault(&gguf).1, Fault::Truncated { what: "the tensor count", .. }));
    let mut gguf = Gguf::tiny("llama");
    gguf.entry_count = Some(1 << 40);
    assert!(matches!(fault(&gguf).1, Fault::TooLarge { what: "the metadata count", .. }));
    for version in [0, 1, 4, 3u32.swap_bytes()] {
        let mut gguf = Gguf::tiny("llama");
        gguf.version = version;
        assert!(matches!(fault(&gguf).1, Fault::Version { version: found, .. } if found == version));
    }
    for alignment in [0, 4, 24, u32::MAX] {
        let mut gguf = Gguf::tiny("llama");
        gguf.set("general.alignment", Kv::U32(alignment));
        assert!(matches!(fault(&gguf).1, Fault::Misaligned { .. }), "{alignment}");
    }
    let array = |element: u32, count: u64| [element.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()].concat();
    let mut nested = Vec::new();
    for _ in 0..50 {
        nested.extend(array(9, 1));
    }
    nested.extend(array(0, 0));
    for (raw, expected) in [
        (Kv::Raw(13, vec![]), "a metadata value \"13\" is not known"),
        (Kv::Raw(7, vec![2]), "a metadata flag is 2, which is out of range"),
        (Kv::Raw(8, (1u64 << 60).to_le_bytes().to_vec()), "more than the limit"),
        (Kv::Raw(8, [2u64.to_le_bytes().to_vec(), vec![0xff, 0xff]].concat()), "is not UTF-8"),
        (Kv::Raw(9, array(4, u64::MAX)), "more than the limit"),
        (Kv::Raw(9, array(4, 1 << 25)), "bytes but only"),
        (Kv::Raw(9, array(8, 1 << 20)), "bytes but only"),
        (Kv::Raw(9, nested), "the nesting of arrays"),
    ] {
        let mut gguf = Gguf::tiny("llama");
        gguf.set("x", raw);
        let text = open(&gguf).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let mut gguf = Gguf::tiny("llama");
    gguf.entries.push(gguf.entries[0].clone());
    assert!(matches!(fault(&gguf).1, Fault::Duplicate { .. }));
}

#[test]
fn every_truncation_is_an_error() {
    let gguf = Gguf::tiny_with_tokenizer("llama", "gpt-2");
    let bytes = gguf.to_bytes();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.gguf");
    for length in (0..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(open_checkpoint(&path).is_err(), "{length} of {}", bytes.len());
    }
}

#[test]
fn non_finite_weights_are_refused_where_they_are() {
    let mut gguf = Gguf::tiny("llama");
    gguf.tensor("blk.0.ffn_up.weight").bytes[4 * 35..4 * 36].copy_from_slice(&f32::NAN.to_le_bytes());
    let checkpoint = open(&gguf).unwrap();
    let error = checkpoint.read("model.layers.0.mlp.up_proj.weight").unwrap_err();
    assert!(matches!(error, Error::NonFinite { index, .. } if index == [1, 3]));
}

#[test]
fn a_directory_may_hold_one_gguf_file() {
    let directory = tempfile::tempdir().unwrap();
    Gguf::tiny("llama").write_to(directory.path());
    let checkpoint = open_checkpoint(directory.path()).unwrap();
    assert_eq!(checkpoint.format(), SourceFormat::Gguf);
    std::fs::copy(directory.path().join("model.gguf"), directory.path().join("other.gguf")).unwrap();
    assert!(matches!(open_checkpoint(directory.path()), Err(Error::NotACheckpoint { .. })));
}

/// Compares a downloaded SmolLM2-135M-Instruct with what its publishers say about it; the path comes from the
/// environment.
#[test]
fn smollm2_comes_out_right() {
    let Some(path) = std::env::var_os("SPARQ_SMOLLM2_GGUF") else {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: SPARQ_SMOLLM2_GGUF does not name a file");
        }
        return;
    };
    let checkpoint = open_checkpoint(path).unwrap();
    let config = checkpoint.config().unwrap();
    for (key, value) in [
        ("hidden_size", 576),
        ("intermediate_size", 1536),
        ("num_hidden_layers", 30),
        ("num_attention_heads", 9),
        ("num_key_value_heads", 3),
        ("head_dim", 64),
        ("vocab_size", 49152),
        ("max_position_embeddings", 8192),
        ("bos_token_id", 1),
        ("eos_token_id", 2),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(config["rope_theta"], 100_000.0);
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!(checkpoint.tensors().len(), 2 + 30 * 9);
    let tokenizer = Tokenizer::from_bytes(checkpoint.tokenizer_json().unwrap().unwrap()).unwrap();
    // Ids published with the model: <|im_start|> is 1, <|im_end|> 2; digits are single tokens.
    let encoding = tokenizer.encode("<|im_start|>user\nWhat is 1234?<|im_end|>", true).unwrap();
    assert_eq!(encoding.get_ids().first(), Some(&1));
    assert_eq!(encoding.get_ids().last(), Some(&2));
    assert_eq!(encoding.get_tokens().iter().filter(|token| token.len() == 1 && token.parse::<u8>().is_ok()).count(), 4);
    let text = "Grüße, 世界! 😀\n\n\tdon't  stop 3.14159 £5";
    let ids = tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    for tensor in checkpoint.tensors() {
        assert_eq!(checkpoint.read(&tensor.name).unwrap().shape(), tensor.shape, "{}", tensor.name);
    }
}

/// A tiny model whose feed-forward layer is a mixture of experts.
fn with_experts(architecture: &str) -> Gguf {
    let mut gguf = Gguf::tiny(architecture);
    gguf.tensors.retain(|tensor| !tensor.name.starts_with("blk.0.ffn_") || tensor.name.contains("norm"));
    for (key, value) in [("expert_count", 3), ("expert_used_count", 2), ("expert_feed_forward_length", 64)] {
        gguf.set(&format!("{architecture}.{key}"), Kv::U32(value));
    }
    for (name, dimensions) in [
        ("blk.0.ffn_gate_inp.weight", vec![32, 3]),
        ("blk.0.ffn_gate_exps.weight", vec![32, 64, 3]),
        ("blk.0.ffn_up_exps.weight", vec![32, 64, 3]),
        ("blk.0.ffn_down_exps.weight", vec![64, 32, 3]),
    ] {
        gguf.add_f32(name, &dimensions);
    }
    gguf
}

#[test]
fn experts_are_matrices_of_their_own() {
    for (architecture, model_type, gate, down) in [
        ("llama", "mixtral", "block_sparse_moe.experts.2.w1", "block_sparse_moe.experts.1.w2"),
        ("qwen3moe", "qwen3_moe", "mlp.experts.2.gate_proj", "mlp.experts.1.down_proj"),
    ] {
        let mut gguf = with_experts(architecture);
        let checkpoint = open(&gguf).unwrap();
        let config = checkpoint.config().unwrap();
        assert_eq!(
            (config["model_type"].as_str(), config["num_experts_per_tok"].as_u64()),
            (Some(model_type), Some(2))
        );
        let bytes = |gguf: &mut Gguf, name: &str| gguf.tensor(name).bytes.clone();
        let (gates, downs) =
            (bytes(&mut gguf, "blk.0.ffn_gate_exps.weight"), bytes(&mut gguf, "blk.0.ffn_down_exps.weight"));
        let name = format!("model.layers.0.{gate}.weight");
        assert_eq!(checkpoint.get(&name).unwrap().shape, [64, 32]);
        assert_eq!(*checkpoint.read_bytes(&name).unwrap(), gates[2 * 64 * 32 * 4..]);
        let name = format!("model.layers.0.{down}.weight");
        assert_eq!(checkpoint.get(&name).unwrap().shape, [32, 64]);
        assert_eq!(*checkpoint.read_bytes(&name).unwrap(), downs[64 * 32 * 4..2 * 64 * 32 * 4]);
    }
}

#[test]
fn experts_that_contradict_the_metadata_are_refused() {
    for count in [0, 2, 4, 5000] {
        let mut gguf = with_experts("llama");
        gguf.set("llama.expert_count", Kv::U32(count));
        assert!(open(&gguf).is_err(), "{count} experts");
    }
    let mut gguf = with_experts("llama");
    gguf.remove("llama.expert_used_count");
    assert!(matches!(open(&gguf), Err(Error::MissingMetadata { .. })));
    let mut gguf = with_experts("llama");
    gguf.tensor("blk.0.ffn_up_exps.weight").dimensions = vec![32, 192];
    assert!(matches!(open(&gguf), Err(Error::MalformedTensor { .. })));
}

#[test]
fn norms_of_gemma_are_one_less_than_in_the_file() {
    let mut gguf = Gguf::tiny("gemma3");
    gguf.set("gemma3.attention.sliding_window", Kv::U32(32));
    let stored = gguf.tensor("blk.0.ffn_norm.weight").bytes.clone();
    let checkpoint = open(&gguf).unwrap();
    let presented = checkpoint.read_vector("model.layers.0.pre_feedforward_layernorm.weight").unwrap();
    let bytes = checkpoint.read_bytes("model.layers.0.pre_feedforward_layernorm.weight").unwrap();
    for ((value, four), same) in presented.iter().zip(stored.chunks(4)).zip(bytes.chunks(4)) {
        assert_eq!(*value, f32::from_le_bytes(four.try_into().unwrap()) - 1.0);
        assert_eq!(value.to_le_bytes(), same);
    }
    let config = checkpoint.config().unwrap();
    assert_eq!(
        (config["model_type"].as_str(), config["query_pre_attn_scalar"].as_u64()),
        (Some("gemma3_text"), Some(16))
    );
    gguf.remove("gemma3.attention.sliding_window");
    assert!(matches!(open(&gguf), Err(Error::MissingMetadata { .. })));
}

#[test]
fn divisors_of_phi3_become_part_of_the_configuration() {
    let mut gguf = Gguf::tiny("phi3");
    gguf.tensors.retain(|tensor| {
        !["attn_q.", "attn_k.", "attn_v.", "ffn_gate.", "ffn_up."].iter().any(|part| tensor.name.contains(part))
    });
    gguf.add_f32("blk.0.attn_qkv.weight", &[32, 64]);
    gguf.add_f32("blk.0.ffn_up.weight", &[32, 128]);
    gguf.set("phi3.rope.dimension_count", Kv::U32(12));
    gguf.set("phi3.rope.scaling.original_context_length", Kv::U32(64));
    gguf.set("phi3.rope.scaling.attn_factor", Kv::F32(1.25));
    gguf.add_f32("rope_factors_short.weight", &[6]);
    assert!(open(&gguf).is_err(), "short ones alone");
    gguf.add_f32("rope_factors_long.weight", &[6]);
    let checkpoint = open(&gguf).unwrap();
    let config = checkpoint.config().unwrap();
    assert_eq!(config["partial_rotary_factor"], 0.75);
    assert_eq!(config["original_max_position_embeddings"], 64);
    let scaling = &config["rope_scaling"];
    assert_eq!((scaling["rope_type"].as_str(), scaling["attention_factor"].as_f64()), (Some("longrope"), Some(1.25)));
    assert_eq!(scaling["long_factor"].as_array().unwrap().len(), 6);
    assert!(checkpoint.contains("model.layers.0.mlp.gate_up_proj.weight"));
    gguf.tensor("rope_factors_long.weight").dimensions = vec![3];
    assert!(open(&gguf).is_err());
}

#[test]
fn without_families_a_gguf_file_is_neither_read_nor_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = Gguf::tiny("llama").write_to(directory.path());
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(matches!(&error, Error::NoFamilies { path: named } if *named == path), "{error}");
    let error = Checkpoint::open_with(&path, &sparq_model::GGUF_FAMILIES[..1]).unwrap_err();
    assert!(matches!(error, Error::UnsupportedArchitecture { supported, .. } if supported == ["gemma3"]));

    let dense = directory.path().join("dense");
    let mut writer =
        sparq_tensor::CheckpointWriter::create(&dense, Vec::new(), sparq_tensor::WriteOptions::default()).unwrap();
    writer.write_side_file("config.json", br#"{"model_type": "llama"}"#).unwrap();
    writer.finish().unwrap();
    let error = sparq_tensor::GgufWriter::check(&Checkpoint::open(&dense).unwrap(), |tensor| tensor.dtype).unwrap_err();
    assert!(matches!(&error, Error::NoFamilies { path } if *path == dense), "{error}");
}
