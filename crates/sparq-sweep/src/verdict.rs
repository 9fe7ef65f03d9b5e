use crate::differences::Judged;
use crate::results::{ConfigurationResult, TaskTest, Verdict};
use sparq_metric::{Bootstrap, RetentionDifference, TaskScores, holm, mcnemar, retention_difference};
use std::cmp::Ordering;

/// Configurations within this much of each other compress equally: 1/3 written as 0.3333 is 1/3, and a searched allocation
/// leaves up to a step of what it may cost.
const SAME_TCR: f64 = 2e-3;

/// The best configuration at each compression rate, compared with the best of another family there if there is one.
pub(crate) fn verdicts(
    configurations: &[ConfigurationResult],
    judged: &[Judged],
    bootstrap: &Bootstrap,
) -> Vec<Verdict> {
    let groups = by_rate(configurations);
    let mut verdicts: Vec<Verdict> =
        groups.iter().map(|group| verdict(group, configurations, judged, bootstrap)).collect();
    adjust(&mut verdicts);
    verdicts
}

/// Indices of the configurations at each compression rate, in the order they were asked for; smaller rates first.
pub(crate) fn by_rate(configurations: &[ConfigurationResult]) -> Vec<Vec<usize>> {
    groups(&configurations.iter().map(|configuration| configuration.tcr).collect::<Vec<_>>())
}

/// Whether two compression rates count as one.
pub(crate) fn same_tcr(one: f64, other: f64) -> bool {
    (one - other).abs() < SAME_TCR
}

fn groups(rates: &[f64]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rates.len()).collect();
    order.sort_by(|&x, &y| rates[x].total_cmp(&rates[y]));
    let same = |x: &usize, y: &usize| same_tcr(rates[*x], rates[*y]);
    let in_order = |group: &[usize]| {
        let mut group = group.to_vec();
        group.sort_unstable();
        group
    };
    order.chunk_by(same).map(in_order).collect()
}

/// The level of all claims together.
const LEVEL: f64 = 0.05;

/// Adjusts p-values for the number of comparisons, and adds to each sentence whether its claim still holds.
fn adjust(verdicts: &mut [Verdict]) {
    let compared: Vec<f64> = verdicts.iter().filter_map(|verdict| verdict.p_value).collect();
    let mut adjusted = holm(&compared).into_iter();
    let count = compared.len();
    for verdict in verdicts.iter_mut() {
        verdict.adjusted_p_value = verdict.p_value.and_then(|_| adjusted.next());
        let (Some(p), Some(adjusted)) = (verdict.p_value, verdict.adjusted_p_value) else { continue };
        let numbers = format!("p {p:.3}, adjusted for {count} comparisons {adjusted:.3}");
        let claimed = verdict.difference.is_some_and(|interval| interval.excludes_zero());
        let limits = if claimed && adjusted > LEVEL { ": it does not stand among so many" } else { "" };
        verdict.sentence = format!("{} ({numbers}{limits}).", verdict.sentence.trim_end_matches('.'));
    }
    let all: Vec<f64> = verdicts.iter().flat_map(|verdict| &verdict.tests).map(|test| test.p_value).collect();
    let tests = verdicts.iter_mut().flat_map(|verdict| &mut verdict.tests);
    for (test, adjusted) in tests.zip(holm(&all)) {
        test.adjusted_p_value = adjusted;
    }
}

/// A paragraph on the number of comparisons and how to read them.
pub(crate) fn comparisons(verdicts: &[Verdict]) -> String {
    let differences = verdicts.iter().filter(|verdict| verdict.p_value.is_some()).count();
    let tests: usize = verdicts.iter().map(|verdict| verdict.tests.len()).sum();
    let kept = verdicts.iter().filter(|v| v.adjusted_p_value.is_some_and(|p| p <= LEVEL)).count();
    if differences == 0 {
        return "No two configurations were compared by Sr.".to_owned();
    }
    format!(
        "{differences} differences of Sr and {tests} single tasks are compared. Every interval is a 95 % interval by \
         itself: of twenty true ties, one is expected to look like a win. Holm's adjustment accounts for their number, for \
         the differences of Sr and for the single tasks separately; after it, {kept} of the {differences} differences \
         stand at 5 % together. Each winner is the best of several measured, which no adjustment undoes: choose on one set \
         of items, claim on another."
    )
}

