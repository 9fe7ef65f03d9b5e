use crate::results::{ConfigurationResult, Verdict};
use sparq_metric::{Bootstrap, TaskScores, retention_difference};
use std::cmp::Ordering;

/// Configurations within this much of each other compress equally: 1/3 written as 0.3333 is 1/3.
const SAME_TCR: f64 = 1e-4;

/// Who keeps most at each compression rate, against the best of another family there.
pub(crate) fn verdicts(
    configurations: &[ConfigurationResult],
    scores: &[Vec<TaskScores>],
    bootstrap: &Bootstrap,
) -> Vec<Verdict> {
    let mut order: Vec<usize> = (0..configurations.len()).collect();
    order.sort_by(|&x, &y| configurations[x].tcr.total_cmp(&configurations[y].tcr));
    let same = |x: &usize, y: &usize| (configurations[*x].tcr - configurations[*y].tcr).abs() < SAME_TCR;
    order.chunk_by(same).map(|group| verdict(group, configurations, scores, bootstrap)).collect()
}

fn verdict(group: &[usize], all: &[ConfigurationResult], scores: &[Vec<TaskScores>], bootstrap: &Bootstrap) -> Verdict {
    let mut ranked = group.to_vec();
    ranked.sort_by(|&x, &y| rank(&all[x], &all[y]).then(x.cmp(&y)));
    let winner = ranked[0];
    let other = |index: &&usize| all[**index].family != all[winner].family;
    let runner_up = ranked.iter().find(other).or(ranked.get(1)).copied();
    let name = |index: usize| format!("{} ({})", all[index].recipe, all[index].family);
    let rate = format!("At TCr {:.2} %", 100.0 * all[winner].tcr);
    let Some(second) = runner_up else {
        let sentence = format!("{rate} only {} was measured.", name(winner));
        return Verdict { tcr: all[winner].tcr, winner, runner_up, difference: None, sentence };
    };
    match retention_difference(&scores[winner], &scores[second], bootstrap) {
        Ok(difference) => Verdict {
            tcr: all[winner].tcr,
            winner,
            runner_up,
            difference: Some(difference.interval),
            sentence: format!("{rate} {}.", difference.statement(&name(winner), &name(second))),
        },
        Err(_) => Verdict {
            tcr: all[winner].tcr,
            winner,
            runner_up,
            difference: None,
            sentence: format!(
                "{rate} {} is closer to the base than {}: KL {:.4} against {:.4} nats a token (no task tells them apart).",
                name(winner),
                name(second),
                all[winner].kl,
                all[second].kl
            ),
        },
    }
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
