//! Numbers and names as text. Every form of the report writes them the same way.

use sparq_metric::Interval;
use sparq_sweep::{ConfigurationResult, SweepResults};

/// A number with `digits` decimals, or "not finite".
pub(crate) fn number(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "not finite".to_owned() }
}

/// Bits of a weight: at most two decimals, none for a whole number.
pub(crate) fn bits(value: f64) -> String {
    ((value * 100.0).round() / 100.0).to_string()
}

/// A perplexity: two decimals, none beyond 1000.
pub(crate) fn perplexity(value: f64) -> String {
    number(value, if value < 1000.0 { 2 } else { 0 })
}

/// A fraction as a percentage.
pub(crate) fn percent(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{:.digits$} %", 100.0 * value) } else { "not finite".to_owned() }
}

/// A value with its interval, with `digits` decimals.
pub(crate) fn with_interval(value: f64, interval: Interval, digits: usize) -> String {
    format!("{value:.digits$} [{:.digits$}, {:.digits$}]", interval.low, interval.high)
}

/// Names of all tasks, in order.
pub(crate) fn task_names(results: &SweepResults) -> Vec<&str> {
    results.base.tasks.iter().map(|task| task.name.as_str()).collect()
}

/// Sr of one task with its interval, or the accuracy if the task is left out of Sr.
pub(crate) fn task_cell(configuration: &ConfigurationResult, name: &str) -> String {
    let kept = configuration.retention.as_ref().and_then(|kept| kept.tasks.iter().find(|task| task.name == name));
    if let Some(task) = kept {
        return with_interval(task.sr, task.interval, 3);
    }
    let task = configuration.tasks.iter().find(|task| task.name == name);
    task.map_or_else(String::new, |task| format!("left out ({})", percent(task.accuracy, 1)))
}

/// Sr over all tasks.
pub(crate) fn sr_cell(configuration: &ConfigurationResult) -> String {
    configuration.retention.as_ref().map_or_else(|| "none".to_owned(), |kept| with_interval(kept.sr, kept.interval, 3))
}

/// SrCr.
pub(crate) fn srcr_cell(configuration: &ConfigurationResult) -> String {
    configuration.srcr.map_or_else(|| "none".to_owned(), |value| number(value, 3))
}
