//! Intervals of the difference between every two configurations.

use crate::results::{Difference, Equal, PairedDifference};
use crate::verdict::same_tcr;
use crate::{ConfigurationResult, Result};
use sparq_eval::TextScores;
use sparq_metric::{Bootstrap, TaskScores, retention_difference};

/// The scores of a configuration.
pub(crate) struct Judged {
    pub(crate) tasks: Vec<TaskScores>,
    pub(crate) text: Option<TextScores>,
}

/// Stored bits a weight that differ by less than this are printed alike.
const SAME_BITS: f64 = 0.005;

/// The difference of every two configurations at one compression rate, or of as many stored bits, in the order they were
/// asked for.
pub(crate) fn differences(
    configurations: &[ConfigurationResult],
    judged: &[Judged],
    bootstrap: &Bootstrap,
) -> Result<Vec<PairedDifference>> {
    let mut differences = Vec::new();
    for first in 0..configurations.len() {
        for second in first + 1..configurations.len() {
            let [one, other] = [first, second].map(|index| &configurations[index]);
            let Some(equal) = equal(one, other) else { continue };
            // Without a task that counts there is no difference of Sr.
            let sr = retention_difference(&judged[first].tasks, &judged[second].tasks, bootstrap).ok();
            differences.push(PairedDifference {
                equal,
                first,
                second,
                kl: of_divergence(one.kl - other.kl, [&judged[first], &judged[second]], bootstrap)?,
                sr_p_value: sr.as_ref().map(|sr| sr.p_value),
                sr: sr.map(|sr| Difference { value: sr.difference, interval: sr.interval }),
            });
        }
    }
    Ok(differences)
}

/// What makes two configurations comparable; none if nothing does.
fn equal(one: &ConfigurationResult, other: &ConfigurationResult) -> Option<Equal> {
    if same_tcr(one.tcr, other.tcr) {
        return Some(Equal::Tcr(one.tcr));
    }
    let is_same = (one.bits_per_weight - other.bits_per_weight).abs() < SAME_BITS;
    is_same.then_some(Equal::StoredBits(one.bits_per_weight))
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
