use super::*;
use crate::testing::Fake;
use crate::{Error, LanguageModel};
use proptest::prelude::*;

fn oracle(model: &Fake, continuation: &Continuation) -> ContinuationScore {
    let mut seen = continuation.context().to_vec();
    let mut score = ContinuationScore { log_likelihood: 0.0, greedy: true };
    for token in continuation.continuation() {
        score.log_likelihood += model.log_probability(&seen, *token);
        score.greedy &= model.best(&seen) == *token;
        seen.push(*token);
    }
    score
}

fn check(model: &Fake, items: &[Vec<Continuation>], batch_tokens: usize) {
    let scores = score_continuations(model, items, batch_tokens, &|_, _| {}).unwrap();
    assert_eq!(scores.len(), items.len());
    for (item, scores) in items.iter().zip(&scores) {
        assert_eq!(item.len(), scores.len());
        for (choice, score) in item.iter().zip(scores) {
            let expected = oracle(model, choice);
            assert!((score.log_likelihood - expected.log_likelihood).abs() < 1e-4, "{score:?} {expected:?}");
            assert_eq!(score.greedy, expected.greedy);
        }
    }
}

fn continuation(context: &str, continuation: &str) -> Continuation {
    Continuation::encode(&Fake::new(0), context, continuation, true).unwrap()
}

#[test]
fn batches_agree_with_one_by_one() {
    let model = Fake::new(1);
    let items = vec![
        // One token each, all inputs equal: only the context runs.
        vec![continuation("a long shared context", "x"), continuation("a long shared context", "y")],
        // One choice begins another.
        vec![continuation("a long shared context", " is"), continuation("a long shared context", " is it")],
        // Contexts differ (partial scoring), and the shared part ends inside of them.
        vec![continuation("a long ago", " rest"), continuation("a long aim", " rest")],
        // Nothing shared; a single choice; equal choices.
        vec![continuation("", "good sentence"), continuation("", "bad sentence")],
        vec![continuation("alone", " word")],
        vec![continuation("a long shared context", " same"), continuation("a long shared context", " same")],
    ];
    for batch_tokens in [1, 30, 60, 100_000] {
        check(&model, &items, batch_tokens);
        check(&model, &items[..3], batch_tokens); // with a beginning that all items share
        check(&model, &items[..1], batch_tokens);
    }
    assert!(score_continuations(&model, &[], 100, &|_, _| {}).unwrap().is_empty());
    assert!(matches!(score_continuations(&model, &items, 0, &|_, _| {}), Err(Error::Setting { .. })));
}

#[test]
fn shared_tokens_run_once_and_only_needed_rows_are_scored() {
    let model = Fake::new(2);
    let shots = "worked example ".repeat(10); // 150 characters
    let item = |question: &str| {
        let context = format!("{shots}{question}");
        vec![continuation(&context, " ab"), continuation(&context, " cd"), continuation(&context, " ef")]
    };
    let items = vec![item("first question?"), item("second one?")];
    check(&model, &items, 10_000);
    let fresh = Fake::new(2);
    score_continuations(&fresh, &items, 10_000, &|_, _| {}).unwrap();
    // Start token and shots once, each question and " " once, one more input token per choice.
    assert_eq!(fresh.done()[0], 151 + (15 + 1) + (11 + 1) + 6);
    // Per item: one row for the space, one for the next character, and one per choice for the last.
    assert_eq!(fresh.done()[1], 2 * (2 + 3));
}

#[test]
fn greedy_matches_are_recognised() {
    let model = Fake::new(3);
    let mut tokens = vec![1, 50, 60];
    for _ in 0..3 {
        tokens.push(model.best(&tokens));
    }
    let right = Continuation::new(&tokens[..3], &tokens[3..]).unwrap();
    tokens[5] = (tokens[5] + 1) % 128;
    let wrong = Continuation::new(&tokens[..3], &tokens[3..]).unwrap();
    let scores = score_continuations(&model, &[vec![right], vec![wrong]], 100, &|_, _| {}).unwrap();
    assert!(scores[0][0].greedy && !scores[1][0].greedy);
}

