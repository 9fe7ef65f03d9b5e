//! The example programs as a user runs them.

mod common;

use common::program;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(name: &str, directory: &Path, arguments: &[&str]) -> Option<Output> {
    let output = Command::new(program(name)?).current_dir(directory).args(arguments).output();
    Some(output.expect("the program starts"))
}

fn succeeds(name: &str, directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = run(name, directory, arguments)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {errors}");
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Fails with exit code 1 and one line that holds every one of `words`.
fn fails(name: &str, directory: &Path, arguments: &[&str], words: &[&str]) {
    let Some(output) = run(name, directory, arguments) else { return };
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(1), "{name} {arguments:?}: {errors}");
    assert!(line.starts_with("error: "), "{line}");
    for word in words {
        assert!(line.contains(word), "{line:?} should name {word:?}");
    }
}

/// Fails with exit code 2, for a value that is out of range, with what is needed.
fn refuses_value(name: &str, directory: &Path, arguments: &[&str], needed: &str) {
    let Some(output) = run(name, directory, arguments) else { return };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{name} {arguments:?}: {errors}");
    assert!(errors.contains(needed), "{errors:?} should name {needed:?}");
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn sweep_runs_on_the_demo_model_and_continues() {
    let directory = directory();
    let Some(table) = succeeds("sweep", directory.path(), &["--quick"]) else { return };
    assert!(table.contains("s=0.25,q=4") && table.contains("At TCr 81.25 %"), "{table}");
    let json = std::fs::read_to_string(directory.path().join("sweep-report/results.json")).expect("written");
    let results: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(results["configurations"].as_array().map(Vec::len), Some(2));
    let again = succeeds("sweep", directory.path(), &["--quick", "--json"]).expect("built");
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!(again["configurations"][0]["reused"], Value::Bool(true));
    assert_eq!(again["configurations"][1]["kl"], results["configurations"][1]["kl"]);
    let html = std::fs::read_to_string(directory.path().join("sweep-report/report.html")).expect("written");
    for foreign in ["http:", "https:", "src=", "url(", "@import", "<link"] {
        assert!(!html.contains(foreign), "the report loads nothing from elsewhere: {foreign}");
    }
}

#[test]
fn compress_evaluate_and_generate_work_together() {
    let directory = directory();
    let at = directory.path();
    let arguments =
        ["--samples", "8", "--seq-len", "128", "--sparsity", "2:4", "--bits", "4", "--threads", "1000", "--json"];
    std::fs::create_dir(at.join("compressed")).expect("writable"); // an empty directory is no obstacle
    let Some(report) = succeeds("compress", at, &arguments) else { return };
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["layers"].as_array().map(Vec::len), Some(42));
    assert!(report["measured_sparsity"].as_f64().expect("a number") >= 0.5);
    let evaluate = ["--model", "compressed", "--tasks", "tasks.jsonl", "--json", "evaluation.json"];
    std::fs::write(
        at.join("tasks.jsonl"),
        "{\"question\": \"What is the symbol of oxygen?\", \"choices\": [\"Si\", \"O\"], \"answer\": 1}\n",
    )
    .expect("writable");
    let shown = succeeds("evaluate", at, &evaluate).expect("built");
    assert!(shown.contains("tasks"), "{shown}");
    assert!(at.join("evaluation.json").is_file());
    // What the sweep measures and what is evaluated alone are the same windows.
    let window = |more: &[&str]| succeeds("evaluate", at, &[&["--text-tokens", "4096"], more].concat());
    assert_eq!(window(&[]), window(&["--window", "128"]));
    let text = succeeds("generate", at, &["--model", "compressed", "--max-tokens", "5"]).expect("built");
    assert!(text.starts_with("Q: What is the capital of France? A:"), "{text}");
    succeeds("logits", at, &["--model", "compressed", "--tokens", "0,5,9"]);
    fails("compress", at, &arguments, &["compressed", "exists"]);
}

#[test]
fn inspect_says_what_a_checkpoint_is_and_what_it_is_refused_for() {
    let directory = directory();
    let at = directory.path();
    let Some(shown) = succeeds("inspect", at, &[]) else { return };
    for part in ["llama", "42 linear in 6 blocks", "positions   512", "vocabulary  1024, tokenizer 1024", "for nothing"]
    {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(shown.lines().count() <= 120);
    std::fs::create_dir(at.join("bare")).expect("writable");
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(demo.join(file), at.join("bare").join(file)).expect("copied");
    }
    std::fs::write(at.join("bare/spiece.model"), "").expect("writable");
    let json = succeeds("inspect", at, &["--model", "bare", "--json"]).expect("built");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert!(json["refused"][0].as_str().expect("a reason").contains("SentencePiece"), "{json}");
    assert_eq!(json["bits_per_weight"], 16.0);
    assert_eq!(json["bytes"]["linear layers"]["BF16"]["tensors"], 42);
}

