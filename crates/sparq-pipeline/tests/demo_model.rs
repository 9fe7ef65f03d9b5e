//! The whole pipeline on the demo model of this repository.

use ndarray::Array2;
use sparq_core::{Bits, Fallback, Observer, Sparsity};
use sparq_export::{Dense, ExportFormat, ExportSettings, FloatType, Gguf, SolvedLayers};
use sparq_model::Model;
use sparq_pipeline::{
    Allocation, Calibration, Compress, CompressionReport, Error, LayerBudget, LayerReport, MemorySink, Recipe,
    Sampling, Targets,
};
use std::fmt::Display;
use std::path::{Path, PathBuf};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model")
}

fn model() -> Model {
    Model::open(demo()).expect("the demo model opens")
}

fn calibration(model: &Model, samples: usize) -> Calibration {
    drawn(model, samples, 7)
}

fn drawn(model: &Model, samples: usize, seed: u64) -> Calibration {
    let text = std::fs::read_to_string(demo().join("calibration.txt")).expect("the demo calibration text");
    let sampling = Sampling { samples, length: 128, seed };
    Calibration::from_text(model.tokenizer().expect("a tokenizer"), &text, sampling).expect("text")
}

fn held_out(model: &Model) -> Vec<u32> {
    let text = std::fs::read_to_string(demo().join("heldout.txt")).expect("the demo held-out text");
    let mut tokens = model.tokenizer().expect("a tokenizer").encode(&text, true).expect("tokens");
    tokens.truncate(8 * 128);
    tokens
}

/// In windows of the length that the model was trained with.
fn logits(model: &Model) -> Array2<f32> {
    let tokens = held_out(model);
    let windows: Vec<&[u32]> = tokens.chunks(128).collect();
    model.logits(model.hidden(&windows).expect("hidden states").view()).expect("logits")
}

fn in_memory(model: &Model, recipe: &str, samples: usize) -> (Model, CompressionReport) {
    let recipe: Recipe = recipe.parse().expect(recipe);
    let calibration = calibration(model, samples);
    Compress::new(model).recipe(recipe).calibration(&calibration).in_memory().expect("compressed")
}

/// Mean KL(dense || other) per token, in nats.
fn divergence(dense: &Array2<f32>, other: &Array2<f32>) -> f64 {
    let log_softmax = |row: ndarray::ArrayView1<'_, f32>| -> Vec<f64> {
        let max = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
        let sum: f64 = row.iter().map(|value| (f64::from(*value) - max).exp()).sum();
        row.iter().map(|value| f64::from(*value) - max - sum.ln()).collect()
    };
    let rows = dense.outer_iter().zip(other.outer_iter());
    let sum: f64 = rows
        .map(|(p, q)| {
            let (p, q) = (log_softmax(p), log_softmax(q));
            p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
        })
        .sum();
    sum / dense.nrows() as f64
}

/// How far a recipe takes the model from its dense logits, and its report.
fn diverging(model: &Model, dense: &Array2<f32>, recipe: &str, samples: usize) -> (f64, CompressionReport) {
    let (compressed, report) = in_memory(model, recipe, samples);
    (divergence(dense, &logits(&compressed)), report)
}

#[test]
fn compression_counts_zeros_and_bits_and_hurts_in_order() {
    let model = model();
    let dense = logits(&model);
    let divergence_of = |recipe: &str| diverging(&model, &dense, recipe, 24);
    let (joint, report) = divergence_of("s=0.25,q=4,group=32");
    assert_eq!(report.layers.len(), model.linear_names().count());
    assert!((report.measured_sparsity - 0.25).abs() < 0.02, "{}", report.measured_sparsity);
    assert_eq!(report.bits_per_weight, 4.5);
    assert_eq!(report.requested_tcr, 0.8125);
    assert_eq!(report.layers_with_fallbacks, 0);
    let (three, _) = divergence_of("s=0,q=3,group=32");
    let (eight, _) = divergence_of("s=0,q=8,group=32");
    let (rtn, _) = divergence_of("s=0,q=3,group=32,quantizer=rtn");
    let (magnitude, _) = divergence_of("s=0.5,pruner=magnitude");
    let (sparsegpt, _) = divergence_of("s=0.5");
    assert!(eight < 0.01 * three, "8 bit {eight}, 3 bit {three}");
    assert!(three < rtn, "gptq {three}, rtn {rtn}");
    assert!(sparsegpt < magnitude, "sparsegpt {sparsegpt}, magnitude {magnitude}");
    assert!(joint < rtn, "joint {joint}, 3 bit rtn {rtn}");
}

