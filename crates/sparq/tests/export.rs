//! Every format end to end on the demo model: solve, export, open again, same logits.

use ndarray::Array2;
use sparq::export::{
    Coded, CodedLayers, CompressedTensors, Dense, Error, ExportFormat, ExportReport, ExportSettings, FloatType, Gguf,
    GgufTypes, GptqCheckpoint, SolvedInMemory, SolvedLayers, export,
};
use sparq::model::Precision;
use sparq::pipeline::{Allocation, LayerBudget, Sink};
use sparq::tensor::{Checkpoint, DType, Importance, Packing};
use sparq::{Calibration, Compress, CompressedLayer, Model, Recipe, Sampling, ScaleType};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model")
}

/// Keeps compressed layers and blocks.
#[derive(Default)]
struct Keep {
    layers: SolvedInMemory,
    blocks: Vec<Arc<sparq::model::Block>>,
    vocabulary: Option<Model>,
}

impl Sink for Keep {
    fn layer(&mut self, linear: &sparq::model::Linear, layer: &CompressedLayer) -> Result<(), sparq::pipeline::Error> {
        self.layers.push(linear.name.clone(), layer.clone()).map_err(sparq::pipeline::Error::Export)
    }

    fn vocabulary(&mut self, model: &Model) -> Result<(), sparq::pipeline::Error> {
        self.vocabulary = Some(model.clone());
        Ok(())
    }

    fn block(&mut self, block: sparq::model::Block) -> Result<(), sparq::pipeline::Error> {
        self.blocks.push(Arc::new(block));
        Ok(())
    }
}

struct Solved {
    model: Model,
    layers: SolvedInMemory,
    /// The compressed model in memory.
    compressed: Model,
    report: sparq::CompressionReport,
}

fn solve(recipe: &str, change: impl FnOnce(&mut Recipe)) -> Solved {
    let model = Model::open(demo()).expect("the demo model opens");
    let text = std::fs::read_to_string(demo().join("calibration.txt")).expect("the demo calibration text");
    let calibration = Calibration::from_text(
        model.tokenizer().expect("a tokenizer"),
        &text,
        Sampling { samples: 4, length: 128, seed: 7 },
    )
    .expect("text");
    let mut recipe: Recipe = recipe.parse().expect(recipe);
    change(&mut recipe);
    let mut keep = Keep::default();
    let job = Compress::new(&model).recipe(recipe).calibration(&calibration);
    let report = job.into_sink(&mut keep).expect("compressed");
    let compressed = keep.vocabulary.as_ref().unwrap_or(&model).with_blocks(keep.blocks).expect("all blocks");
    Solved { model, layers: keep.layers, compressed, report }
}

const TOKENS: [u32; 12] = [0, 5, 9, 300, 41, 7, 512, 77, 900, 12, 13, 1];

fn logits(model: &Model) -> Array2<f32> {
    model.logits(model.hidden(&[&TOKENS]).expect("hidden states").view()).expect("logits")
}

/// Those of the first token alone, whose products are others than those of many tokens.
fn first_logits(model: &Model) -> Array2<f32> {
    model.logits(model.hidden(&[&TOKENS[..1]]).expect("hidden states").view()).expect("logits")
}

