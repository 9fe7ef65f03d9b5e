use super::*;
use crate::testing::Fake;
use std::fmt::Write as _;
use std::path::Path;

fn numbers(count: usize) -> Task {
    let mut lines = String::new();
    for i in 0..count {
        writeln!(lines, r#"{{"question": "{i}", "answer": "{i}"}}"#).unwrap();
    }
    Task::from_jsonl("numbers", &lines).unwrap()
}

#[test]
fn a_limit_is_a_seeded_subset_in_order() {
    let task = numbers(100);
    let lines = |task: &Task| -> Vec<usize> {
        task.items().iter().map(|item| item.id().strip_prefix("numbers:").unwrap().parse().unwrap()).collect()
    };
    let chosen = lines(&task.clone().limit(20, 3));
    assert_eq!(chosen.len(), 20);
    assert!(chosen.is_sorted_by(|a, b| a < b) && chosen[19] > 50, "{chosen:?}");
    assert_eq!(chosen, lines(&task.clone().limit(20, 3)));
    assert_ne!(chosen, lines(&task.clone().limit(20, 4)));
    assert_eq!(lines(&task.clone().limit(500, 3)).len(), 100);
    assert_eq!(lines(&task.clone().limit(0, 3)).len(), 1);
}

#[test]
fn fingerprints_see_items_definition_and_options() {
    let task = numbers(10);
    let options = TaskOptions::default();
    let mut fingerprints = vec![
        task.fingerprint(&options),
        task.clone().limit(9, 0).fingerprint(&options),
        numbers(11).fingerprint(&options),
        task.fingerprint(&TaskOptions { special_tokens: false, ..options }),
    ];
    let mut definition = task.definition().clone();
    definition.max_new_tokens += 1;
    fingerprints.push(Task { definition, ..task.clone() }.fingerprint(&options));
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 5);
    assert_eq!(task.fingerprint(&options), task.fingerprint(&TaskOptions { batch_tokens: 1, ..options }));
}

