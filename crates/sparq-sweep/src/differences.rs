//! Intervals of the difference between every two configurations.

use crate::results::{Difference, PairedDifference};
use crate::verdict::by_rate;
use crate::{ConfigurationResult, Result};
use sparq_eval::TextScores;
use sparq_metric::{Bootstrap, TaskScores, retention_difference};

/// The scores of a configuration.
pub(crate) struct Judged {
    pub(crate) tasks: Vec<TaskScores>,
    pub(crate) text: Option<TextScores>,
}

/// The difference of every two configurations at one compression rate, in the order they were asked for.
pub(crate) fn differences(
    configurations: &[ConfigurationResult],
    judged: &[Judged],
    bootstrap: &Bootstrap,
) -> Result<Vec<PairedDifference>> {
    let mut differences = Vec::new();
    for group in by_rate(configurations) {
        for (place, &first) in group.iter().enumerate() {
            for &second in &group[place + 1..] {
                let [one, other] = [first, second].map(|index| &configurations[index]);
                // Without a task that counts there is no difference of Sr.
                let sr = retention_difference(&judged[first].tasks, &judged[second].tasks, bootstrap).ok();
                differences.push(PairedDifference {
                    tcr: one.tcr,
                    first,
                    second,
                    kl: of_divergence(one.kl - other.kl, [&judged[first], &judged[second]], bootstrap)?,
                    sr_p_value: sr.as_ref().map(|sr| sr.p_value),
                    sr: sr.map(|sr| Difference { value: sr.difference, interval: sr.interval }),
                });
            }
        }
    }
    Ok(differences)
}

fn of_divergence(value: f64, [first, second]: [&Judged; 2], bootstrap: &Bootstrap) -> Result<Option<Difference>> {
    let (Some(first), Some(second)) = (&first.text, &second.text) else { return Ok(None) };
    // A divergence that is not finite has no interval.
    if !value.is_finite() {
        return Ok(None);
    }
    let interval = first.kl_difference_interval(second, bootstrap)?;
    Ok(interval.map(|interval| Difference { value, interval }))
}
