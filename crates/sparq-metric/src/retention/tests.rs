use super::*;
use proptest::prelude::*;
use std::slice::from_ref;

fn right(count: usize, of: usize) -> Vec<f64> {
    (0..of).map(|item| f64::from(u8::from(item < count))).collect()
}

fn task(name: &str, base: usize, compressed: usize, of: usize, chance: f64) -> TaskScores {
    TaskScores::new(name, right(base, of), right(compressed, of), vec![chance; of]).unwrap()
}

#[test]
fn worse_than_chance_keeps_nothing() {
    let kept = retention(&[task("t", 80, 10, 100, 0.25)], &Bootstrap::default()).unwrap();
    assert_eq!(kept.sr, 0.0);
    assert_eq!(kept.interval, Interval { low: 0.0, high: 0.0 });
}

#[test]
fn a_draw_at_chance_is_none_even_if_its_sum_is_not_quite_zero() {
    // Three of nine right is chance, and a third has no exact sum.
    let base: Vec<f64> = (0..9).map(|item| f64::from(u8::from(item < 6))).collect();
    let compressed: Vec<f64> = (0..9).map(|item| f64::from(u8::from(item > 2))).collect();
    let task = TaskScores::new("t", base, compressed, vec![1.0 / 3.0; 9]).unwrap();
    let kept = retention(&[task], &Bootstrap::default()).unwrap();
    assert!(kept.interval.high < 100.0, "{:?}", kept.interval);
}

#[test]
fn better_than_the_base_keeps_more_than_everything() {
    let kept = retention(&[task("t", 80, 90, 100, 0.0)], &Bootstrap::default()).unwrap();
    assert!((kept.sr - 1.125).abs() < 1e-12);
}

#[test]
fn tasks_at_chance_are_named_with_their_numbers() {
    // 0.6 against 0.5 with a standard error of 0.0492: just above two; 0.59 is just below.
    let tasks = [task("kept", 60, 50, 100, 0.5), task("left out", 59, 50, 100, 0.5), task("never", 0, 0, 50, 0.0)];
    let kept = retention(&tasks, &Bootstrap::default()).unwrap();
    assert_eq!(kept.tasks.len(), 1);
    let [left_out, never] = kept.excluded.as_slice() else { panic!("{:?}", kept.excluded) };
    assert_eq!((left_out.name.as_str(), left_out.base, left_out.chance), ("left out", 0.59, 0.5));
    assert!((left_out.standard_error.unwrap() - 0.04943).abs() < 1e-5);
    assert_eq!((never.name.as_str(), never.standard_error), ("never", Some(0.0)));
}