/// Largest difference, relative to the largest logit.
fn relative_difference(a: &Array2<f32>, b: &Array2<f32>) -> f32 {
    let largest = b.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    a.iter().zip(b).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

impl Solved {
    fn source(&self) -> &Checkpoint {
        self.model.checkpoint()
    }

    fn export(&self, format: &dyn ExportFormat, float_type: FloatType) -> (ExportReport, Model, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let is_gguf = format.name().starts_with("gguf");
        let path = directory.path().join(if is_gguf { "out.gguf" } else { "out" });
        let settings = ExportSettings { float_type, ..ExportSettings::default() };
        let report = export(self.source(), &self.layers, format, &path, &settings).expect("exported");
        assert_eq!(report.layers.len(), self.report.layers.len());
        let model = Model::open(&path).expect("opens");
        let mut stored = model.clone();
        stored.run_as_stored().expect("ready");
        assert!(relative_difference(&logits(&stored), &logits(&model)) < 1e-6, "{}", format.name());
        for precision in [Precision::F32, Precision::Int8] {
            let [stored, model] = [&stored, &model].map(|model| first_logits(&model.clone().with_precision(precision)));
            assert!(relative_difference(&stored, &model) < 1e-5, "{}, {precision:?}", format.name());
        }
        (report, model, directory)
    }

    fn refusal(&self, format: &dyn ExportFormat, settings: ExportSettings) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out");
        let error = export(self.source(), &self.layers, format, &path, &settings).expect_err("impossible");
        assert!(matches!(error, Error::Unfit { .. }), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).expect("listable").count(), 0, "nothing is left");
        error.to_string()
    }
}

#[test]
fn symmetric_four_bits_go_into_every_format() {
    let solved = solve("s=0.5,q=4,group=32", |_| {});
    let expected = logits(&solved.compressed);
    let formats: [&dyn ExportFormat; 5] =
        [&Dense, &Coded, &CompressedTensors::default(), &GptqCheckpoint, &Gguf::default()];
    for format in formats {
        let (report, model, _directory) = solved.export(format, FloatType::F32);
        assert_eq!((report.largest_difference, report.zeros_lost), (0.0, 0), "{}", report.format);
        assert!(report.zeros as f64 >= 0.5 * report.layer_weights as f64);
        assert_eq!(logits(&model), expected, "{}: the same bits", report.format);
        let bits = report.bits_per_weight();
        match report.format.as_str() {
            "dense" => assert_eq!(bits, 32.0),
            "gguf" => assert_eq!(bits, 4.5),
            // Half of the codes are zero: 3.4 bits a code instead of 4, scales of 16 bits for 32 of them.
            "coded" => assert!((3.3..4.2).contains(&bits), "{bits}"),
            "gptq" => assert!((4.5..5.1).contains(&bits), "{bits}"), // a group index for each channel
            _ => assert!((5.0..5.1).contains(&bits), "{bits}"),      // scales of an F32 checkpoint
        }
        if report.format == "gptq" {
            let info = model.checkpoint().get("model.layers.0.mlp.up_proj.weight").expect("there");
            assert_eq!(info.packing, Some(Packing::Gptq { bits: 4 }));
        }
        let tokenizer = model.tokenizer().expect("a tokenizer");
        let text = "What is the capital of France? It is 42!\n  Yes";
        let ours = solved.model.tokenizer().expect("a tokenizer");
        assert_eq!(tokenizer.encode(text, true).expect("tokens"), ours.encode(text, true).expect("tokens"));
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (ours.bos(), ours.eos()));
    }
    // In half precision the format itself rounds products; logits stay close.
    let (report, model, _directory) = solved.export(&CompressedTensors::default(), FloatType::Source);
    assert!(report.largest_difference > 0.0 && report.largest_difference < 1e-3);
    assert_eq!(report.zeros_lost, 0);
    assert!(relative_difference(&logits(&model), &expected) < 1e-2);
}

