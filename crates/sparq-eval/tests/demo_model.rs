//! The demo model, whose scores were measured with transformers (see its README).
#![allow(clippy::unwrap_used)]

use sparq_core::Ranks;
use sparq_eval::{Evaluation, ResultCache, Task, TaskOptions, TextEvaluation, TextSettings};
use sparq_model::{GenerateOptions, Model, Sampler};
use std::path::PathBuf;

fn demo() -> (PathBuf, Model) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model");
    let mut model = Model::open(&path).unwrap();
    model.make_resident().unwrap();
    (path, model)
}

fn task(folder: &std::path::Path, name: &str) -> Task {
    Task::load(folder.join(name).with_extension("jsonl").to_str().unwrap(), None).unwrap()
}

#[test]
fn task_scores_are_those_of_transformers() {
    let (folder, model) = demo();
    for (name, expected, chance) in [("knowledge", 0.730, 0.25), ("reasoning", 0.824, 0.29), ("math", 0.994, 0.0)] {
        let task = task(&folder, name);
        let result = task.evaluate(&model, &TaskOptions::default(), &()).unwrap();
        eprintln!("{name}: {:.4} (chance {:.4}, {} items)", result.accuracy, result.chance, result.items.len());
        assert!((result.accuracy - expected).abs() < 0.0051, "{name}: {}", result.accuracy);
        assert!((result.chance - chance).abs() < 0.1, "{name}: {}", result.chance);
        // Batching changes nothing but rounding.
        let single = TaskOptions { batch_tokens: 1, ..TaskOptions::default() };
        let alone = task.clone().limit(60, 1).evaluate(&model, &single, &()).unwrap();
        for item in &alone.items {
            let batched = result.items.iter().find(|other| other.id == item.id).unwrap();
            assert_eq!((item.score, &item.prediction), (batched.score, &batched.prediction), "{}", item.id);
            for (a, b) in item.log_likelihoods.iter().zip(&batched.log_likelihoods) {
                assert!((a - b).abs() < 1e-4, "{}: {a} {b}", item.id);
            }
        }
    }
}