fn verdict(group: &[usize], all: &[ConfigurationResult], judged: &[Judged], bootstrap: &Bootstrap) -> Verdict {
    let mut ranked = group.to_vec();
    ranked.sort_by(|&x, &y| rank(&all[x], &all[y]).then(x.cmp(&y)));
    let winner = ranked[0];
    let other = |index: &&usize| all[**index].family != all[winner].family;
    let runner_up = ranked.iter().find(other).or(ranked.get(1)).copied();
    let name = |index: usize| format!("{} ({})", all[index].recipe, all[index].family);
    let rate = format!("At TCr {:.2} %", 100.0 * all[winner].tcr);
    let Some(second) = runner_up else {
        let sentence = format!("{rate} only {} was measured.", name(winner));
        return blank(all[winner].tcr, winner, runner_up, sentence);
    };
    let Ok(difference) = retention_difference(&judged[winner].tasks, &judged[second].tasks, bootstrap) else {
        let [one, other] = [name(winner), name(second)];
        let sentence = match [all[winner].kl, all[second].kl] {
            [kl, of_other] if !kl.is_nan() && !of_other.is_nan() => format!(
                "{rate} {one} is closer to the base than {other}: KL {kl:.4} against {of_other:.4} nats a token (no task \
                 tells them apart)."
            ),
            _ => format!("{rate} nothing that was measured tells {one} and {other} apart."),
        };
        return blank(all[winner].tcr, winner, runner_up, sentence);
    };
    let sentence = format!("{rate} {}.", difference.statement(&name(winner), &name(second)));
    Verdict {
        difference: Some(difference.interval),
        p_value: Some(difference.p_value),
        tests: tests(&difference, &judged[winner].tasks, &judged[second].tasks),
        ..blank(all[winner].tcr, winner, runner_up, sentence)
    }
}

fn blank(tcr: f64, winner: usize, runner_up: Option<usize>, sentence: String) -> Verdict {
    Verdict {
        tcr,
        winner,
        runner_up,
        difference: None,
        p_value: None,
        adjusted_p_value: None,
        tests: Vec::new(),
        sentence,
    }
}

/// McNemar's test on each task that counts in the difference.
fn tests(difference: &RetentionDifference, winner: &[TaskScores], other: &[TaskScores]) -> Vec<TaskTest> {
    let counts = |task: &TaskScores| difference.tasks.iter().any(|counted| counted.name == task.name());
    let pairs = winner.iter().zip(other).filter(|(task, _)| counts(task));
    pairs
        .filter_map(|(winner, other)| {
            let test = mcnemar(winner.compressed(), other.compressed()).ok()?;
            Some(TaskTest {
                task: winner.name().to_owned(),
                only_winner: test.only_first,
                only_other: test.only_second,
                p_value: test.p_value,
                adjusted_p_value: test.p_value,
            })
        })
        .collect()
}

/// More Sr first; where there is none, less KL first.
fn rank(x: &ConfigurationResult, y: &ConfigurationResult) -> Ordering {
    let sr = |result: &ConfigurationResult| result.retention.as_ref().map(|retention| retention.sr);
    match (sr(x), sr(y)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
    .then(x.kl.total_cmp(&y.kl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_search_leaves_unspent_does_not_make_another_rate() {
        assert_eq!(groups(&[0.875, 0.8125, 0.75, 0.875_89, 0.812_506_25]), [vec![2], vec![1, 4], vec![0, 3]]);
    }
}