#[test]
fn asymmetric_grids_and_other_widths() {
    let solved = solve("s=0.25,q=4,group=64", |recipe| {
        recipe.asymmetric = true;
    });
    let expected = logits(&solved.compressed);
    for format in [&CompressedTensors::default() as &dyn ExportFormat, &GptqCheckpoint] {
        let (report, model, _directory) = solved.export(format, FloatType::F32);
        assert_eq!((report.largest_difference, report.zeros_lost), (0.0, 0), "{}", report.format);
        assert_eq!(logits(&model), expected, "{}", report.format);
    }
    let (report, model, _directory) = solved.export(&Gguf::default(), FloatType::F32);
    assert!(report.zeros_lost > 0, "Q4_1 has no exact zero, and the report says so");
    assert!(report.engines.contains("zeros lost"));
    assert!(relative_difference(&logits(&model), &expected) < 1e-2);

    let three = solve("s=0,q=3,group=32", |_| {});
    let expected = logits(&three.compressed);
    let any_width = CompressedTensors { any_width: true };
    for format in [&GptqCheckpoint as &dyn ExportFormat, &any_width] {
        let (report, model, _directory) = three.export(format, FloatType::F32);
        assert_eq!(report.largest_difference, 0.0, "{}", report.format);
        assert_eq!(logits(&model), expected, "{}", report.format);
    }
    let settings = ExportSettings::default();
    let message = three.refusal(&Gguf::default(), settings);
    assert!(message.contains("3 bits") && message.contains("gptq"), "{message}");
    let message = three.refusal(&CompressedTensors::default(), settings);
    assert!(message.contains("0.18") && message.contains("gptq"), "{message}");
}

#[test]
fn eight_bits_by_channel_and_bfloat16() {
    let solved = solve("s=0,q=8,group=channel", |recipe| {
        recipe.scale_type = ScaleType::Bf16;
    });
    let expected = logits(&solved.compressed);
    let (report, model, _directory) = solved.export(&CompressedTensors::default(), FloatType::Source);
    assert_eq!(report.zeros_lost, 0);
    assert!((8.0..8.3).contains(&report.bits_per_weight()));
    assert!(relative_difference(&logits(&model), &expected) < 2e-2);
    let message = solved.refusal(&GptqCheckpoint, ExportSettings::default());
    assert!(message.contains("half precision") && message.contains("f16"), "{message}");
    let f16 = ExportSettings { float_type: FloatType::F16, ..ExportSettings::default() };
    let message = solved.refusal(&CompressedTensors::default(), f16);
    assert!(message.contains("scales"), "{message}");
    assert!(solved.refusal(&Gguf::default(), f16).contains("half precision"));
}

#[test]
fn what_does_not_divide_is_refused_with_what_does() {
    let solved = solve("s=0,q=4,group=48", |_| {});
    let settings = ExportSettings::default();
    for format in [&CompressedTensors::default() as &dyn ExportFormat, &GptqCheckpoint] {
        let message = solved.refusal(format, settings);
        assert!(message.contains("64 input channels") && message.contains("groups of 32"), "{message}");
    }
    assert!(solved.refusal(&Gguf::default(), settings).contains("groups of 48"));
    let pruned = solve("s=0.5,q=16", |_| {});
    let message = pruned.refusal(&CompressedTensors::default(), settings);
    assert!(message.contains("no layer is quantized") && message.contains("dense"), "{message}");
    let (report, model, _directory) = pruned.export(&Gguf::default(), FloatType::F32);
    assert_eq!((report.largest_difference, report.zeros_lost), (0.0, 0));
    assert_eq!(logits(&model), logits(&pruned.compressed));
}

#[test]
fn gguf_types_that_choose_codes_anew() {
    let solved = solve("s=0,q=16,pruner=magnitude", |recipe| recipe.bits = None);
    let dense = logits(&solved.model);
    let mut last = 0.0;
    for (types, bound) in [
        (GgufTypes::All(DType::F16), 2e-3),
        (GgufTypes::All(DType::Q8_0), 3e-2),
        (GgufTypes::All(DType::Q6_K), 1e-1),
        (GgufTypes::Q4KM, 0.5),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out.gguf");
        let importance = Importance { tensor: "blk.0.ffn_down.weight".into(), sums: vec![1.0; 192], tokens: 8 };
        let format = Gguf::new(types).importance([importance]);
        let none = SolvedInMemory::default();
        export(solved.source(), &none, &format, &path, &ExportSettings::default()).expect("exported");
        let difference = relative_difference(&logits(&Model::open(&path).expect("opens")), &dense);
        assert!(difference < bound && difference >= last, "{types:?}: {difference}");
        last = difference;
    }
}