#[test]
fn with_few_tokens_shrinkage_keeps_more_and_is_reported() {
    let model = model();
    let dense = logits(&model);
    // 384 tokens are few enough that the draw decides much: the mean over six of them.
    let mean = |recipe: &str| {
        let (mut sum, mut last) = (0.0, None);
        for seed in 0..6 {
            let recipe: Recipe = recipe.parse().expect(recipe);
            let calibration = drawn(&model, 3, seed);
            let job = Compress::new(&model).recipe(recipe).calibration(&calibration);
            let (compressed, report) = job.in_memory().expect("compressed");
            (sum, last) = (sum + divergence(&dense, &logits(&compressed)), Some(report));
        }
        (sum / 6.0, last.expect("there are draws"))
    };
    let (without, _) = mean("s=0.5,q=4,group=32,shrinkage=0");
    let (with, report) = mean("s=0.5,q=4,group=32");
    assert!(with < 0.96 * without, "{with} {without}");
    for layer in &report.layers {
        let expected = report.recipe.damping().expect("valid").of(layer.shape[1], layer.tokens);
        assert_eq!(layer.damping, Some(expected), "{}", layer.name);
    }
}

#[test]
fn damping_chosen_on_held_out_text_mends_a_bad_one_and_is_reported() {
    let model = model();
    let dense = logits(&model);
    let run = |recipe: &str| diverging(&model, &dense, recipe, 4); // 512 tokens
    let bad = "s=0.5,q=3,group=32,shrinkage=0,damping=0.001";
    let (without, _) = run(&format!("{bad},held-out=0"));
    for recipe in [bad.to_owned(), format!("{bad},drift=0")] {
        let (with, report) = run(&recipe);
        assert!(with < 0.95 * without, "{recipe}: {with} {without}");
        let factors: Vec<f64> =
            report.layers.iter().map(|layer| layer.damping.expect("there is a Hessian") / 0.001).collect();
        let tried = |factor: &f64| [0.1, 0.3, 1.0, 3.0, 10.0].iter().any(|tried| (factor / tried - 1.0).abs() < 1e-9);
        assert!(factors.iter().all(tried), "{factors:?}");
        assert!(factors.iter().any(|factor| *factor > 1.0), "{factors:?}");
        let may_choose = |name: &str| name.ends_with("o_proj") || name.ends_with("down_proj");
        let by_rule = |layer: &&LayerReport| !may_choose(&layer.name);
        assert!(report.layers.iter().filter(by_rule).all(|layer| layer.damping == Some(0.001)), "{factors:?}");
        assert!(report.layers.iter().all(|layer| layer.tokens == 512), "in the end all tokens are fitted");
    }
}

#[test]
fn correcting_drift_brings_the_model_nearer_to_the_dense_one() {
    let model = model();
    let dense = logits(&model);
    let run = |drift: f64| diverging(&model, &dense, &format!("s=0.5,q=3,group=32,held-out=0,drift={drift}"), 24).0;
    let (without, with) = (run(0.0), run(0.5));
    assert!(with < 0.97 * without, "{with} {without}");
}

#[test]
fn methods_that_need_no_hessian_are_asked_to_undo_drift_all_the_same() {
    let model = model();
    for recipe in [
        "preset=balanced,q=4,group=32,quantizer=rtn",
        "preset=balanced,s=0.5,pruner=wanda",
        "preset=balanced,s=0.5,q=4,group=32,pruner=magnitude,quantizer=rtn",
        "s=0.25,q=4,group=32,damping=500", // three times which is more than damping may be
    ] {
        let report = in_memory(&model, recipe, 16).1;
        assert!(report.layers.iter().all(|layer| layer.relative_output_error.is_finite()), "{recipe}");
    }
}