#[test]
fn no_task_left_is_an_error_that_says_so() {
    let error = retention(&[task("coin", 50, 50, 100, 0.5)], &Bootstrap::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no task is left") && text.contains("`coin`") && text.contains("0.5000"), "{text}");
    assert!(retention(&[], &Bootstrap::default()).unwrap_err().to_string().contains("no task was given"));
    let single = retention(&[task("one", 1, 1, 1, 0.0)], &Bootstrap::default()).unwrap_err();
    assert!(single.to_string().contains("one item"), "{single}");
}

#[test]
fn interval_has_the_width_that_theory_predicts() {
    // Base always right, chance 0: Sr is the compressed model's accuracy, with standard error 0.02.
    let kept = retention(&[task("t", 400, 320, 400, 0.0)], &Bootstrap::default()).unwrap();
    assert!((kept.interval.low - (0.8 - 0.0392)).abs() < 0.005, "{:?}", kept.interval);
    assert!((kept.interval.high - (0.8 + 0.0392)).abs() < 0.005, "{:?}", kept.interval);
    // The mean of two independent tasks has a standard error smaller by √2.
    let two =
        retention(&[task("t", 400, 320, 400, 0.0), task("u", 400, 320, 400, 0.0)], &Bootstrap::default()).unwrap();
    let narrower = (two.interval.high - two.interval.low) / (kept.interval.high - kept.interval.low);
    assert!((0.65..0.77).contains(&narrower), "{narrower}");
    // A task's interval does not depend on the tasks beside it.
    assert_eq!(two.tasks[0], kept.tasks[0]);
}

#[test]
fn tasks_count_alike_whatever_their_chance() {
    let of = |reading, solving| [task("reading", 180, reading, 200, 0.25), task("solving", 80, solving, 100, 0.5)];
    let (first, second) = (of(140, 70), of(120, 65));
    let kept = retention(&first, &Bootstrap::default()).unwrap();
    let [reading, solving] = [0.45 / 0.65, 0.2 / 0.3];
    assert!((kept.sr - f64::midpoint(reading, solving)).abs() < 1e-12, "{}", kept.sr);
    assert!(kept.interval.contains(kept.sr) && kept.interval.high - kept.interval.low < 0.5, "{:?}", kept.interval);

    let found = retention_difference(&first, &second, &Bootstrap::default()).unwrap();
    let expected = [reading - 0.35 / 0.65, solving - 0.15 / 0.3];
    for (task, expected) in found.tasks.iter().zip(expected) {
        assert!((task.difference - expected).abs() < 1e-12, "{}", task.difference);
    }
    assert!((found.difference - f64::midpoint(expected[0], expected[1])).abs() < 1e-12, "{}", found.difference);
    let (middle, width) =
        (f64::midpoint(found.interval.low, found.interval.high), found.interval.high - found.interval.low);
    assert!((middle - found.difference).abs() < 0.02 && (0.05..0.3).contains(&width), "{:?}", found.interval);
}

#[test]
fn difference_is_paired() {
    // Both lose the same 30 items but for two: unpaired, a difference of two items could not be seen.
    let first = task("t", 200, 170, 200, 0.0);
    let second = task("t", 200, 160, 200, 0.0);
    let difference = retention_difference(from_ref(&first), from_ref(&second), &Bootstrap::default()).unwrap();
    assert!((difference.difference - 0.05).abs() < 1e-12);
    assert!(difference.first_wins() && !difference.second_wins(), "{:?}", difference.interval);
    let reverse = retention_difference(from_ref(&second), from_ref(&first), &Bootstrap::default()).unwrap();
    assert!(reverse.second_wins());
    assert_eq!(reverse.interval.low, -difference.interval.high);
    assert!(reverse.statement("a", "b").starts_with("b keeps more than a"));
    let same = retention_difference(from_ref(&first), from_ref(&first), &Bootstrap::default()).unwrap();
    assert_eq!(same.interval, Interval { low: 0.0, high: 0.0 });
    assert!(same.statement("a", "b").contains("cannot be told apart"));
}

#[test]
fn configurations_measured_differently_are_not_compared() {
    let a = task("t", 90, 80, 100, 0.0);
    for b in [task("u", 90, 80, 100, 0.0), task("t", 90, 80, 101, 0.0), task("t", 91, 80, 100, 0.0)] {
        let error = retention_difference(from_ref(&a), &[b], &Bootstrap::default()).unwrap_err();
        assert!(matches!(error, Error::NotPaired { .. }), "{error}");
    }
    assert!(matches!(retention_difference(&[a], &[], &Bootstrap::default()), Err(Error::NotPaired { .. })));
}

#[test]
fn survives_json() {
    let kept = retention(&[task("t", 80, 70, 100, 0.25), task("x", 1, 1, 1, 0.0)], &Bootstrap::default()).unwrap();
    let text = serde_json::to_string(&kept).unwrap();
    assert_eq!(serde_json::from_str::<Retention>(&text).unwrap().excluded, kept.excluded);
}

fn few() -> Bootstrap {
    Bootstrap { resamples: 50, ..Bootstrap::default() }
}

proptest! {
    #[test]
    fn identical_scores_keep_everything(scores in prop::collection::vec(0_u8..=1, 2..60), chance in 0.0..0.5_f64) {
        let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
        let count = scores.len();
        let task = TaskScores::new("t", scores.clone(), scores, vec![chance; count]).unwrap();
        if let Ok(kept) = retention(&[task], &few()) {
            prop_assert_eq!(kept.sr, 1.0);
            prop_assert_eq!(kept.interval, Interval { low: 1.0, high: 1.0 });
        }
    }

    #[test]
    fn order_of_items_does_not_change_estimates(
        items in prop::collection::vec((0_u8..=1, 0_u8..=1), 4..60), rotation in 0_usize..60
    ) {
        let make = |items: &[(u8, u8)]| {
            let (base, compressed) = items.iter().map(|(b, c)| (f64::from(*b), f64::from(*c))).unzip();
            TaskScores::new("t", base, compressed, vec![0.25; items.len()]).unwrap()
        };
        let mut rotated = items.clone();
        rotated.rotate_left(rotation % items.len());
        match (retention(&[make(&items)], &few()), retention(&[make(&rotated)], &few())) {
            (Ok(a), Ok(b)) => prop_assert!((a.sr - b.sr).abs() < 1e-12),
            (a, b) => prop_assert_eq!(a.is_err(), b.is_err()),
        }
    }

    #[test]
    fn one_more_right_answer_never_lowers_sr(compressed in prop::collection::vec(0_u8..=1, 20), flip in 0_usize..20) {
        let scores = |values: &[u8]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let task = |values: &[u8]| TaskScores::new("t", right(18, 20), scores(values), vec![0.25; 20]).unwrap();
        let mut better = compressed.clone();
        better[flip] = 1;
        let (a, b) = (retention(&[task(&compressed)], &few()).unwrap(), retention(&[task(&better)], &few()).unwrap());
        prop_assert!(a.sr <= b.sr && a.interval.low <= b.interval.low && a.interval.high <= b.interval.high);
    }
}

#[test]
fn the_p_value_is_two_sided() {
    // With the observed value, 25 of 1000 are on the far side of 0: twice that share, whichever side it is.
    let differences: Vec<f64> = (0..999).map(|index| if index < 24 { -1.0 } else { 1.0 }).collect();
    let negated: Vec<f64> = differences.iter().map(|value| -value).collect();
    assert_eq!((two_sided(&differences), two_sided(&negated)), (0.05, 0.05));
    assert_eq!(two_sided(&[0.0; 9]), 1.0);
}

#[test]
fn the_p_value_is_that_of_the_normal_approximation() {
    // 200 items, 30 that only the first gets right and 15 that only the second does. Differences are whole
    // items, so z = (15 - 1/2) / sqrt(45 - 15² / 200) = 2.19.
    let with = |wrong: std::ops::Range<usize>| {
        let scores = (0..200).map(|item| f64::from(u8::from(!wrong.contains(&item)))).collect();
        TaskScores::new("t", vec![1.0; 200], scores, vec![0.0; 200]).unwrap()
    };
    let (first, second) = (with(0..15), with(15..45));
    let bootstrap = Bootstrap { resamples: 20_000, ..Bootstrap::default() };
    let p_value =
        |a: &TaskScores, b: &TaskScores| retention_difference(from_ref(a), from_ref(b), &bootstrap).unwrap().p_value;
    assert!((p_value(&first, &second) - 0.0286).abs() < 0.003, "{}", p_value(&first, &second));
    assert_eq!(p_value(&first, &second), p_value(&second, &first));
}