#[test]
fn embeddings_take_eight_bits_beside_exact_codes_in_gguf() {
    let solved = solve("s=0,q=4,group=32", |_| {});
    let expected = logits(&solved.compressed);
    let embedding = |gguf: &Gguf, float_type| {
        let (report, model, _directory) = solved.export(gguf, float_type);
        let checkpoint = model.checkpoint();
        let name = "model.embed_tokens.weight";
        let dtype = checkpoint.get(name).expect("an embedding").dtype;
        (dtype, report.stored_bytes, relative_difference(&logits(&model), &expected))
    };
    let usual = embedding(&Gguf::default(), FloatType::Source);
    let whole = embedding(&Gguf::default(), FloatType::F16);
    let small = embedding(&Gguf::default().vocabulary(DType::Q4_0), FloatType::Source);
    assert_eq!([usual.0, whole.0, small.0], [DType::Q8_0, DType::F16, DType::Q4_0]);
    assert!(small.1 < usual.1 && usual.1 < whole.1);
    assert!(whole.2 < usual.2 && usual.2 < 3e-2 && usual.2 < small.2, "{whole:?} {usual:?} {small:?}");
    let refused = solved.refusal(&Gguf::default().vocabulary(DType::Q2_K), ExportSettings::default());
    assert!(refused.contains("no encoder"), "{refused}");
}

#[test]
fn exported_checkpoints_are_sources_too() {
    let solved = solve("s=0,q=4,group=32", |_| {});
    let (_, quantized, _directory) = solved.export(&CompressedTensors::default(), FloatType::F32);
    let nothing = SolvedInMemory::default();
    let out = tempfile::tempdir().expect("a directory");
    let path = out.path().join("dense");
    export(quantized.checkpoint(), &nothing, &Dense, &path, &ExportSettings::default()).expect("exported");
    let dense = Model::open(&path).expect("opens");
    assert!(dense.checkpoint().tensors().all(|tensor| tensor.packing.is_none()));
    assert_eq!(logits(&dense), logits(&solved.compressed));
    let config = std::fs::read_to_string(path.join("config.json")).expect("written");
    assert!(!config.contains("quantization_config"));
    // And a GGUF file of a GGUF file: metadata and blocks as they were.
    let (_, gguf, _directory) = solved.export(&Gguf::default(), FloatType::F16);
    let path = out.path().join("again.gguf");
    export(gguf.checkpoint(), &nothing, &Gguf::default(), &path, &ExportSettings::default()).expect("exported");
    let again = Model::open(&path).expect("opens");
    assert_eq!(logits(&again), logits(&gguf));
    assert_eq!(
        again.checkpoint().tokenizer_json().expect("readable"),
        gguf.checkpoint().tokenizer_json().expect("readable")
    );
}

/// A format whose reader is promised other values than it writes.
#[derive(Debug)]
struct Lying;

impl ExportFormat for Lying {
    fn name(&self) -> std::borrow::Cow<'static, str> {
        "lying".into()
    }

    fn check(&self, _: &sparq::export::ExportContext<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn planned_size(&self, context: &sparq::export::ExportContext<'_>) -> Result<sparq::tensor::PlannedSize, Error> {
        Dense.planned_size(context)
    }

    fn stage(
        &self,
        context: &sparq::export::ExportContext<'_>,
        solved: &dyn sparq::export::SolvedLayers,
        destination: &Path,
    ) -> Result<sparq::tensor::StagedCheckpoint, Error> {
        Dense.stage(context, solved, destination)
    }

    fn expected(
        &self,
        context: &sparq::export::ExportContext<'_>,
        tensor: &sparq::export::ExportTensor<'_>,
    ) -> Result<ndarray::ArrayD<f32>, Error> {
        let mut values = Dense.expected(context, tensor)?;
        if let Some(last) = values.iter_mut().last() {
            *last += 1.0;
        }
        Ok(values)
    }

    fn engines(&self, _: &sparq::export::ExportContext<'_>) -> String {
        String::new()
    }
}

