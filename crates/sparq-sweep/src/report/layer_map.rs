//! Maps of one configuration's layers: blocks over projections, the darker the more.

use super::cells::{escape, number};
use super::svg::{Scale, figure, text};
use crate::ConfigurationResult;
use crate::names::name_in_block;
use sparq_pipeline::LayerReport;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Side of a cell, in pixels.
const CELL: f64 = 20.0;

/// Width of a character of a label, in pixels, at most.
const CHARACTER: f64 = 6.5;

/// What a map shows of a layer.
struct Measure {
    what: &'static str,
    /// None of a layer that has no such thing.
    of: fn(&LayerReport) -> Option<f64>,
    /// From a value to what is shaded evenly.
    shade: fn(f64) -> f64,
    scale: &'static str,
    shown: fn(f64) -> String,
}

/// Relative output error, on a logarithmic scale.
pub(crate) fn errors(configuration: &ConfigurationResult, id: &str) -> String {
    let measure = Measure {
        what: "relative output error",
        of: |layer| Some(layer.relative_output_error),
        shade: |error| error.max(1e-12).log10(),
        scale: "logarithmic",
        shown: |error| format!("{error:.1e}"),
    };
    map(configuration, id, &measure)
}

/// Seconds of the solve.
pub(crate) fn seconds(configuration: &ConfigurationResult, id: &str) -> String {
    let measure = Measure {
        what: "seconds to solve",
        of: |layer| Some(layer.seconds),
        shade: |seconds| seconds,
        scale: "linear",
        shown: |seconds| number(seconds, if seconds < 1.0 { 3 } else { 1 }),
    };
    map(configuration, id, &measure)
}

/// Damping, on a logarithmic scale; nothing if all layers have the same.
pub(crate) fn damping(configuration: &ConfigurationResult, id: &str) -> String {
    let mut dampings = configuration.layers.iter().filter_map(|layer| layer.damping);
    let first = dampings.next();
    if dampings.all(|damping| Some(damping) == first) {
        return String::new();
    }
    let measure = Measure {
        what: "damping",
        of: |layer| layer.damping,
        shade: |damping| damping.max(1e-12).log10(),
        scale: "logarithmic",
        shown: |damping| format!("{damping:.1e}"),
    };
    map(configuration, id, &measure)
}

/// Which row a layer is in: its name within its block; all experts of a mixture are in the same.
fn kind(layer: &LayerReport) -> String {
    let numbered = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name_in_block(&layer.name, layer.block).split('.');
    parts.map(|part| if numbered(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// The end of a kind's name, as long as it takes to tell it from the others.
fn label<'a>(kind: &'a str, kinds: &[String]) -> &'a str {
    let mut ends = kind.rmatch_indices('.').map(|(at, _)| &kind[at + 1..]);
    let like = |end: &str| kinds.iter().filter(|other| *other == end || other.ends_with(&format!(".{end}"))).count();
    ends.find(|end| like(end) == 1).unwrap_or(kind)
}

/// The map of a measure; of the experts of a mixture, it shows the largest.
fn map(configuration: &ConfigurationResult, id: &str, measure: &Measure) -> String {
    let mut kinds: Vec<String> = Vec::new();
    let mut blocks: BTreeMap<usize, BTreeMap<String, f64>> = BTreeMap::new();
    for layer in &configuration.layers {
        let kind = kind(layer);
        if !kinds.contains(&kind) {
            kinds.push(kind.clone());
        }
        let values = blocks.entry(layer.block).or_default();
        let Some(value) = (measure.of)(layer) else { continue };
        values.entry(kind).and_modify(|largest| *largest = largest.max(value)).or_insert(value);
    }
    let finite = blocks.values().flat_map(BTreeMap::values).copied().filter(|value| value.is_finite());
    let range = finite.fold(None, |range: Option<(f64, f64)>, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    });
    let (low, high) = range.unwrap_or_default();
    let shade = Scale::new((measure.shade)(low), (measure.shade)(high), 0.08, 1.0);
    let longest = kinds.iter().map(|kind| label(kind, &kinds).len()).max().unwrap_or_default();
    let (left, top, side) = ((CHARACTER * longest as f64 + 12.0).max(90.0), 26.0, CELL - 2.0);
    let mut body = String::new();
    for (row, kind) in kinds.iter().enumerate() {
        body += &text(left - 6.0, top + row as f64 * CELL + 14.0, "tick end", label(kind, &kinds));
    }
    for (column, (block, values)) in blocks.iter().enumerate() {
        let x = left + column as f64 * CELL;
        if column % 2 == 0 || blocks.len() < 12 {
            body += &text(x + CELL / 2.0, top - 6.0, "tick middle", &block.to_string());
        }
        for (row, kind) in kinds.iter().enumerate() {
            let Some(&value) = values.get(kind) else { continue };
            let opacity = shade.at((measure.shade)(value)).clamp(0.0, 1.0);
            let _ = write!(
                body,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" class=\"heat\" style=\"fill-opacity:{opacity:.3}\">\
                 <title>block {block}, {}: {} {}</title></rect>",
                top + row as f64 * CELL,
                escape(kind),
                measure.what,
                (measure.shown)(value)
            );
        }
    }
    // What the shades mean.
    let bottom = top + kinds.len() as f64 * CELL + 10.0;
    if range.is_some() {
        for step in 0..=4 {
            let _ = write!(
                body,
                "<rect x=\"{:.1}\" y=\"{bottom:.1}\" width=\"{CELL:.1}\" height=\"12\" class=\"heat\" style=\"fill-opacity:{:.3}\"/>",
                left + 58.0 + f64::from(step) * CELL,
                0.08 + 0.92 * f64::from(step) / 4.0
            );
        }
        body += &text(left + 52.0, bottom + 10.0, "tick end", &(measure.shown)(low));
        body += &text(left + 64.0 + 5.0 * CELL, bottom + 10.0, "tick", &(measure.shown)(high));
        body += &text(left + 110.0 + 5.0 * CELL, bottom + 10.0, "tick", measure.what);
    }
    let size = (left + (blocks.len() as f64 * CELL).max(350.0) + 10.0, bottom + 24.0);
    let title = format!("Layer by layer, {}: {}", measure.what, configuration.recipe);
    let description = format!(
        "From {} (light) to {} (dark), {}, over {} blocks and {} projections.",
        (measure.shown)(low),
        (measure.shown)(high),
        measure.scale,
        blocks.len(),
        kinds.len()
    );
    figure(id, size.0 as u32, size.1 as u32, &title, &description, &body)
}
