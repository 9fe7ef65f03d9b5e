//! Maps of one configuration's layers: a column for each block, a row for each projection, darker for larger values.

use crate::cells::number;
use crate::figure::{Area, Figure, Mark, Opacity, Px, Scale, text};
use sparq_pipeline::LayerReport;
use sparq_sweep::{ConfigurationResult, name_in_block};
use std::collections::BTreeMap;

/// Side of a cell, in pixels.
const CELL: f64 = 20.0;

/// Largest width of a character of a label, in pixels.
const CHARACTER: f64 = 6.5;

/// What a map shows of a layer.
struct Measure {
    id: &'static str,
    what: &'static str,
    /// None for a layer that has no such value.
    of: fn(&LayerReport) -> Option<f64>,
    /// The value, or its logarithm: equal steps of it are equal steps of shade.
    shade: fn(f64) -> f64,
    scale: &'static str,
    shown: fn(f64) -> String,
}

const ERROR: Measure = Measure {
    id: "layers",
    what: "relative output error",
    of: |layer| Some(layer.relative_output_error),
    shade: |error| error.max(1e-12).log10(),
    scale: "logarithmic",
    shown: |error| format!("{error:.1e}"),
};

const CODED: Measure = Measure {
    id: "coded",
    what: "coded bits a weight",
    of: |layer| Some(layer.coded_bits_per_weight),
    shade: |bits| bits,
    scale: "linear",
    shown: |bits| number(bits, 2),
};

const ZEROS: Measure = Measure {
    id: "zeros",
    what: "fraction of zeros",
    of: |layer| Some(layer.zeros as f64 / layer.weights.max(1) as f64),
    ..CODED
};

const ABOVE_BOUND: Measure = Measure {
    id: "above-bound",
    what: "coded bits above the least possible at its error",
    of: |layer| layer.bound_bits_per_weight.map(|bound| layer.coded_bits_per_weight - bound),
    ..CODED
};

const DAMPING: Measure = Measure { id: "damping", what: "damping", of: |layer| layer.damping, ..ERROR };

const SECONDS: Measure = Measure {
    id: "seconds",
    what: "seconds to solve",
    of: |layer| Some(layer.seconds),
    shade: |seconds| seconds,
    scale: "linear",
    shown: |seconds| number(seconds, if seconds < 1.0 { 3 } else { 1 }),
};

/// The maps of configuration `index`: errors, damping if it differs between layers, seconds, and what codes take.
pub(crate) fn layer_maps(configuration: &ConfigurationResult, index: usize) -> Vec<Figure> {
    let mut dampings = configuration.layers.iter().filter_map(|layer| layer.damping);
    let first = dampings.next();
    let damping = dampings.any(|damping| Some(damping) != first).then_some(&DAMPING);
    let coded = configuration.layers.iter().any(|layer| layer.coded_bits_per_weight < 16.0);
    let of_codes = [&CODED, &ZEROS, &ABOVE_BOUND].map(|measure| coded.then_some(measure));
    let measures = [Some(&ERROR), damping, Some(&SECONDS)].into_iter().chain(of_codes).flatten();
    measures.map(|measure| map(configuration, index, measure)).collect()
}

/// Which row a layer is in: its name within its block. All experts of a mixture share a row.
fn kind(layer: &LayerReport) -> String {
    let numbered = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name_in_block(&layer.name, layer.block).split('.');
    parts.map(|part| if numbered(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// The shortest end of a kind's name that no other kind has.
fn label<'a>(kind: &'a str, kinds: &[String]) -> &'a str {
    let mut ends = kind.rmatch_indices('.').map(|(at, _)| &kind[at + 1..]);
    let like = |end: &str| kinds.iter().filter(|other| *other == end || other.ends_with(&format!(".{end}"))).count();
    ends.find(|end| like(end) == 1).unwrap_or(kind)
}

/// The map of a measure. For the experts of a mixture it shows the largest value.
fn map(configuration: &ConfigurationResult, index: usize, measure: &Measure) -> Figure {
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
    let mut marks = Vec::new();
    for (row, kind) in kinds.iter().enumerate() {
        marks.push(text(left - 6.0, top + row as f64 * CELL + 14.0, "tick end", label(kind, &kinds)));
    }
    for (column, (block, values)) in blocks.iter().enumerate() {
        let x = left + column as f64 * CELL;
        if column % 2 == 0 || blocks.len() < 12 {
            marks.push(text(x + CELL / 2.0, top - 6.0, "tick middle", block.to_string()));
        }
        for (row, kind) in kinds.iter().enumerate() {
            let Some(&value) = values.get(kind) else { continue };
            let opacity = shade.at((measure.shade)(value)).clamp(0.0, 1.0);
            let y = Px(top + row as f64 * CELL);
            let hover = format!("block {block}, {kind}: {} {}", measure.what, (measure.shown)(value));
            let area = Area { x: Px(x), y, width: Px(side), height: Px(side), opacity: Opacity(opacity) };
            marks.push(Mark::Shade { area, hover: Some(hover) });
        }
    }
    let bottom = top + kinds.len() as f64 * CELL + 10.0;
    if range.is_some() {
        marks.extend(legend(measure, (low, high), left, bottom));
    }
    Figure {
        id: format!("figure-{}-{index}", measure.id),
        width: (left + (blocks.len() as f64 * CELL).max(350.0) + 10.0) as u32,
        height: (bottom + 24.0) as u32,
        title: format!("Layer by layer, {}: {}", measure.what, configuration.recipe),
        description: format!(
            "From {} (light) to {} (dark), {}, over {} blocks and {} projections.",
            (measure.shown)(low),
            (measure.shown)(high),
            measure.scale,
            blocks.len(),
            kinds.len()
        ),
        marks,
    }
}

/// What the shades mean.
fn legend(measure: &Measure, (low, high): (f64, f64), left: f64, top: f64) -> Vec<Mark> {
    let step = |step: u8| {
        let (x, opacity) = (Px(left + 58.0 + f64::from(step) * CELL), 0.08 + 0.92 * f64::from(step) / 4.0);
        Mark::Shade {
            area: Area { x, y: Px(top), width: Px(CELL), height: Px(12.0), opacity: Opacity(opacity) },
            hover: None,
        }
    };
    let right = left + 5.0 * CELL;
    let labels = [
        text(left + 52.0, top + 10.0, "tick end", (measure.shown)(low)),
        text(right + 64.0, top + 10.0, "tick", (measure.shown)(high)),
        text(right + 110.0, top + 10.0, "tick", measure.what),
    ];
    (0..=4).map(step).chain(labels).collect()
}