#[test]
fn tasks_are_found_by_name_and_path() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let piqa = write("zero-shot/piqa.jsonl", r#"{"query": "Question: q\n", "choices": ["a", "b"], "gold": 0}"#);
    write("copa.jsonl", r#"{"query": "q, so", "choices": ["a", "b"], "gold": 0}"#);
    let by_name = Task::load("piqa", Some(folder.path())).unwrap();
    assert_eq!(by_name.items()[0].prompt(), "Question: q\nAnswer:");
    assert_eq!(Task::load(&piqa, None).unwrap(), by_name);
    assert_eq!(Task::load("copa", Some(folder.path())).unwrap().name(), "copa");
    assert!(matches!(Task::load("piqa", None), Err(Error::NoData { .. })));
    assert!(matches!(Task::load("arc_easy", Some(folder.path())), Err(Error::NoData { .. })));
    assert!(matches!(Task::load("nonsense", Some(folder.path())), Err(Error::UnknownTask { .. })));
    for missing in ["piqa.jsonl", "data/nonsense", "quiz.toml"] {
        assert!(matches!(Task::load(missing, Some(folder.path())), Err(Error::Read { .. })), "{missing}");
    }
    let quiz = write("quiz.toml", "name = 'quiz'\nkind = 'generated'\ndata = ['q.jsonl']\nprompt = '{question}='");
    assert!(matches!(Task::load(&quiz, None), Err(Error::Read { .. })));
    write("q.jsonl", r#"{"question": "1+1", "answer": "2"}"#);
    assert_eq!(Task::load(&quiz, None).unwrap().items()[0].prompt(), "1+1=");
    std::fs::write(folder.path().join("q.jsonl"), [0xff, 0xfe]).unwrap();
    assert!(matches!(Task::load(&quiz, None), Err(Error::Read { .. })));
}

#[test]
fn scores_are_those_of_the_definition() {
    let model = Fake::new(1);
    let text = r#"{"question": "who", "choices": ["someone", "no one at all"], "answer": 0}"#;
    let task = Task::from_jsonl("t", text).unwrap();
    let result = task.evaluate(&model, &TaskOptions::default(), &()).unwrap();
    let item = &result.items[0];
    let sum = |choice: &str| {
        let mut seen: Vec<u32> = std::iter::once(1).chain("Q: who A:".bytes().map(u32::from)).collect();
        let mut sum = 0.0;
        for byte in choice.bytes() {
            sum += model.log_probability(&seen, u32::from(byte));
            seen.push(u32::from(byte));
        }
        sum
    };
    let expected = [sum(" someone"), sum(" no one at all")];
    for (found, expected) in item.log_likelihoods.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    assert_eq!(item.score, f64::from(u8::from(expected[0] > expected[1])));
    assert_eq!(item.score_normalised, Some(f64::from(u8::from(expected[0] / 7.0 > expected[1] / 13.0))));
    assert_eq!((result.chance, result.standard_error), (0.5, None));
}

#[test]
fn models_that_know_nothing_score_at_chance() {
    let mut lines = String::new();
    for i in 0..800 {
        writeln!(lines, r#"{{"question": "{i}?", "choices": ["red", "tan", "sky", "ash"], "answer": {}}}"#, i % 4)
            .unwrap();
    }
    let task = Task::from_jsonl("t", &lines).unwrap();
    let random = task.evaluate(&Fake::new(2), &TaskOptions::default(), &()).unwrap();
    assert!((random.accuracy - 0.25).abs() < 3.0 * random.standard_error.unwrap(), "{}", random.accuracy);
    // Damage that makes all choices equal must not look like knowledge, wherever the right ones stand.
    let flat = Fake { constant: Some(1.0), ..Fake::new(2) };
    let mut definition = task.definition().clone();
    definition.metric = Metric::AccuracyNormalised;
    let flat = Task { definition, ..task }.evaluate(&flat, &TaskOptions::default(), &()).unwrap();
    assert!(flat.items.iter().all(|item| item.score <= 0.5), "{:?}", flat.items[0]);
    let pairs = r#"{"sentence_good": "He is.", "sentence_bad": "He am."}"#;
    let flat_model = Fake { constant: Some(1.0), ..Fake::new(2) };
    let pairs = Task::from_jsonl("t", pairs).unwrap().evaluate(&flat_model, &TaskOptions::default(), &()).unwrap();
    assert_eq!(pairs.accuracy, 0.5);
}

#[test]
fn last_words_must_be_greedy() {
    let model = Fake::new(3);
    let mut seen: Vec<u32> = std::iter::once(1).chain("so the".bytes().map(u32::from)).collect();
    let log_probability = model.log_probability(&seen, u32::from(b' '));
    seen.push(u32::from(b' '));
    let log_probability = log_probability + model.log_probability(&seen, u32::from(b'x'));
    let task = Task::from_jsonl("t", r#"{"context": "so the", "continuation": "x"}"#).unwrap();
    let result = task.evaluate(&model, &TaskOptions::default(), &()).unwrap();
    assert!((result.items[0].log_likelihoods[0] - log_probability).abs() < 1e-4);
    assert_eq!((result.accuracy, result.chance, result.accuracy_normalised()), (0.0, 0.0, None));
}

#[test]
fn built_in_definitions_read_their_files() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.is_dir() {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: ../shared is absent");
        }
        return;
    }
    for (name, items, chance) in [
        ("mmlu-pro", 12022, 0.111),
        ("math", 496, 0.0),
        ("bbh_navigate", 247, 0.5),
        ("bbh_movie_recommendation", 246, 0.2),
        ("bbh_word_sorting", 247, 0.0),
        ("arc_challenge", 1172, 0.25),
        ("arc_easy", 2376, 0.25),
        ("blimp", 8000, 0.5),
        ("copa", 100, 0.5),
        ("gsm8k", 1314, 0.0),
        ("lambada_openai", 5153, 0.0),
        ("openbook_qa", 500, 0.25),
        ("piqa", 1838, 0.5),
        ("winogrande", 1267, 0.5),
    ] {
        if cfg!(not(feature = "math")) && matches!(name, "math" | "gsm8k") {
            let error = Task::load(name, Some(&data)).unwrap_err();
            assert!(matches!(error, Error::MissingFeature { feature: "math", .. }), "{error}");
            continue;
        }
        let task = Task::load(name, Some(&data)).unwrap();
        assert_eq!(task.items().len(), items, "{name}");
        assert!((task.chance() - chance).abs() < 0.06, "{name}: {}", task.chance());
    }
    assert_eq!(TaskDefinition::built_in("gsm8k").unwrap().answer.normalise("so #### 1,018"), "1018");
}

#[test]
fn mathematics_needs_its_feature() {
    let toml = "name = \"sums\"\nkind = \"generated\"\ndata = [\"sums.jsonl\"]\nprompt = \"{question}\"\n\n[answer]\ncompare = \"mathematics\"\n";
    let definition = TaskDefinition::all_from_toml("sums.toml", toml).unwrap().remove(0);
    let record = "{\"question\": \"1/2?\", \"answer\": \"0.5\"}";
    let made = Task::from_texts(definition, &[("sums.jsonl", record)]);
    if cfg!(feature = "math") {
        assert!(made.unwrap().definition().answer.is_right("\\frac12", "0.5"));
    } else {
        let error = made.unwrap_err().to_string();
        assert!(error.contains("`sums` needs the feature `math`"), "{error}");
    }
}