#[test]
fn with_too_little_text_to_hold_any_out_damping_stays() {
    let model = model();
    let (_, report) = in_memory(&model, "s=0.5,q=4,group=32", 2);
    for layer in &report.layers {
        let rule = report.recipe.damping().expect("valid").of(layer.shape[1], layer.tokens);
        assert_eq!(layer.damping, Some(rule), "{}", layer.name);
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let model = model();
    for recipe in ["s=2:4,q=4,group=64,asymmetric=true,held-out=0", "s=0.5,q=4,group=64", "rate=2.5,embeddings=5"] {
        let runs = [1, 2, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| {
                let (compressed, report) = in_memory(&model, recipe, 12);
                let errors: Vec<f64> = report.layers.iter().map(|layer| layer.relative_output_error).collect();
                (logits(&compressed), errors)
            })
        });
        assert_eq!(runs[0], runs[1]);
        assert_eq!(runs[0], runs[2]);
    }
}

#[test]
fn the_written_checkpoint_is_the_model_in_memory() {
    let model = model();
    let recipe: Recipe = "s=0.5,q=4,group=64".parse().expect("valid");
    let calibration = calibration(&model, 12);
    let directory = tempfile::tempdir().expect("a directory");
    let destination = directory.path().join("out");
    let settings = ExportSettings { float_type: FloatType::F32, max_shard_bytes: 500_000, overwrite: false };
    let job = Compress::new(&model).recipe(recipe).calibration(&calibration).export(settings);
    let done = job.to(&destination, &Dense).expect("compressed");
    assert_eq!(names(directory.path()), ["out"], "nothing else is left");

    let reopened = Model::open(&destination).expect("our own output opens");
    let (compressed, report) = in_memory(&model, "s=0.5,q=4,group=64", 12);
    assert_eq!(logits(&reopened), logits(&compressed));
    assert_eq!(done.compression.measured_sparsity, report.measured_sparsity);
    let zeros: usize = (0..model.block_count())
        .flat_map(|index| reopened.load_block(index).expect("a block").linears().to_vec())
        .map(|linear| linear.weight.iter().filter(|value| **value == 0.0).count())
        .sum();
    assert_eq!(zeros, report.layers.iter().map(|layer| layer.zeros).sum::<usize>());
    for name in ["tokenizer.json", "generation_config.json"] {
        let read = |directory: &Path| std::fs::read(directory.join(name)).expect(name);
        assert_eq!(read(&demo()), read(&destination), "{name}");
    }
    let again = job.to(&destination, &Dense).expect_err("an existing destination is not replaced");
    assert!(again.to_string().contains("out"), "{again}");

    // The kept solution gives the same checkpoint without solving again.
    let solution = sparq_export::Solution::open(destination.join("sparq")).expect("kept");
    assert_eq!(solution.layers().len(), model.linear_names().count());
    let other = directory.path().join("other");
    sparq_export::export(model.checkpoint(), &solution, &Dense, &other, &settings).expect("exported");
    for name in names(&other) {
        assert_eq!(std::fs::read(other.join(&name)).ok(), std::fs::read(destination.join(&name)).ok(), "{name}");
    }
}

/// Names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("listable");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Every file below a directory with its contents.
fn contents(directory: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    for name in names(directory) {
        let path = directory.join(&name);
        if path.is_dir() {
            files.extend(contents(&path).into_iter().map(|(inner, bytes)| (Path::new(&name).join(inner), bytes)));
        } else {
            files.insert(PathBuf::from(name), std::fs::read(path).expect("readable"));
        }
    }
    files
}

