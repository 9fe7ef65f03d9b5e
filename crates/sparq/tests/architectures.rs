//! Every architecture from end to end on tiny random models: solve, export, open again, evaluate.

use ndarray::{Array2, ArrayD};
use sparq::eval::{TextEvaluation, TextSettings};
use sparq::export::{
    CompressedTensors, Dense, Error, ExportFormat, ExportSettings, FloatType, Gguf, GgufTypes, GptqCheckpoint,
    Solution, SolvedInMemory, export,
};
use sparq::model::{ExpertTokens, open_checkpoint};
use sparq::tensor::{DType, TensorData, write_safetensors_file};
use sparq::{Calibration, Compress, CompressionReport, Fallback, Model, Recipe};
use std::path::{Path, PathBuf};

const JOINT: &str = "s=0.25,q=4,group=32";

/// The parity fixtures of sparq-model that are no Llama.
fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-model/tests/fixtures");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the fixtures of sparq-model")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("config.json").exists())
        .filter(|path| !["llama", "mistral", "qwen2_", "smollm"].iter().any(|name| label(path).starts_with(name)))
        .collect();
    folders.sort();
    assert_eq!(folders.len(), 14);
    folders
}

fn label(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn tokens(model: &Model, count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % model.config().vocab_size as u32
    };
    (0..count).map(|_| next()).collect()
}

fn calibration(model: &Model) -> Calibration {
    let sequences = tokens(model, 40 * 24, 1).chunks(24).map(<[u32]>::to_vec).collect();
    Calibration::from_sequences(sequences).expect("tokens")
}

fn in_memory(model: &Model, recipe: &Recipe) -> (Model, CompressionReport) {
    let calibration = calibration(model);
    Compress::new(model).recipe(recipe.clone()).calibration(&calibration).in_memory().expect("compressed")
}

fn logits(model: &Model) -> Array2<f32> {
    let (a, b) = (tokens(model, 24, 7), tokens(model, 5, 8));
    model.logits(model.hidden(&[&a, &b]).expect("hidden states").view()).expect("logits")
}