#[test]
fn layer_writes_what_it_promises_and_bits_do_not_depend_on_threads() {
    let directory = directory();
    let run = |threads: &str, output: &str| {
        let arguments = ["--sparsity", "0.5", "--group-size", "64", "--threads", threads, "--json", "--out", output];
        succeeds("layer", directory.path(), &arguments)
    };
    let Some(one) = run("1", "one.safetensors") else { return };
    run("2", "two.safetensors");
    let read = |name: &str| std::fs::read(directory.path().join(name)).expect("written");
    assert_eq!(read("one.safetensors"), read("two.safetensors"));
    let answer: Value = serde_json::from_str(&one).expect("JSON");
    assert_eq!(answer["sparsity"].as_f64().map(|s| (s * 10.0).round()), Some(5.0));
    assert!(answer["relative_output_error"]["heldout"].as_f64().expect("a number") < 0.5);
    let arrays = sparq::tensor::read_safetensors_file(directory.path().join("one.safetensors")).expect("readable");
    let names: Vec<&str> = arrays.keys().map(String::as_str).collect();
    assert_eq!(names, ["codes", "mask", "scales", "weight", "zeros"]);
}

#[test]
fn mistakes_are_one_line_and_leave_nothing() {
    let directory = directory();
    let at = directory.path();
    fails("compress", at, &["--model", "/nonexistent"], &["/nonexistent"]);
    fails("compress", at, &["--sparsity", "1.5"], &["sparsity", "1.5"]);
    fails("compress", at, &["--sparsity", "3:7"], &["64 input channels", "7"]);
    fails("compress", at, &["--bits", "9"], &["bits"]);
    fails("compress", at, &["--calibration", "/dev/null"], &["no tokens"]);
    fails("compress", at, &["--targets", "nothing"], &["self_attn"]);
    fails("compress", at, &["--search-bits", "4,8"], &["--target-tcr"]);
    fails("compress", at, &["--target-size", "10kB"], &["nothing to choose"]);
    let gguf = ["--format", "gguf", "--out", "a.gguf", "--group-size", "64"];
    fails("compress", at, &[&gguf[..], &["--target-size", "10kB"]].concat(), &["10000 bytes", "smallest"]);
    fails("compress", at, &["--format", "gguf", "--out", "a.gguf", "--imatrix", "x"], &["--gguf-type"]);
    fails("layer", at, &["--set", "drift=1"], &["drift", "whole models"]);
    fails("sweep", at, &["--grid", "s=0;q=16"], &["--grid"]);
    fails("sweep", at, &["--search-bits", "4,8", "--quick"], &["--target-tcr"]);
    fails("sweep", at, &["--config", "s=0.2,speed=3"], &["speed"]);
    fails("compress", at, &["--ignore", "*.down_prj"], &["*.down_prj", "mlp.down_proj"]);
    fails("compress", at, &["--group-size", "-1"], &["-1", "channel"]);
    fails("compress", at, &["--sparsity", "-0.1"], &["-0.1", "sparsity"]);
    fails("compress", at, &["--seq-len", "513"], &["513", "512 positions"]);
    fails("evaluate", at, &["--window", "513"], &["513", "512 positions"]);
    refuses_value("compress", at, &["--target-tcr", "81.25"], "0.8125");
    refuses_value("compress", at, &["--target-tcr", "1"], "between 0 and 1");
    refuses_value("compress", at, &["--memory-budget", "-1"], "\"-1\" is out of range");
    refuses_value("sweep", at, &["--target-tcr", "75%"], "0.75");
    refuses_value("evaluate", at, &["--limit", "0"], "at least 1");
    refuses_value("evaluate", at, &["--window", "-1"], "at least 1");
    std::fs::write(at.join("lines.jsonl"), "{\"text\": \"Ann has the ring.\"}\n").expect("writable");
    fails("compress", at, &["--calibration", "lines.jsonl"], &["lines.jsonl", "JSON"]);
    fails("evaluate", at, &["--perplexity", "lines.jsonl"], &["lines.jsonl", "JSON"]);
    std::fs::remove_file(at.join("lines.jsonl")).expect("there");
    fails("evaluate", at, &["--tasks", "nosuch"], &["nosuch", "piqa"]);
    fails("logits", at, &["--tokens", "99999"], &["99999", "1024"]);
    fails("layer", at, &["--sparsity", "0", "--bits", "16"], &["nothing to do"]);
    std::fs::write(at.join("bad.safetensors"), [0xff_u8; 64]).expect("writable");
    fails("layer", at, &["--input", "bad.safetensors"], &["bad.safetensors"]);
    fails("generate", at, &["--model", "bad.safetensors"], &["bad.safetensors"]);
    let left: Vec<_> =
        std::fs::read_dir(at).expect("listable").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["bad.safetensors"]);
}