#[test]
fn a_stopped_job_continues_to_the_same_bytes() {
    let model = model();
    let calibration = calibration(&model, 8);
    let directory = tempfile::tempdir().expect("a directory");
    for recipe in
        ["s=0.5,q=4,group=64,asymmetric=true,held-out=0", "s=2:4", "s=0.5,q=4,group=64", "rate=3,embeddings=5"]
    {
        let recipe: Recipe = recipe.parse().expect("valid");
        let (whole, pieces) = (directory.path().join("whole"), directory.path().join("pieces"));
        let job = Compress::new(&model).recipe(recipe).calibration(&calibration);
        let uninterrupted = job.to(&whole, &Dense).expect("compressed");
        for done in 1..model.block_count() {
            let stopped = job.clone().stop_after(1).to(&pieces, &Dense).expect_err("stopped");
            assert!(
                matches!(stopped, Error::Stopped { done: blocks, of } if (blocks, of) == (done, model.block_count()))
            );
            assert!(!pieces.exists(), "nothing is there before the end");
        }
        let resumed = job.to(&pieces, &Dense).expect("continued");
        assert_eq!(contents(&whole), contents(&pieces));
        let without_times = |report: &CompressionReport| {
            report
                .layers
                .iter()
                .map(|layer| (layer.name.clone(), layer.zeros, layer.relative_output_error))
                .collect::<Vec<_>>()
        };
        assert_eq!(without_times(&uninterrupted.compression), without_times(&resumed.compression));
        std::fs::remove_dir_all(&whole).expect("removable");
        std::fs::remove_dir_all(&pieces).expect("removable");
    }
}

#[test]
fn an_unfinished_run_with_other_settings_is_refused_and_can_be_discarded() {
    let model = model();
    let (eight, four) = (calibration(&model, 8), calibration(&model, 4));
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out");
    let recipe: Recipe = "s=0.5,q=4,group=64".parse().expect("valid");
    let job = Compress::new(&model).recipe(recipe).calibration(&eight);
    job.clone().stop_after(2).to(&out, &Dense).expect_err("stopped");
    let refused = |recipe: &str, calibration: &Calibration, words: &[&str]| {
        let recipe: Recipe = recipe.parse().expect("valid");
        let error =
            Compress::new(&model).recipe(recipe).calibration(calibration).to(&out, &Dense).expect_err("refused");
        for word in words {
            assert!(error.to_string().contains(word), "{error} should name {word}");
        }
    };
    refused("s=0.25,q=4,group=64", &eight, &["recipe", "s=0.5", "s=0.25", "restart"]);
    refused("s=0.5,q=4,group=64", &four, &["calibration samples", "8", "now 4"]);

    // Damaged state is named, and nothing is built on it.
    let partial = Compress::partial(&out);
    let block = partial.join("sparq/block-00001.safetensors");
    let good = std::fs::read(&block).expect("written");
    let mut bad = good.clone();
    *bad.last_mut().expect("bytes") ^= 1;
    std::fs::write(&block, bad).expect("writable");
    let error = job.to(&out, &Dense).expect_err("damaged").to_string();
    assert!(error.contains("block-00001.safetensors") && error.contains("damaged"), "{error}");
    std::fs::write(&block, good).expect("writable");
    let activations = partial.join("activations-00002.f32");
    std::fs::write(&activations, [0; 4]).expect("writable");
    let error = job.to(&out, &Dense).expect_err("damaged").to_string();
    assert!(error.contains("activations-00002.f32") && error.contains("restart"), "{error}");

    job.clone().restart(true).to(&out, &Dense).expect("from the beginning");
    assert_eq!(names(directory.path()), ["out"]);
}

#[test]
fn a_job_killed_between_its_last_renames_continues() {
    for (format, name) in [(&Dense as &dyn ExportFormat, "out"), (&Gguf::default(), "out.gguf")] {
        continues_after_being_killed_between_its_last_renames(format, name);
    }
}