#[test]
fn a_model_against_itself_loses_nothing() {
    let (folder, model) = demo();
    let text = std::fs::read_to_string(folder.join("heldout.txt")).unwrap();
    let settings = TextSettings { length: 128, token_limit: Some(20_000), ..TextSettings::default() };
    let evaluation = Evaluation::new()
        .with_text(TextEvaluation::from_text(&model, &text, settings).unwrap())
        .with_task(task(&folder, "knowledge").limit(50, 0));
    let baseline = evaluation.baseline(&model, &()).unwrap();
    let report = evaluation.evaluate(&model, Some(&baseline), &()).unwrap();
    let scores = report.text.as_ref().unwrap();
    let comparison = scores.base.as_ref().unwrap();
    eprintln!("perplexity {:.4} over {} tokens", scores.perplexity, scores.tokens);
    assert_eq!((comparison.mean_kl, comparison.top1_agreement, comparison.perplexity_ratio), (0.0, 1.0, 1.0));
    assert_eq!(comparison.base_perplexity, scores.perplexity);
    assert_eq!(baseline.text.as_ref().unwrap().scores().perplexity, scores.perplexity);
    let kept = report.retention.as_ref().unwrap();
    assert_eq!((kept.sr, kept.interval.low, kept.interval.high), (1.0, 1.0, 1.0));
    // Hidden states that were stored give the same baseline back.
    let text = evaluation.text().unwrap();
    let hidden = baseline.text.as_ref().unwrap().hidden().to_owned();
    let restored = text.restore_baseline(&model, hidden).unwrap();
    assert_eq!(restored.scores(), baseline.text.as_ref().unwrap().scores());
    // Strided windows score (nearly) the same tokens in other contexts. This model saw short documents only, and is no
    // better for more context.
    let strided = TextSettings { stride: Some(64), ..settings };
    let strided = TextEvaluation::new(text.tokens().to_vec(), strided).unwrap().evaluate(&model, None, &()).unwrap();
    eprintln!("strided perplexity {:.4} over {} tokens", strided.perplexity, strided.tokens);
    assert!((strided.perplexity / scores.perplexity - 1.0).abs() < 0.2, "{}", strided.perplexity);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (folder, model) = demo();
    let text = std::fs::read_to_string(folder.join("heldout.txt")).unwrap();
    let settings = TextSettings { length: 64, token_limit: Some(3000), ..TextSettings::default() };
    let evaluation = Evaluation::new()
        .with_text(TextEvaluation::from_text(&model, &text, settings).unwrap())
        .with_task(task(&folder, "reasoning").limit(40, 0))
        .with_task(task(&folder, "math").limit(40, 0));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| evaluation.evaluate(&model, None, &()).unwrap())
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn results_do_not_depend_on_the_number_of_processes() {
    let (folder, model) = demo();
    let text = std::fs::read_to_string(folder.join("heldout.txt")).unwrap();
    let settings = TextSettings { length: 64, token_limit: Some(18_000), ..TextSettings::default() };
    let evaluation = Evaluation::new()
        .with_text(TextEvaluation::from_text(&model, &text, settings).unwrap())
        .with_task(task(&folder, "reasoning"))
        .with_task(task(&folder, "math"));
    let directory = tempfile::tempdir().unwrap();
    let run = |ranks: Ranks, cache: &str| {
        let cache = ResultCache::open(&directory.path().join(cache)).unwrap();
        let evaluation = evaluation.clone().with_ranks(ranks);
        // Once measured, once from the cache.
        let baselines = [(); 2].map(|()| evaluation.baseline_cached(&model, "hash", &cache, &()).unwrap());
        let reports = baselines.each_ref().map(|of| evaluation.evaluate(&model, Some(of), &()).unwrap());
        assert_eq!(reports[0], reports[1]);
        let [baseline, _] = baselines;
        let [report, _] = reports;
        (baseline.text.unwrap().hidden().to_owned(), report)
    };
    let alone = run(Ranks::default(), "alone");
    for size in [2, 3] {
        let (run, cache) = (&run, &size.to_string());
        let together: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                Ranks::in_threads(size).into_iter().map(|ranks| scope.spawn(move || run(ranks, cache))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(together.iter().all(|report| *report == alone), "{size} processes");
    }
}

#[test]
fn prompts_beyond_the_positions_are_refused_and_texts_end_there() {
    let (_, model) = demo();
    let long = "Ann has the ring. ".repeat(130);
    for record in [
        format!(r#"{{"question": "{long}", "choices": ["one", "two"], "answer": 0}}"#),
        format!(r#"{{"question": "{long}", "answer": "4"}}"#),
    ] {
        let task = Task::from_jsonl("t", &record).unwrap();
        let error = task.evaluate(&model, &TaskOptions::default(), &()).unwrap_err();
        assert!(error.to_string().contains("512 positions"), "{error}");
    }
    let options = GenerateOptions { max_tokens: 9, stop: Vec::new(), sampler: Sampler::Greedy };
    let prompt = |length: usize| vec![5_u32; length];
    let generate = |length| model.generate(&prompt(length), &options, |_| std::ops::ControlFlow::Continue(()));
    assert_eq!(generate(500).unwrap().len(), 9);
    assert_eq!(generate(510).unwrap().len(), 2);
    assert_eq!(generate(512).unwrap().len(), 0);
    assert!(generate(513).unwrap_err().to_string().contains("512 positions"));
}

#[test]
fn windows_beyond_the_positions_and_json_are_refused() {
    let (folder, model) = demo();
    let text = std::fs::read_to_string(folder.join("heldout.txt")).unwrap();
    let read = |text: &str, length, stride| {
        TextEvaluation::from_text(&model, text, TextSettings { length, stride, ..TextSettings::default() })
    };
    assert!(read(&text, 512, None).is_ok());
    for stride in [None, Some(100)] {
        assert!(read(&text, 513, stride).unwrap_err().to_string().contains("512 positions"));
    }
    // What counts is how long windows are, not how long they may be.
    assert!(read("Ann has the ring.", 1024, Some(100)).is_ok());
    assert!(read("{\"text\": \"Ann has the ring.\"}\n", 4, None).unwrap_err().to_string().contains("JSON"));
    let marked = read("\u{feff}Ann has the ring.", 4, None).unwrap();
    assert_eq!(marked.tokens(), read("Ann has the ring.", 4, None).unwrap().tokens());
}