#[test]
fn a_solution_is_exported_without_solving_again() {
    let directory = directory();
    let at = directory.path();
    let arguments = ["--samples", "4", "--seq-len", "128", "--sparsity", "0.5", "--group-size", "32", "--dtype", "f32"];
    if succeeds("compress", at, &arguments).is_none() {
        return;
    }
    let report = at.join("report.json");
    let mut same = Vec::new();
    for (format, out) in [("gguf", "model.gguf"), ("gptq", "gptq"), ("compressed-tensors", "ct")] {
        let arguments = ["--solution", "compressed", "--format", format, "--dtype", "f32", "--out", out];
        let arguments = [&arguments[..], &["--json", "report.json"]].concat();
        let shown = succeeds("export", at, &arguments).expect("built");
        let report: Value = serde_json::from_slice(&std::fs::read(&report).expect("written")).expect("JSON");
        assert_eq!(report["largest_difference"], 0.0, "{format}");
        assert_eq!(report["zeros_lost"], 0, "{format}");
        let zeros = report["zeros"].as_u64().expect("a number");
        assert!(zeros > 0 && shown.contains(&format!("0.0e0, 0 of {zeros} zeros lost")), "{shown}");
        let logits = format!("{format}.safetensors");
        succeeds("logits", at, &["--model", out, "--tokens", "0,5,9", "--out", &logits]);
        same.push(std::fs::read(at.join(&logits)).expect("written"));
    }
    succeeds("logits", at, &["--model", "compressed", "--tokens", "0,5,9", "--out", "dense.safetensors"]);
    let dense = std::fs::read(at.join("dense.safetensors")).expect("written");
    assert!(same.iter().all(|logits| *logits == dense), "every format gives the same logits");

    let solution = ["--solution", "compressed", "--out"];
    let with = |more: &[&'static str]| [&solution[..], more].concat();
    fails("export", at, &with(&["ct", "--format", "gptq"]), &["ct", "exists"]);
    fails("export", at, &with(&["x", "--format", "gguf"]), &[".gguf"]);
    fails("export", at, &with(&["x", "--gguf-type", "q8_0"]), &["--gguf-type"]);
    fails("export", at, &with(&["x", "--model", "ct"]), &["solved on another model"]);
    fails("export", at, &["--solution", "nowhere", "--out", "x"], &["nowhere", "compress"]);
    // Names on the Hub: without the feature, a word on how to do without.
    fails("logits", at, &["--model", "HuggingFaceTB/SmolLM2-135M"], &["HuggingFaceTB/SmolLM2-135M", "--model path"]);
    assert!(!at.join("x").exists());
}

#[test]
fn a_coded_file_has_the_size_that_was_asked_for_and_is_read_everywhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path();
    let compress = ["--samples", "8", "--format", "coded", "--no-solution", "--target-size", "200kB", "--out", "small"];
    let Some(said) = succeeds("compress", here, &compress) else { return };
    assert!(said.contains("entropy-coded") && said.contains("MCr"), "{said}");
    let size = std::fs::metadata(here.join("small/model.safetensors")).expect("written").len() as f64;
    assert!((size / 200_000.0 - 1.0).abs() < 0.003, "{size}");
    assert!(!here.join("small/sparq").exists());
    let seen = succeeds("inspect", here, &["--model", "small"]).expect("built with the others");
    assert!(seen.contains("codes without a width, entropy-coded"), "{seen}");
    succeeds("generate", here, &["--model", "small", "--prompt", "The", "--max-tokens", "3"]);
    // Its codes are in it: no solution is needed, and no model.
    let dense = ["--solution", "small", "--format", "dense", "--dtype", "f32", "--out", "dense"];
    let said = succeeds("export", here, &dense).expect("built with the others");
    assert!(said.contains("largest difference 0.0e0"), "{said}");
    let gguf = ["--solution", "small", "--format", "gguf", "--out", "no.gguf"];
    fails("export", here, &gguf, &["no fixed width", "coded"]);
    fails(
        "compress",
        here,
        &["--format", "coded", "--target-size", "20kB", "--out", "no"],
        &["cannot be made", "20000"],
    );
}