fn continues_after_being_killed_between_its_last_renames(format: &dyn ExportFormat, name: &str) {
    let model = model();
    let calibration = calibration(&model, 4);
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join(name);
    let recipe: Recipe = "q=4,group=32".parse().expect("valid");
    let job = Compress::new(&model).recipe(recipe.clone()).calibration(&calibration);
    let beside = directory.path().join(format!("{name}.sparq"));
    if !format.is_one_file() {
        std::fs::create_dir(&beside).expect("created"); // nothing of a directory's goes there
    }
    job.to(&out, format).expect("compressed");
    let (expected, left) = (contents(directory.path()), names(directory.path()));

    // The state of a run that had solved everything, as it stood when the solution had moved to its place.
    if out.is_dir() {
        std::fs::remove_dir_all(&out).expect("removable");
    } else {
        std::fs::remove_file(&out).expect("removable");
        let refused = job.to(&out, format).expect_err("what it was made of would be lost").to_string();
        assert!(refused.contains(".sparq"), "{refused}");
        std::fs::remove_dir_all(&beside).expect("removable");
    }
    job.clone().stop_after(3).to(&out, format).expect_err("stopped");
    let partial = Compress::partial(&out);
    let mut sink = sparq_pipeline::SolutionSink::open(
        &partial,
        sparq_pipeline::Fingerprint::new(&model, &recipe, Some(&calibration)).expect("readable"),
        recipe.act_order,
    )
    .expect("opened");
    job.into_sink(&mut sink).expect("solved");
    let solution = sink.finish().expect("whole");
    let checkpoint = partial.join("checkpoint");
    sparq_export::export(model.checkpoint(), &solution, format, &checkpoint, &ExportSettings::default())
        .expect("exported");
    let moved = if checkpoint.is_dir() { checkpoint.join("sparq") } else { beside };
    std::fs::rename(partial.join("sparq"), moved).expect("moved");
    std::fs::create_dir(partial.join(".checkpoint.partial-x")).expect("created");

    job.to(&out, format).expect("finished");
    assert_eq!(contents(directory.path()), expected);
    assert_eq!(names(directory.path()), left);

    // Killed after the last rename: what is left beside the output goes with the next call, which finds the output.
    std::fs::create_dir(&partial).expect("created");
    assert!(job.to(&out, format).is_err());
    assert!(partial.exists(), "only what is known to be a remainder is removed");
}

#[test]
fn strict_turns_fallbacks_into_errors() {
    let model = model();
    let few = Calibration::from_sequences(vec![(1..60).collect()]).expect("tokens");
    let recipe: Recipe = "q=4,group=64".parse().expect("valid");
    let run = |strict| {
        let job = Compress::new(&model).recipe(recipe.clone()).calibration(&few);
        job.strict(strict).into_sink(&mut MemorySink::new())
    };
    let report = run(false).expect("reported, not refused");
    assert_eq!(report.layers_with_fallbacks, model.linear_names().count());
    let error = run(true).expect_err("refused");
    assert!(matches!(error, Error::Strict { .. }) && error.to_string().contains("59 tokens"), "{error}");
}

#[test]
fn targets_choose_and_the_observer_sees_them() {
    #[derive(Default)]
    struct Seen(std::sync::Mutex<(Vec<String>, Vec<String>)>);
    impl Observer for Seen {
        fn progress(&self, done: usize, total: usize, what: &dyn Display) {
            self.0.lock().expect("alone").0.push(format!("{done} of {total} {what}"));
        }
        fn note(&self, what: &dyn Display) {
            self.0.lock().expect("alone").1.push(what.to_string());
        }
    }
    let model = model();
    let targets = Targets { include: vec!["*.mlp.*".into()], ignore: vec!["*.0.*".into()] };
    let recipe = "q=4,group=32,quantizer=rtn".parse::<Recipe>().expect("valid").with_targets(targets);
    let seen = Seen::default();
    let job = Compress::new(&model).recipe(recipe).observer(&seen);
    let (_, report) = job.in_memory().expect("rtn needs no data");
    let (blocks, layers) = (model.block_count(), 3 * (model.block_count() - 1));
    assert_eq!(report.layers.len(), layers);
    let (progress, notes) = &*seen.0.lock().expect("alone");
    let expected = report.layers.iter().enumerate().map(|(index, layer)| format!("{} of {layers} {layer}", index + 1));
    assert_eq!(*progress, expected.collect::<Vec<_>>());
    assert_eq!(*notes, [report.plan.to_string()]);
    let plan = &notes[0];
    assert!(plan.starts_with(&format!("{layers} layers in {blocks} blocks")), "{plan}");
    assert!(plan.contains("0 calibration tokens"), "{plan}");
    assert!(report.plan.peak_bytes > report.plan.block_bytes);
}

