//! Where the time of a sweep went.

use crate::cells::number;
use crate::figure::{Area, Figure, Mark, Opacity, Px, Scale, text};
use serde::Serialize;
use sparq_pipeline::PhaseProfile;
use sparq_sweep::{ConfigurationResult, SweepResults};
use std::collections::BTreeSet;

/// The name of evaluation beside the phases of compression.
const EVALUATE: &str = "evaluate";

/// The section on time.
#[derive(Debug, Serialize)]
pub(crate) struct Timing {
    figure: Figure,
    /// Configuration, phase, seconds, cores at work, GFLOP/s.
    rows: Vec<[String; 5]>,
    /// Largest resident memory, in GB.
    peak: Option<String>,
}

/// The section of the configurations that were timed. None if there are none.
pub(crate) fn timing(results: &SweepResults) -> Option<Timing> {
    let timed = |configuration: &&ConfigurationResult| !configuration.profile.phases.is_empty();
    let configurations: Vec<&ConfigurationResult> = results.configurations.iter().filter(timed).collect();
    if configurations.is_empty() {
        return None;
    }
    let peak = configurations.iter().filter_map(|configuration| configuration.profile.peak_resident_bytes).max();
    Some(Timing {
        figure: bars(&configurations),
        rows: configurations.iter().flat_map(|configuration| rows(configuration)).collect(),
        peak: peak.map(|bytes| number(bytes as f64 / 1e9, 2)),
    })
}

fn rows(configuration: &ConfigurationResult) -> Vec<[String; 5]> {
    let recipe = || configuration.recipe.clone();
    let shown = |value: Option<f64>, digits: usize| value.map_or_else(String::new, |value| number(value, digits));
    let row = |phase: &PhaseProfile| {
        let (cores, rate) = (phase.cores(), phase.giga_operations_per_second());
        [recipe(), phase.phase.to_string(), number(phase.seconds, 2), shown(cores, 2), shown(rate, 0)]
    };
    let evaluate = number(configuration.evaluate_seconds, 2);
    let evaluate = [recipe(), EVALUATE.to_owned(), evaluate, String::new(), String::new()];
    configuration.profile.phases.iter().map(row).chain([evaluate]).collect()
}

/// The phases of a configuration and their seconds, evaluation last.
fn phases(configuration: &ConfigurationResult) -> Vec<(String, f64)> {
    let phases = configuration.profile.phases.iter().map(|phase| (phase.phase.to_string(), phase.seconds));
    phases.chain([(EVALUATE.to_owned(), configuration.evaluate_seconds)]).collect()
}

/// One bar for each configuration, divided by phase.
fn bars(configurations: &[&ConfigurationResult]) -> Figure {
    let all: BTreeSet<_> = configurations.iter().flat_map(|c| &c.profile.phases).map(|phase| phase.phase).collect();
    let names: Vec<String> = all.iter().map(ToString::to_string).chain([EVALUATE.to_owned()]).collect();
    let opacity = |name: &str| {
        let place = names.iter().position(|known| known == name).unwrap_or_default();
        1.0 - 0.85 * place as f64 / names.len().max(1) as f64
    };
    let total = |c: &&ConfigurationResult| phases(c).iter().map(|part| part.1).sum::<f64>();
    let longest = configurations.iter().map(total).fold(0.0, f64::max);
    let widest = configurations.iter().map(|c| c.recipe.chars().count()).max().unwrap_or(0);
    let left = 16.0 + 6.6 * widest as f64;
    let x = Scale::new(0.0, longest, left, left + 480.0);
    let mut marks = Vec::new();
    let mut at = left;
    for name in &names {
        let area = Area { x: Px(at), y: Px(8.0), width: Px(12.0), height: Px(12.0), opacity: Opacity(opacity(name)) };
        marks.push(Mark::Shade { area, hover: None });
        marks.push(text(at + 17.0, 18.0, "tick", &**name));
        at += 32.0 + 7.0 * name.len() as f64;
    }
    for (place, configuration) in configurations.iter().enumerate() {
        let y = 34.0 + 24.0 * place as f64;
        marks.push(text(left - 8.0, y + 13.0, "tick end", &*configuration.recipe));
        let mut before = 0.0;
        for (name, seconds) in phases(configuration) {
            let (start, end) = (x.at(before), x.at(before + seconds));
            let (width, opacity) = (Px((end - start).max(0.0)), opacity(&name));
            let hover = format!("{}: {name} {} s", configuration.recipe, number(seconds, 1));
            let area = Area { x: Px(start), y: Px(y), width, height: Px(18.0), opacity: Opacity(opacity) };
            marks.push(Mark::Shade { area, hover: Some(hover) });
            before += seconds;
        }
        marks.push(text(x.at(before) + 6.0, y + 13.0, "tick", format!("{} s", number(before, 0))));
    }
    Figure {
        id: "figure-timing".to_owned(),
        width: (left.max(at - 480.0) + 540.0) as u32,
        height: (44.0 + 24.0 * configurations.len() as f64) as u32,
        title: "Where the time went".to_owned(),
        description: format!("Wall time of {} configurations, one bar each, divided by phase.", configurations.len()),
        marks,
    }
}