#[test]
fn a_mismatch_fails_and_leaves_nothing() {
    let model = Model::open(demo()).expect("the demo model opens");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("out");
    let nothing = SolvedInMemory::default();
    let error = export(model.checkpoint(), &nothing, &Lying, &path, &ExportSettings::default()).expect_err("a lie");
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("listable").count(), 0);
}

/// A copy of the demo model that may be written over.
fn copy_of_demo(directory: &Path) -> PathBuf {
    let copy = directory.join("model");
    std::fs::create_dir(&copy).expect("creatable");
    for entry in std::fs::read_dir(demo()).expect("listable") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
    copy
}

#[test]
fn what_is_read_from_is_not_overwritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = copy_of_demo(directory.path());
    let model = Model::open(&source).expect("the copy opens");
    let settings = ExportSettings { overwrite: true, ..ExportSettings::default() };
    let refused = |error: &dyn std::fmt::Display| assert!(error.to_string().contains("is read from"), "{error}");
    let nothing = SolvedInMemory::default();
    refused(&export(model.checkpoint(), &nothing, &Dense, &source, &settings).expect_err("in use"));
    let recipe: Recipe = "s=0,q=4,preset=fast".parse().expect("valid");
    refused(&Compress::new(&model).recipe(recipe).export(settings).to(&source, &Dense).expect_err("in use"));
    assert!(Model::open(&source).is_ok(), "still there");
}

#[test]
fn an_old_solution_is_not_taken_for_that_of_a_new_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = Model::open(demo()).expect("the demo model opens");
    let (out, beside) = (directory.path().join("m.gguf"), directory.path().join("m.gguf.sparq"));
    let recipe: Recipe = "s=0,q=4,group=64,quantizer=rtn,preset=reference".parse().expect("valid");
    let settings = ExportSettings { overwrite: true, ..ExportSettings::default() };
    let run = |keep: bool| {
        let job = Compress::new(&model).recipe(recipe.clone()).export(settings).keep_solution(keep);
        job.to(&out, &Gguf::default()).expect("runs");
    };
    run(true);
    assert!(beside.is_dir());
    run(false);
    assert!(out.is_file() && !beside.exists());
}

#[test]
fn gptq_names_what_engines_run_as_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = Model::open(demo()).expect("the demo model opens");
    let recipe: Recipe = "s=0,q=4,group=64,quantizer=rtn,preset=reference".parse().expect("valid");
    let bits = |name: &str| if name.contains("layers.0.self_attn") && !name.contains("o_proj") { 8 } else { 4 };
    let budget = |bits| LayerBudget { sparsity: sparq::Sparsity::DENSE, bits: sparq::Bits::new(bits).ok(), rate: None };
    let mut layers = Vec::new();
    for index in 0..model.block_count() {
        let linears = model.block_plan(index).expect("a plan").linears();
        layers.extend(linears.iter().map(|linear| (linear.name.clone(), linear.weights(), budget(bits(&linear.name)))));
    }
    let recipe = recipe.with_allocation(Allocation::new(layers));
    let out = directory.path().join("mixed");
    Compress::new(&model).recipe(recipe).to(&out, &GptqCheckpoint).expect("runs");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("config.json")).expect("readable")).expect("JSON");
    let dynamic = config["quantization_config"]["dynamic"].as_object().expect("exceptions");
    let names: Vec<&str> = dynamic.keys().filter_map(|rule| rule.rsplit('.').next()).collect();
    assert_eq!(names, ["k_proj$", "q_proj$", "qkv_proj$", "v_proj$"]);
    assert!(dynamic.values().all(|rule| rule["bits"] == 8));
}