#[test]
fn waiting_in_a_file_changes_no_bit() {
    let (model, directory) = (model(), tempfile::tempdir().expect("a directory"));
    let calibration = calibration(&model, 40);
    let recipes = ["s=0.25,q=4,group=32,held-out=0", "s=0.25,q=4,group=32", "s=0.5,q=3,group=32,preset=reference"];
    for recipe in recipes {
        let recipe: Recipe = recipe.parse().expect("a recipe");
        let plain = Compress::new(&model).recipe(recipe).calibration(&calibration);
        let plan = plain.plan().expect("it fits");
        let least = match plan.clone().within(1) {
            Err(Error::MemoryBudget { least, budget: 1 }) => least,
            other => panic!("{other:?}"),
        };
        assert!(least < plan.peak_bytes && plan.clone().within(plan.peak_bytes).expect("fits") == plan);
        let weights = |compression: &Compress<'_>| {
            let mut sink = MemorySink::new();
            compression.into_sink(&mut sink).expect("it works");
            let compressed = sink.into_model(&model).expect("complete");
            let blocks = (0..model.block_count()).map(|index| compressed.block(index).expect("a block"));
            blocks
                .flat_map(|block| block.linears().iter().map(|linear| linear.weight.clone()).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        let expected = weights(&plain);
        for budget in [least, u64::midpoint(least, plan.peak_bytes)] {
            let within = plain.clone().memory_budget(budget).waiting_in(directory.path());
            assert!(within.plan().expect("it fits").resident_bytes.is_some());
            assert_eq!(weights(&within), expected);
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
}

#[test]
fn what_cannot_work_is_refused_before_any_work() {
    let model = model();
    let run = |recipe: &Recipe, calibration: Option<&Calibration>| {
        Compress::new(&model).recipe(recipe.clone()).calibration(calibration).in_memory().expect_err("refused")
    };
    let parse = |text: &str| text.parse::<Recipe>().expect("valid");
    assert!(matches!(run(&parse("q=4"), None), Error::Calibration { .. }));
    let error = run(&parse("s=3:7,q=4"), Some(&calibration(&model, 2)));
    assert!(error.to_string().contains("64 input channels") && error.to_string().contains('7'), "{error}");
    let recipe = parse("q=4").with_targets(Targets { include: vec!["nothing".into()], ignore: vec![] });
    let error = run(&recipe, Some(&calibration(&model, 2)));
    assert!(error.to_string().contains("self_attn"), "{error}");
    let with = |include: &str, ignore: &str| {
        let targets = Targets { include: vec!["*.mlp.*".into(), include.into()], ignore: vec![ignore.into()] };
        let recipe = parse("q=4,quantizer=rtn").with_targets(targets);
        Compress::new(&model).recipe(recipe).plan()
    };
    for (include, ignore, near) in [
        ("*.up_porj", "*.0.*", "up_proj"),
        ("*", "re:.*down_proj", "down_proj"),
        ("*", "*.down_proj,*.up_proj", "down_proj"),
        ("*", "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj;"),
        ("lm_head", "*.0.*", "model.layers.0"),
    ] {
        let error = with(include, ignore).expect_err("a pattern without a layer");
        let (Error::UnmatchedPattern { .. }, said) = (&error, error.to_string()) else { panic!("{error}") };
        assert!(said.contains(near), "{said}");
    }
    // What is never compressed may be left alone by name.
    assert!(with("*", "lm_head").is_ok() && with("*", "*.input_layernorm").is_ok());
    let long = Calibration::from_sequences(vec![vec![1; 513]]).expect("one sequence");
    let error = run(&parse("q=4"), Some(&long)).to_string();
    assert!(error.contains("513") && error.contains("512 positions"), "{error}");
    let json = Calibration::from_text(model.tokenizer().expect("one"), "{\"text\": \"a\"}\n", Sampling::default());
    assert!(json.expect_err("JSON").to_string().contains("JSON"));
    let budget = LayerBudget { sparsity: Sparsity::DENSE, bits: Some(Bits::B4), rate: None };
    let foreign = Allocation::new([("transformer.h.0.attn.c_attn".to_owned(), 100, budget)]);
    let mut untrue = Allocation::new([(model.linear_names().next().expect("one").to_owned(), 100, budget)]);
    untrue.tcr = 0.9;
    for (allocation, part) in [(foreign, "c_attn"), (untrue, "tcr 0.9")] {
        let recipe = parse("q=4").with_allocation(allocation);
        let error = run(&recipe, Some(&calibration(&model, 2))).to_string();
        assert!(error.contains(part), "{error}");
    }
    let tokenizer = model.tokenizer().expect("a tokenizer");
    for (text, samples, length) in [("", 4, 128), ("some text", 0, 128), ("some text", 4, 1)] {
        let drawn = Calibration::from_text(tokenizer, text, Sampling { samples, length, seed: 0 });
        assert!(matches!(drawn, Err(Error::Calibration { .. })));
    }
    let short = Calibration::from_text(tokenizer, "Ann has the ring.", Sampling { samples: 4, length: 128, seed: 0 })
        .expect("one short window");
    assert_eq!(short.sequences().len(), 1);
    assert_eq!(short.sequences()[0][0], 0, "every window begins as the tokenizer begins a text");
}

#[test]
fn activations_that_are_not_finite_are_left_out_and_named() {
    let model = model();
    let mut blocks: Vec<_> = (0..model.block_count()).map(|index| model.load_block(index).expect("a block")).collect();
    let down = blocks[1].linears().iter().position(|linear| linear.name.ends_with("down_proj")).expect("there");
    blocks[1].linear_mut(down).weight.mapv_inplace(|value| value * 1e38); // finite, but what it produces is not
    let broken = model.with_blocks(blocks.into_iter().map(std::sync::Arc::new).collect()).expect("all blocks");
    for recipe in ["s=0.5,q=4,group=64", "s=0.5,pruner=wanda", "s=2:4", "q=4,group=64,quantizer=rtn"] {
        let recipe: Recipe = recipe.parse().expect("valid");
        let mut sink = MemorySink::new();
        let calibration = calibration(&model, 4);
        let job = Compress::new(&broken).recipe(recipe.clone()).calibration(&calibration);
        let report = job.into_sink(&mut sink).expect("reported");
        let compressed = sink.into_model(&broken).expect("all blocks");
        for index in 0..model.block_count() {
            let block = compressed.block(index).expect("resident");
            assert!(
                block.linears().iter().all(|linear| linear.weight.iter().all(|value| value.is_finite())),
                "{recipe}"
            );
        }
        let any = |holds: &dyn Fn(&Fallback) -> bool, blocks: std::ops::Range<usize>| {
            let mut layers = report.layers.iter().filter(|layer| blocks.contains(&layer.block));
            layers.any(|layer| layer.fallbacks.iter().any(holds))
        };
        let skipped = |fallback: &Fallback| matches!(fallback, Fallback::SkippedTokens { .. });
        if recipe.bits.is_some() {
            // Scales beyond half precision are clamped, after which what follows is finite again.
            assert!(any(&|fallback| matches!(fallback, Fallback::ClampedScales { .. }), 1..2), "{recipe}");
        } else {
            assert!(any(&skipped, 2..4), "{recipe}");
        }
        assert!(!any(&skipped, 0..1), "{recipe}");
    }
}
