use super::*;
use crate::TextSettings;
use crate::testing::Fake;
use std::fmt::Write as _;
use std::sync::Mutex;

/// Multiple choice whose right answers are those the model of seed 1 prefers, but for every eighth.
fn task() -> Task {
    let mut lines = String::new();
    let line = |lines: &mut String, i: usize, answer: usize| {
        let choices = r#"["red", "tan", "sky", "ash"]"#;
        writeln!(lines, r#"{{"question": "{i}", "choices": {choices}, "answer": {answer}}}"#).unwrap();
    };
    for i in 0..80 {
        line(&mut lines, i, 0);
    }
    let probe = Task::from_jsonl("known", &lines).unwrap();
    let result = probe.evaluate(&Fake::new(1), &TaskOptions::default(), &()).unwrap();
    lines.clear();
    for (i, item) in result.items.iter().enumerate() {
        let best = item.log_likelihoods.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let best = item.log_likelihoods.iter().position(|score| *score == best).unwrap();
        line(&mut lines, i, if i % 8 == 0 { (best + 1) % 4 } else { best });
    }
    Task::from_jsonl("known", &lines).unwrap()
}

fn text() -> TextEvaluation {
    let tokens = (0..400_u32).map(|i| i * i % 128).collect();
    TextEvaluation::new(tokens, TextSettings { length: 40, ..TextSettings::default() }).unwrap()
}

#[test]
fn a_report_holds_everything() {
    let (base, other) = (Fake::new(1), Fake::new(9));
    let evaluation = Evaluation::new().with_text(text()).with_task(task());
    let baseline = evaluation.baseline(&base, &()).unwrap();
    assert_eq!(baseline.tasks[0].accuracy, 0.875);
    let same = evaluation.evaluate(&base, Some(&baseline), &()).unwrap();
    assert_eq!(same.retention.as_ref().unwrap().sr, 1.0);
    let report = evaluation.evaluate(&other, Some(&baseline), &()).unwrap();
    let kept = report.retention.as_ref().unwrap();
    assert!(kept.sr < 0.3, "a model that knows nothing keeps nothing: {}", kept.sr);
    assert!(report.text.as_ref().unwrap().base.as_ref().unwrap().mean_kl > 0.1);
    assert_eq!(report.fingerprint, evaluation.fingerprint());
    let json = serde_json::to_string(&report).unwrap();
    let back: EvaluationReport = serde_json::from_str(&json).unwrap();
    assert_eq!(back.tasks[0].items, report.tasks[0].items);
    let alone = evaluation.baseline_report(&baseline);
    assert_eq!((alone.tasks, alone.retention), (baseline.tasks.clone(), None));
    let difference = sparq_metric::retention_difference(
        &paired_scores(&baseline.tasks, &same.tasks).unwrap(),
        &paired_scores(&baseline.tasks, &report.tasks).unwrap(),
        evaluation.bootstrap(),
    );
    assert!(difference.unwrap().first_wins());
}

#[test]
fn tasks_the_base_cannot_do_are_reported_not_scored() {
    let evaluation = Evaluation::new().with_task(task());
    let ignorant = Fake::new(9);
    let baseline = evaluation.baseline(&ignorant, &()).unwrap();
    let report = evaluation.evaluate(&Fake::new(1), Some(&baseline), &()).unwrap();
    assert!(report.retention.is_none());
    let missing = report.retention_missing.unwrap();
    assert!(missing.contains("no task is left") && missing.contains("`known`"), "{missing}");
    assert_eq!(report.tasks.len(), 1);
}

#[test]
fn results_of_other_items_are_not_paired() {
    let model = Fake::new(1);
    let evaluation = Evaluation::new().with_task(task());
    let fewer = Evaluation::new().with_task(task().limit(20, 0));
    let baseline = fewer.baseline(&model, &()).unwrap();
    assert!(matches!(evaluation.evaluate(&model, Some(&baseline), &()), Err(Error::NotPaired { .. })));
    let none = Baseline { text: None, tasks: vec![] };
    assert!(matches!(evaluation.evaluate(&model, Some(&none), &()), Err(Error::NotPaired { .. })));
    assert_ne!(evaluation.fingerprint(), fewer.fingerprint());
}

struct Log(Mutex<Vec<(usize, usize, String)>>);

impl Observer for Log {
    fn progress(&self, done: usize, total: usize, what: &dyn std::fmt::Display) {
        self.0.lock().unwrap().push((done, total, what.to_string()));
    }
}

#[test]
fn observers_see_both_parts_reach_their_end() {
    let log = Log(Mutex::default());
    let options = TaskOptions { batch_tokens: 100, ..TaskOptions::default() };
    let evaluation = Evaluation::new().with_text(text()).with_task(task()).with_options(options);
    evaluation.evaluate(&Fake::new(1), None, &log).unwrap();
    let seen = log.0.into_inner().unwrap();
    assert_eq!(seen.first().unwrap(), &(390, 390, "text".to_owned()));
    assert_eq!(seen.last().unwrap(), &(80, 80, "known".to_owned()));
    assert!(seen.len() > 5 && seen[1..].is_sorted_by_key(|(done, _, _)| *done));
}