#[test]
fn codes_at_a_rate_go_into_the_coded_format_without_loss() {
    let solved = solve("rate=3,embeddings=5", |_| {});
    let expected = logits(&solved.compressed);
    let (report, model, _directory) = solved.export(&Coded, FloatType::F32);
    assert_eq!((report.largest_difference, report.zeros_lost, report.layers.len()), (0.0, 0, 42 + 1));
    assert_eq!(logits(&model), expected, "the same bits");
    // What was asked for, what the report says, and what the file takes.
    let said = &solved.report;
    assert!((said.coded_bits_per_weight / 3.0 - 1.0).abs() < 0.004, "{}", said.coded_bits_per_weight);
    let (mut claimed, mut taken) = (0.0, 0.0);
    for layer in &said.layers {
        claimed += layer.coded_bits_per_weight * layer.weights as f64;
        let info = model.checkpoint().get(&format!("{}.weight", layer.name)).expect("there");
        assert_eq!(info.packing, Some(Packing::Coded { bits: None }));
        taken += 8.0 * info.bytes as f64;
        if layer.name.ends_with("embed_tokens") {
            assert!((layer.coded_bits_per_weight / 5.0 - 1.0).abs() < 0.02, "{layer}");
        }
    }
    assert!((taken / claimed - 1.0).abs() < 0.005, "{taken} {claimed}");
    let (report, model, _directory) = solved.export(&Dense, FloatType::F32);
    assert_eq!((report.largest_difference, logits(&model)), (0.0, expected));
    let other: [&dyn ExportFormat; 3] = [&CompressedTensors::default(), &GptqCheckpoint, &Gguf::default()];
    for format in other {
        let message = solved.refusal(format, ExportSettings::default());
        assert!(message.contains("no fixed width") && message.contains("coded"), "{message}");
    }
    let (_, model, _directory) = solved.export(&Gguf::new(GgufTypes::All(DType::Q8_0)), FloatType::Source);
    assert!(relative_difference(&logits(&model), &logits(&solved.compressed)) < 0.05);
}

#[test]
fn asymmetric_and_whole_row_grids_keep_their_codes_when_coded() {
    for recipe in ["s=0.25,q=3,group=32,asymmetric=true", "s=0,q=4,group=channel", "rate=3", "s=0.5,q=16"] {
        let solved = solve(recipe, |_| {});
        let (report, model, directory) = solved.export(&Coded, FloatType::F32);
        assert_eq!((report.largest_difference, report.zeros_lost), (0.0, 0), "{recipe}");
        assert_eq!(logits(&model), logits(&solved.compressed), "{recipe}");
        // The file alone is a source of what it was made of.
        let layers = CodedLayers::new(model.checkpoint()).expect("readable");
        assert_eq!(layers.is_some(), recipe != "s=0.5,q=16");
        let Some(layers) = layers else { continue };
        for shape in layers.layers() {
            let (found, expected) = (layers.layer(&shape.name), solved.layers.layer(&shape.name));
            assert_eq!(found.expect("codes").codes, expected.expect("codes").codes, "{recipe}: {}", shape.name);
        }
        let again = directory.path().join("again");
        let format: &dyn ExportFormat = if recipe == "rate=3" { &Dense } else { &GptqCheckpoint };
        let settings = ExportSettings { float_type: FloatType::F32, ..ExportSettings::default() };
        export(model.checkpoint(), &layers, format, &again, &settings).expect("exported");
        assert_eq!(logits(&Model::open(&again).expect("opens")), logits(&solved.compressed), "{recipe}");
    }
}

#[test]
fn more_bits_are_nearer_to_the_dense_model() {
    let distance = |recipe: &str| {
        let solved = solve(recipe, |_| {});
        relative_difference(&logits(&solved.compressed), &logits(&solved.model))
    };
    let (two, three, four) = (distance("rate=2.2"), distance("rate=3.2"), distance("rate=4.2"));
    assert!(four < three && three < two, "{four} {three} {two}");
}