/// Largest difference, relative to the largest logit.
fn relative_difference(a: &Array2<f32>, b: &Array2<f32>) -> f32 {
    let largest = b.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    a.iter().zip(b).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

/// Mean divergence of `model` from `base` on held-out tokens, in nats.
fn divergence(model: &Model, base: &Model) -> f64 {
    let settings = TextSettings { length: 24, ..TextSettings::default() };
    let text = TextEvaluation::new(tokens(base, 240, 9), settings).expect("a text");
    let baseline = text.baseline(base, &()).expect("scores");
    let scores = text.evaluate(model, Some(&baseline), &()).expect("scores");
    assert!(scores.perplexity.is_finite());
    scores.base.expect("compared").mean_kl
}

#[test]
fn every_architecture_is_compressed_exported_and_evaluated() {
    for folder in fixtures() {
        let name = label(&folder);
        let model = Model::open(&folder).expect("the fixture opens");
        let recipe: Recipe = JOINT.parse().expect("valid");
        let (compressed, report) = in_memory(&model, &recipe);
        let linears = model.linear_names().count();
        assert_eq!(report.layers.len(), linears, "{name}");
        assert!((report.measured_sparsity - 0.25).abs() < 0.02, "{name}: {}", report.measured_sparsity);

        let directory = tempfile::tempdir().expect("a directory");
        let dense = directory.path().join("dense");
        let settings = ExportSettings { float_type: FloatType::F32, ..ExportSettings::default() };
        let calibration = calibration(&model);
        let job = Compress::new(&model).recipe(recipe).calibration(&calibration).export(settings);
        let done = job.to(&dense, &Dense).expect("compressed");
        assert_eq!((done.export.largest_difference, done.export.zeros_lost), (0.0, 0), "{name}");
        let written = Model::open(&dense).expect("opens");
        assert_eq!(shapes(&written), shapes(&model), "{name}: the layout it came in");
        assert_eq!(logits(&written), logits(&compressed), "{name}: the same bits");

        // Other formats of the same solution, where codes of all parts of a tensor are put together.
        let solution = Solution::open(dense.join("sparq")).expect("kept");
        for format in [&CompressedTensors::default() as &dyn ExportFormat, &GptqCheckpoint] {
            let packed = directory.path().join(format.name().as_ref());
            match export(model.checkpoint(), &solution, format, &packed, &settings) {
                Ok(report) => {
                    assert_eq!((report.largest_difference, report.zeros_lost), (0.0, 0), "{name}");
                    assert_eq!(logits(&Model::open(&packed).expect("opens")), logits(&compressed), "{name}");
                    assert!(!name.contains("stacked") && !name.contains("gpt2"), "{name}");
                }
                Err(Error::Unfit { reason, instead, .. }) => {
                    let word = if name.contains("gpt2") { "Conv1D" } else { "experts" };
                    assert!(name.contains("stacked") || name.contains("gpt2"), "{name}: {reason}");
                    assert!(reason.contains(word) && instead.contains("dense"), "{name}: {reason}");
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }

        let gguf = directory.path().join("model.gguf");
        let refused = match name.as_str() {
            "gemma3" => Some("query_pre_attn_scalar"),
            "gemma3_softcap_untied_bf16" => Some("final_logit_softcapping"),
            "gpt2_first_names_by_depth" => Some("activation_function"),
            "qwen3_bias_window_yarn" => Some("use_sliding_window"),
            "mixtral_stacked_window" => Some("experts"),
            "qwen3_moe_stacked_bf16" => Some("norm_topk_prob"),
            _ => None,
        };
        match (export(model.checkpoint(), &solution, &Gguf::default(), &gguf, &settings), refused) {
            (Ok(report), None) => {
                assert_eq!((report.largest_difference, report.zeros_lost), (0.0, 0), "{name}");
                let read = Model::open(&gguf).expect("opens");
                // Norms of Gemma and rotary divisors are rounded on their way.
                let difference = relative_difference(&logits(&read), &logits(&compressed));
                assert!(difference < 1e-5, "{name}: {difference}");
                // A GGUF file is a source like any other.
                let again = directory.path().join("again.gguf");
                let nothing = SolvedInMemory::default();
                export(read.checkpoint(), &nothing, &Gguf::default(), &again, &settings).expect("exported");
                let again = relative_difference(&logits(&Model::open(&again).expect("opens")), &logits(&read));
                assert!(again < 1e-5, "{name}: {again}");
            }
            (Err(error), Some(word)) => assert!(error.to_string().contains(word), "{name}: {error}"),
            (result, _) => panic!("{name}: {result:?}"),
        }

        let four = divergence(&written, &model);
        let eight: Recipe = "s=0,q=8,group=channel,act-order=false".parse().expect("valid");
        let eight = divergence(&in_memory(&model, &eight).0, &model);
        assert!(eight < 0.01 && eight < 0.1 * four, "{name}: {four} with 4 bits, {eight} with 8");
    }
}

fn shapes(model: &Model) -> Vec<(String, Vec<usize>)> {
    model.checkpoint().tensors().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

/// A copy of a fixture with its tensors changed.
fn altered(name: &str, change: impl FnOnce(&mut Vec<(String, ArrayD<f32>)>)) -> tempfile::TempDir {
    let folder = fixtures().into_iter().find(|folder| label(folder) == name).expect("the fixture");
    let source = open_checkpoint(&folder).expect("opens");
    let directory = tempfile::tempdir().expect("a directory");
    let read = |name: &str| (name.to_owned(), source.read(name).expect("readable"));
    let mut contents: Vec<_> = source.tensors().map(|tensor| read(&tensor.name)).collect();
    change(&mut contents);
    let tensors: Vec<_> =
        contents.iter().map(|(name, values)| (name.as_str(), TensorData::F32(values.view()))).collect();
    write_safetensors_file(directory.path().join("model.safetensors"), &tensors).expect("written");
    std::fs::copy(folder.join("config.json"), directory.path().join("config.json")).expect("copied");
    directory
}

/// GPT-2 as the first checkpoints were: names without prefix, and masks.
fn first_gpt2() -> tempfile::TempDir {
    altered("gpt2", |contents| {
        for (name, _) in contents.iter_mut() {
            *name = name.trim_start_matches("transformer.").to_owned();
        }
        contents.extend((0..2).map(|block| (format!("h.{block}.attn.bias"), ArrayD::ones(vec![1, 1, 64, 64]))));
    })
}

#[test]
fn gpt2_goes_through_every_kind_of_gguf() {
    let source = first_gpt2();
    let model = Model::open(source.path()).expect("opens");
    let recipe: Recipe = JOINT.parse().expect("valid");
    let (compressed, _) = in_memory(&model, &recipe);
    let directory = tempfile::tempdir().expect("a directory");
    let settings = ExportSettings { float_type: FloatType::F32, ..ExportSettings::default() };
    let calibration = calibration(&model);
    let solved = directory.path().join("dense");
    let job = Compress::new(&model).recipe(recipe).calibration(&calibration).export(settings);
    job.to(&solved, &Dense).expect("compressed");
    let solution = Solution::open(solved.join("sparq")).expect("kept");
    let nothing = SolvedInMemory::default();
    for (types, bound, of_the_fused) in [
        (GgufTypes::Exact, 0.0, DType::Q4_0),
        (GgufTypes::All(DType::F32), 0.0, DType::F32),
        (GgufTypes::All(DType::F16), 5e-3, DType::F16),
        (GgufTypes::All(DType::Q8_0), 1e-1, DType::Q8_0),
        (GgufTypes::Q4KM, 0.5, DType::Q5_0), // rows of 32 are no 256
    ] {
        let format = Gguf::new(types);
        let name = format.name();
        let path = directory.path().join(format!("{name}.gguf"));
        export(model.checkpoint(), &solution, &format, &path, &settings).expect("exported");
        let read = Model::open(&path).expect("opens");
        let info = |name: &str| read.checkpoint().get(name).expect("there").clone();
        let fused = info("transformer.h.0.attn.c_attn.weight");
        assert_eq!((fused.dtype, fused.shape.as_slice()), (of_the_fused, [32, 96].as_slice()), "{name}");
        assert_eq!(info("transformer.wpe.weight").dtype, DType::F32, "{name}");
        assert!(!read.checkpoint().contains("transformer.h.0.attn.bias"), "{name}: masks are left out");
        let difference = relative_difference(&logits(&read), &logits(&compressed));
        assert!(difference <= bound, "{name}: {difference}");
        // Copied without being compressed, from the first checkpoint and from the file.
        let plain = directory.path().join(format!("{name} plain.gguf"));
        export(model.checkpoint(), &nothing, &format, &plain, &settings).expect("exported");
        let difference = relative_difference(&logits(&Model::open(&plain).expect("opens")), &logits(&model));
        assert!(difference <= bound, "{name}: {difference} of the model itself");
        let again = directory.path().join(format!("{name} again.gguf"));
        let as_it_is = ExportSettings::default();
        export(read.checkpoint(), &nothing, &Gguf::default(), &again, &as_it_is).expect("exported");
        assert_eq!(logits(&Model::open(&again).expect("opens")), logits(&read), "{name}: blocks as they were");
        // Back to a Hugging Face directory, in its layout.
        let dense = directory.path().join(format!("{name} dense"));
        export(read.checkpoint(), &nothing, &Dense, &dense, &settings).expect("exported");
        let dense = Model::open(&dense).expect("opens");
        assert_eq!((shapes(&dense), logits(&dense)), (shapes(&read), logits(&read)), "{name}");
    }
}

#[test]
fn an_interrupted_mixture_of_experts_ends_with_the_same_bytes() {
    let folder = fixtures().into_iter().find(|folder| label(folder) == "qwen3_moe").expect("the fixture");
    let model = Model::open(folder).expect("opens");
    let recipe: Recipe = JOINT.parse().expect("valid");
    let calibration = calibration(&model);
    let directory = tempfile::tempdir().expect("a directory");
    let run = |name: &str, stop: Option<usize>| {
        let job = Compress::new(&model).recipe(recipe.clone()).calibration(&calibration);
        job.stop_after(stop).to(directory.path().join(name), &Dense)
    };
    run("whole", None).expect("done");
    run("parts", Some(1)).expect_err("stopped");
    run("parts", None).expect("done");
    let bytes = |name: &str| std::fs::read(directory.path().join(name).join("model.safetensors")).expect("written");
    assert_eq!(bytes("whole"), bytes("parts"));
}

/// A copy of a fixture whose router sends no token to expert 1 of any block.
fn with_an_idle_expert(name: &str) -> tempfile::TempDir {
    altered(name, |contents| {
        for (name, values) in contents {
            // The norm before the experts gives every token the same large first channel, which the router dislikes.
            if name.ends_with("gate.weight") {
                values.index_axis_mut(ndarray::Axis(0), 1).fill(0.0);
                let others = [0, 2, 3].map(|expert| [expert, 0]);
                for at in others {
                    values[at.as_slice()] = 40.0;
                }
                values[[1, 0].as_slice()] = -40.0;
            }
            if name.ends_with("embed_tokens.weight") {
                values.index_axis_mut(ndarray::Axis(1), 0).fill(6.0);
            }
        }
    })
}

#[test]
fn an_expert_without_tokens_is_reported_and_stays_finite() {
    let directory = with_an_idle_expert("mixtral");
    let model = Model::open(directory.path()).expect("opens");
    let recipes = [
        JOINT,
        "s=0.25,q=4,group=32,held-out=0",
        "s=0.5,pruner=wanda",
        "s=0.25,q=4,group=32,quantizer=rtn",
        "s=0,q=3,group=32,act-order=true",
    ];
    for text in recipes {
        let recipe: Recipe = text.parse().expect("valid");
        let (compressed, report) = in_memory(&model, &recipe);
        let of_idle: Vec<_> = report.layers.iter().filter(|layer| layer.name.contains("experts.1.")).collect();
        assert_eq!(of_idle.len(), 6);
        for layer in of_idle {
            assert_eq!(layer.tokens, 0, "{text}: {}", layer.name);
            assert!(layer.fallbacks.contains(&Fallback::NoTokens), "{text}: {:?}", layer.fallbacks);
            assert!(layer.relative_output_error > 0.0 && layer.relative_output_error < 1.0, "{text}: of the weights");
        }
        let idle = |layer: &sparq::pipeline::LayerReport| layer.fallbacks.contains(&Fallback::NoTokens);
        assert_eq!(report.layers.iter().filter(|layer| idle(layer)).count(), 6, "{text}: no other layer");
        let routed = report.layers.iter().filter(|layer| layer.name.ends_with("w1") && layer.block == 0);
        assert_eq!(routed.map(|layer| layer.tokens).sum::<u64>(), 2 * 40 * 24, "{text}: each token twice");
        for index in 0..compressed.block_count() {
            let block = compressed.block(index).expect("in memory");
            assert!(block.linears().iter().all(|linear| linear.weight.iter().all(|value| value.is_finite())));
        }
        assert!(logits(&compressed).iter().all(|value| value.is_finite()), "{text}");
    }
    // All tokens reach it if that is asked for.
    let mut recipe: Recipe = JOINT.parse().expect("valid");
    recipe.expert_tokens = ExpertTokens::All;
    let (_, report) = in_memory(&model, &recipe);
    assert!(report.layers.iter().all(|layer| layer.tokens == 40 * 24));
    assert!(report.layers.iter().all(|layer| !layer.fallbacks.contains(&Fallback::NoTokens)));
}
