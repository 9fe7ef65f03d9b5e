//! Where the time of a sweep went.

use super::cells::{escape, number};
use super::svg::{Scale, figure, text};
use crate::{ConfigurationResult, SweepResults};
use sparq_pipeline::PhaseProfile;
use std::collections::BTreeSet;
use std::fmt::Write;

/// What evaluation is called beside the phases of compression.
const EVALUATE: &str = "evaluate";

/// The section of the report; empty if nothing was timed.
pub(crate) fn section(results: &SweepResults) -> String {
    let timed = |configuration: &ConfigurationResult| !configuration.profile.phases.is_empty();
    let configurations: Vec<&ConfigurationResult> = results.configurations.iter().filter(|c| timed(c)).collect();
    if configurations.is_empty() {
        return String::new();
    }
    let mut body = format!(
        "<h2>Where the time went</h2><div class=\"wide\">{}</div><details><summary>The same in numbers</summary><div \
         class=\"scroll\"><table class=\"sortable\" \
         id=\"profile\"><thead><tr><th>configuration</th><th>phase</th><th>seconds</th><th>cores at work</th>\
         <th>GFLOP/s</th></tr></thead><tbody>",
        bars(&configurations)
    );
    for configuration in &configurations {
        for phase in &configuration.profile.phases {
            body += &row(&configuration.recipe, &phase.phase.to_string(), phase.seconds, Some(phase));
        }
        body += &row(&configuration.recipe, EVALUATE, configuration.evaluate_seconds, None);
    }
    body += "</tbody></table></div></details>";
    let peak = configurations.iter().filter_map(|configuration| configuration.profile.peak_resident_bytes).max();
    let peak = peak.map_or_else(String::new, |bytes| {
        format!(" Compressing, the process held {} GB at most, mapped files included.", number(bytes as f64 / 1e9, 2))
    });
    let _ = write!(
        body,
        "<p class=\"soft\">Wall time. GFLOP/s counts the products of linear layers, Hessians and drift, not those of \
         attention and solvers.{peak}</p>"
    );
    body
}

fn row(recipe: &str, phase: &str, seconds: f64, counted: Option<&PhaseProfile>) -> String {
    let shown = |value: Option<f64>, digits: usize| value.map_or_else(String::new, |value| number(value, digits));
    let cores = counted.and_then(PhaseProfile::cores);
    let rate = counted.and_then(PhaseProfile::giga_operations_per_second);
    format!(
        "<tr><td>{}</td><td>{phase}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        escape(recipe),
        number(seconds, 2),
        shown(cores, 2),
        shown(rate, 0)
    )
}

/// One bar for each configuration, its phases one after the other.
fn bars(configurations: &[&ConfigurationResult]) -> String {
    let parts = |configuration: &ConfigurationResult| -> Vec<(String, f64)> {
        let phases = configuration.profile.phases.iter().map(|phase| (phase.phase.to_string(), phase.seconds));
        phases.chain([(EVALUATE.to_owned(), configuration.evaluate_seconds)]).collect()
    };
    let phases: BTreeSet<_> = configurations.iter().flat_map(|c| &c.profile.phases).map(|phase| phase.phase).collect();
    let names: Vec<String> = phases.iter().map(ToString::to_string).chain([EVALUATE.to_owned()]).collect();
    let shade = |name: &str| {
        let place = names.iter().position(|known| known == name).unwrap_or_default();
        format!("style=\"fill-opacity:{:.3}\"", 1.0 - 0.85 * place as f64 / names.len().max(1) as f64)
    };
    let longest = configurations.iter().map(|c| parts(c).iter().map(|part| part.1).sum::<f64>()).fold(0.0, f64::max);
    let widest = configurations.iter().map(|c| c.recipe.chars().count()).max().unwrap_or(0);
    let left = 16.0 + 6.6 * widest as f64;
    let x = Scale::new(0.0, longest, left, left + 480.0);
    let mut body = String::new();
    let mut at = left;
    for name in &names {
        let _ = write!(body, "<rect x=\"{at:.1}\" y=\"8\" width=\"12\" height=\"12\" class=\"heat\" {}/>", shade(name));
        body += &text(at + 17.0, 18.0, "tick", name);
        at += 32.0 + 7.0 * name.len() as f64;
    }
    for (place, configuration) in configurations.iter().enumerate() {
        let y = 34.0 + 24.0 * place as f64;
        body += &text(left - 8.0, y + 13.0, "tick end", &configuration.recipe);
        let mut before = 0.0;
        for (name, seconds) in parts(configuration) {
            let (start, end) = (x.at(before), x.at(before + seconds));
            let _ = write!(
                body,
                "<rect x=\"{start:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"18\" class=\"heat\" {}><title>{}: {name} {} s</title></rect>",
                (end - start).max(0.0),
                shade(&name),
                escape(&configuration.recipe),
                number(seconds, 1)
            );
            before += seconds;
        }
        body += &text(x.at(before) + 6.0, y + 13.0, "tick", &format!("{} s", number(before, 0)));
    }
    let size = (left.max(at - 480.0) + 540.0, 44.0 + 24.0 * configurations.len() as f64);
    let description = format!("Wall time of {} configurations, one bar each, divided by phase.", configurations.len());
    figure("figure-timing", size.0 as u32, size.1 as u32, "Where the time went", &description, &body)
}
