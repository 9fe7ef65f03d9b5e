//! Retention and divergence over the compression rate, the theoretical one and the measured one.

use crate::cells::{number, percent};
use crate::family::{FAMILIES, class, legend, marker};
use crate::figure::{Axis, Figure, Mark, Px, Scale, axes, line, text};
use sparq_metric::{Interval, pareto_front};
use sparq_sweep::{ConfigurationResult, SweepResults};

/// What a logarithmic axis shows for a divergence of 0.
const SMALLEST_KL: f64 = 1e-6;

/// A compression rate, along the horizontal axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// TCr: what sparsity and bits promise.
    Theoretical,
    /// MCr: what a coded file takes.
    Measured,
}

impl Rate {
    fn of(self, configuration: &ConfigurationResult) -> f64 {
        match self {
            Self::Theoretical => configuration.tcr,
            Self::Measured => configuration.mcr(),
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Self::Theoretical => "theoretical compression rate TCr",
            Self::Measured => "measured compression rate MCr, codes entropy-coded",
        }
    }

    fn named(self, id: &str, title: &str) -> (String, String) {
        match self {
            Self::Theoretical => (id.to_owned(), format!("{title} at equal TCr")),
            Self::Measured => (format!("{id}-measured"), format!("{title} at equal coded size")),
        }
    }
}

/// One point of a scatter plot.
struct Point<'a> {
    configuration: &'a ConfigurationResult,
    /// Where the point is drawn: the value, or its decimal logarithm.
    value: f64,
    interval: Option<Interval>,
    shown: String,
}

/// What a plot shows, and how its vertical axis is drawn.
struct Plot {
    rate: Rate,
    id: &'static str,
    title: &'static str,
    axis: &'static str,
    lower_is_better: bool,
    tick: fn(f64) -> String,
}

/// Sr over a rate, with intervals and the Pareto front of each family.
pub(crate) fn retention(results: &SweepResults, rate: Rate) -> Figure {
    let point = |configuration| -> Option<Point<'_>> {
        let configuration: &ConfigurationResult = configuration;
        let kept = configuration.retention.as_ref()?;
        Some(Point { configuration, value: kept.sr, interval: Some(kept.interval), shown: number(kept.sr, 3) })
    };
    let points: Vec<Point<'_>> = results.configurations.iter().filter_map(point).collect();
    let plot = Plot {
        rate,
        id: "figure-retention",
        title: "Semantic retention",
        axis: "Sr",
        lower_is_better: false,
        tick: |value| number(value, 2),
    };
    scatter(&plot, &points)
}

/// KL over a rate. The axis is logarithmic because configurations lie orders of magnitude apart.
pub(crate) fn divergence(results: &SweepResults, rate: Rate) -> Figure {
    let finite = results.configurations.iter().filter(|configuration| configuration.kl.is_finite());
    let point = |configuration| {
        let configuration: &ConfigurationResult = configuration;
        let value = configuration.kl.max(SMALLEST_KL).log10();
        Point { configuration, value, interval: None, shown: number(configuration.kl, 4) }
    };
    let points: Vec<Point<'_>> = finite.map(point).collect();
    let plot = Plot {
        rate,
        id: "figure-divergence",
        title: "Divergence from the base",
        axis: "KL, nats a token (log)",
        lower_is_better: true,
        tick: |value| number(10_f64.powf(value), (0.5 - value).ceil().clamp(0.0, 6.0) as usize),
    };
    scatter(&plot, &points)
}

fn scatter(plot: &Plot, points: &[Point<'_>]) -> Figure {
    let (id, title) = plot.rate.named(plot.id, plot.title);
    let rate = |point: &Point<'_>| plot.rate.of(point.configuration);
    if points.is_empty() {
        let marks = vec![text(20.0, 35.0, "label", "no values")];
        let description = "No configuration has this value.".to_owned();
        return Figure { id, width: 640, height: 60, title, description, marks };
    }
    let fold =
        |pick: fn(f64, f64) -> f64, start: f64, of: &dyn Fn(&Point<'_>) -> f64| points.iter().map(of).fold(start, pick);
    let low = fold(f64::min, f64::INFINITY, &|p| p.interval.map_or(p.value, |i| i.low.min(p.value)));
    let high = fold(f64::max, f64::NEG_INFINITY, &|p| p.interval.map_or(p.value, |i| i.high.max(p.value)));
    let margin = 0.06 * (high - low).max(0.01);
    let x_low = fold(f64::min, f64::INFINITY, &rate) - 0.02;
    let x_high = fold(f64::max, f64::NEG_INFINITY, &rate) + 0.02;
    let x = Scale::new(x_low, x_high, 78.0, 620.0);
    let y = Scale::new(low - margin, high + margin, 300.0, 34.0);
    let rates: Vec<f64> = points.iter().map(rate).collect();
    let whole = |v: f64| percent(v, if (100.0 * v).fract().abs() < 0.01 { 0 } else { 2 });
    let mut marks = axes(
        &Axis { scale: x, name: plot.rate.axis(), tick: &whole },
        &rates,
        &Axis { scale: y, name: plot.axis, tick: &plot.tick },
    );
    let mut counts = Vec::new();
    for (place, family) in FAMILIES.into_iter().enumerate() {
        let members: Vec<&Point<'_>> = points.iter().filter(|p| p.configuration.family == family).collect();
        if members.is_empty() {
            continue;
        }
        let sign = if plot.lower_is_better { -1.0 } else { 1.0 };
        let values: Vec<(f64, f64)> = members.iter().map(|p| (rate(p), sign * p.value)).collect();
        let mut front: Vec<&&Point<'_>> = pareto_front(&values).into_iter().filter_map(|i| members.get(i)).collect();
        front.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        let points = front.iter().map(|p| (Px(x.at(rate(p))), Px(y.at(p.value)))).collect();
        marks.push(Mark::Polyline { points, class: format!("front {}", class(family)) });
        for (index, point) in members.iter().enumerate() {
            // Points at one rate stand side by side.
            let shift = (place as f64 - 1.0) * 7.0 + (index % 3) as f64 * 2.0 - 2.0;
            let at = x.at(rate(point)) + if plot.rate == Rate::Theoretical { shift } else { 0.0 };
            if let Some(interval) = point.interval {
                let (low, high) = (y.at(interval.low), y.at(interval.high));
                marks.push(line((at, low), (at, high), format!("bar {}", class(family))));
            }
            let hover = format!("{} ({family}): {}", point.configuration.recipe, point.shown);
            marks.push(marker(at, y.at(point.value), family, hover));
        }
        counts.push(format!("{family}: {} configurations", members.len()));
    }
    marks.extend(legend(&points.iter().map(|p| p.configuration.family).collect::<Vec<_>>()));
    let description = format!(
        "{title}, {}. Lines join the Pareto front of each family; bars are 95 percent intervals.",
        counts.join(", ")
    );
    Figure { id, width: 640, height: 350, title, description, marks }
}
