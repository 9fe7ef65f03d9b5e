use super::*;
use crate::TextSettings;
use crate::testing::Fake;
use sparq_metric::Bootstrap;

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * i * 31 + i * 7) % 128).collect()
}

fn settings(length: usize, stride: Option<usize>) -> TextSettings {
    TextSettings { length, stride, ..TextSettings::default() }
}

#[test]
fn agrees_with_a_token_by_token_computation() {
    let (base, other) = (Fake::new(1), Fake::new(2));
    for (length, stride) in [(50, None), (50, Some(20)), (300, Some(299))] {
        let evaluation = TextEvaluation::new(tokens(777), settings(length, stride)).unwrap();
        let baseline = evaluation.baseline(&base, &()).unwrap();
        let scores = evaluation.evaluate(&other, Some(&baseline), &()).unwrap();
        let (mut nll, mut base_nll, mut kl, mut agreements, mut count) = (0.0, 0.0, 0.0, 0.0, 0);
        for window in evaluation.windows() {
            for at in window.first_scored..window.end {
                let seen = &evaluation.tokens()[window.start..at];
                let token = evaluation.tokens()[at];
                nll -= other.log_probability(seen, token);
                base_nll -= base.log_probability(seen, token);
                for token in 0..128 {
                    let p = base.log_probability(seen, token);
                    kl += p.exp() * (p - other.log_probability(seen, token));
                }
                agreements += f64::from(u8::from(base.best(seen) == other.best(seen)));
                count += 1;
            }
        }
        let comparison = scores.base.as_ref().unwrap();
        assert_eq!((scores.tokens, evaluation.tokens_scored()), (count, count));
        let count = count as f64;
        for (found, expected) in [
            (scores.mean_nll, nll / count),
            (scores.perplexity, (nll / count).exp()),
            (comparison.base_mean_nll, base_nll / count),
            (comparison.mean_kl, kl / count),
            (comparison.top1_agreement, agreements / count),
            (comparison.perplexity_ratio, ((nll - base_nll) / count).exp()),
        ] {
            assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "{found} {expected}");
        }
        assert_eq!(baseline.scores().mean_nll, comparison.base_mean_nll);
    }
}

#[test]
fn without_memory_the_windows_do_not_matter() {
    // With one token of context, the only difference is which tokens are scored.
    let model = Fake { memory: 1, ..Fake::new(3) };
    let text = tokens(500);
    let nll = |settings| {
        let scores = TextEvaluation::new(text.clone(), settings).unwrap().evaluate(&model, None, &()).unwrap();
        (scores.mean_nll * scores.tokens as f64, scores.tokens)
    };
    let (strided, whole) = (nll(settings(40, Some(10))), nll(settings(50, None)));
    assert_eq!((strided.1, whole.1), (499, 490));
    let unscored: f64 = (50..500).step_by(50).map(|at| -model.log_probability(&text[at - 1..at], text[at])).sum();
    assert!((strided.0 - whole.0 - unscored).abs() < 1e-4, "{strided:?} {whole:?} {unscored}");
}

#[test]
fn a_model_against_itself_is_exactly_the_same() {
    let model = Fake::new(4);
    let evaluation = TextEvaluation::new(tokens(2000), settings(100, None)).unwrap();
    let baseline = evaluation.baseline(&model, &()).unwrap();
    let scores = evaluation.evaluate(&model, Some(&baseline), &()).unwrap();
    let base = scores.base.as_ref().unwrap();
    assert_eq!((base.mean_kl, base.top1_agreement, base.perplexity_ratio), (0.0, 1.0, 1.0));
    let bootstrap = Bootstrap::default();
    let ratio = scores.perplexity_ratio_interval(&bootstrap).unwrap().unwrap();
    assert_eq!((ratio.low, ratio.high), (1.0, 1.0));
    assert!(scores.perplexity_interval(&bootstrap).unwrap().contains(scores.perplexity));
    assert_eq!(scores.kl_interval(&bootstrap).unwrap().unwrap().high, 0.0);
    // The base runs once; a comparison runs the compressed model only.
    let before = model.done()[0];
    evaluation.evaluate(&Fake::new(5), Some(&baseline), &()).unwrap();
    assert_eq!(model.done()[0], before);
    let restored = evaluation.restore_baseline(&model, baseline.hidden().to_owned()).unwrap();
    assert_eq!(restored.scores(), baseline.scores());
}

#[test]
fn baselines_of_something_else_are_refused() {
    let model = Fake::new(6);
    let evaluation = TextEvaluation::new(tokens(200), settings(50, None)).unwrap();
    let baseline = evaluation.baseline(&model, &()).unwrap();
    for other in [
        TextEvaluation::new(tokens(201), settings(50, None)).unwrap(),
        TextEvaluation::new(tokens(200), settings(50, Some(25))).unwrap(),
    ] {
        assert_ne!(other.fingerprint(), evaluation.fingerprint());
        assert!(matches!(other.evaluate(&model, Some(&baseline), &()), Err(Error::Baseline { .. })));
    }
    let larger = Fake { vocabulary: 130, ..Fake::new(6) };
    assert!(matches!(evaluation.evaluate(&larger, Some(&baseline), &()), Err(Error::Baseline { .. })));
    let hidden = Array2::zeros((3, 128));
    assert!(matches!(evaluation.restore_baseline(&model, hidden), Err(Error::Baseline { .. })));
}

#[test]
fn damaged_models_are_an_error_not_a_number() {
    let evaluation = TextEvaluation::new(tokens(200), settings(50, None)).unwrap();
    for constant in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let damaged = Fake { constant: Some(constant), ..Fake::new(7) };
        assert!(matches!(evaluation.evaluate(&damaged, None, &()), Err(Error::NotFinite { .. })));
    }
}

#[test]
fn short_texts_are_refused() {
    let model = Fake::new(8);
    for (text, settings) in [("", settings(4, None)), ("ab", settings(4, None)), ("", settings(4, Some(2)))] {
        let error = TextEvaluation::from_text(&model, text, settings).unwrap_err();
        assert!(matches!(error, Error::TextTooShort { .. }), "{error}");
    }
    let limited = TextSettings { token_limit: Some(10), special_tokens: false, ..settings(5, None) };
    assert_eq!(TextEvaluation::from_text(&model, &"x".repeat(99), limited).unwrap().tokens().len(), 10);
}

#[test]
fn batches_hold_whole_windows() {
    let evaluation = TextEvaluation::new(tokens(10_400), settings(1_300, None)).unwrap();
    assert_eq!(batches(evaluation.windows()), [0..3, 3..6, 6..8]);
    let long = TextEvaluation::new(tokens(10_000), settings(5_000, None)).unwrap();
    assert_eq!(batches(long.windows()), [0..1, 1..2]);
}