#[test]
fn white_space_moves_to_the_continuation() {
    let moved = continuation("The sky is  ", "blue");
    assert_eq!(moved.continuation(), "  blue".bytes().map(u32::from).collect::<Vec<_>>());
    assert_eq!(moved.context()[0], 1);
    assert_eq!(continuation("", "ab").context(), [1]);
    let plain = Fake { start: None, ..Fake::new(0) };
    assert_eq!(Continuation::encode(&plain, "", "ab", true).unwrap().context(), [2]);
    let mute = Fake { start: None, end: vec![], ..Fake::new(0) };
    assert!(matches!(Continuation::encode(&mute, "", "ab", true), Err(Error::NoPrefixToken)));
    assert!(Continuation::encode(&plain, "", "", true).is_err());
    assert!(Continuation::new(&[], &[1]).is_err() && Continuation::new(&[1], &[]).is_err());
}

#[test]
fn damaged_models_are_an_error() {
    let damaged = Fake { constant: Some(f32::NAN), ..Fake::new(0) };
    let items = [vec![continuation("a", "b")]];
    assert!(matches!(score_continuations(&damaged, &items, 10, &|_, _| {}), Err(Error::NotFinite { .. })));
    let limits = generate::Limits { max_new_tokens: 3, stop: &[], batch_tokens: 10 };
    assert!(matches!(
        generate::greedy(&sparq_core::Ranks::default(), &damaged, &[vec![1]], &limits, &|_, _| {}),
        Err(Error::NotFinite { .. })
    ));
}

/// One prompt, one token at a time.
fn slow_greedy(model: &Fake, prompt: &[u32], max_new_tokens: usize, stop: &[String]) -> String {
    let mut tokens = prompt.to_vec();
    let mut text = String::new();
    for _ in 0..max_new_tokens {
        let token = model.best(&tokens);
        if model.end.contains(&token) {
            break;
        }
        tokens.push(token);
        text = model.decode(&tokens[prompt.len()..]).unwrap();
        if let Some(at) = stop.iter().filter_map(|stop| text.find(stop)).min() {
            return text[..at].to_owned();
        }
    }
    text
}

#[test]
fn writing_together_agrees_with_writing_alone() {
    // A small alphabet, so that ends and stops come up.
    let model = Fake { vocabulary: 70, memory: 3, end: vec![2, 9], ..Fake::new(4) };
    let prompts: Vec<Vec<u32>> = (0..100_u32).map(|i| vec![1, 5, 6, 7, i % 60, (i * i) % 60]).collect();
    let stop = ["\n".to_owned(), " ".to_owned(), "0".to_owned(), String::new()];
    for batch_tokens in [1, 7, 1000] {
        let limits = generate::Limits { max_new_tokens: 40, stop: &stop, batch_tokens };
        let texts = generate::greedy(&sparq_core::Ranks::default(), &model, &prompts, &limits, &|_, _| {}).unwrap();
        for (prompt, text) in prompts.iter().zip(&texts) {
            assert_eq!(*text, slow_greedy(&model, prompt, 40, &stop[..3]));
        }
        let mut lengths: Vec<usize> = texts.iter().map(String::len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        assert!(lengths.len() > 5, "{lengths:?}");
    }
    let none = generate::Limits { max_new_tokens: 0, stop: &[], batch_tokens: 10 };
    assert_eq!(
        generate::greedy(&sparq_core::Ranks::default(), &model, &prompts[..2], &none, &|_, _| {}).unwrap(),
        ["", ""]
    );
}

proptest! {
    #[test]
    fn any_items_agree_with_one_by_one(
        items in prop::collection::vec(
            prop::collection::vec((prop::collection::vec(0_u32..3, 1..12), prop::collection::vec(0_u32..3, 1..6)), 1..4),
            1..5,
        ),
        batch_tokens in 1_usize..60,
    ) {
        let model = Fake::new(5);
        let items: Vec<Vec<Continuation>> = items
            .into_iter()
            .map(|choices| choices.iter().map(|(a, b)| Continuation::new(a, b).unwrap()).collect())
            .collect();
        check(&model, &items, batch_tokens);
    }
}
