//! The figures of the report.

use super::cells::{bits, number, percent};
use super::svg::{Scale, axes, figure, line, marker, text};
use crate::{ConfigurationResult, Family, SweepResults};
use sparq_metric::{Interval, SrcrForm, pareto_front};
use std::fmt::Write;

/// What a logarithmic axis shows of a divergence of 0.
const SMALLEST_KL: f64 = 1e-6;

const FAMILIES: [Family; 3] = [Family::Quantization, Family::Joint, Family::Pruning];

fn style(family: Family) -> (usize, &'static str) {
    match family {
        Family::Quantization => (0, "quantization"),
        Family::Joint => (1, "joint"),
        Family::Pruning => (2, "pruning"),
    }
}

/// One point of a scatter plot over TCr.
struct Point<'a> {
    configuration: &'a ConfigurationResult,
    /// Where it is drawn: the value, or its decimal logarithm.
    value: f64,
    interval: Option<Interval>,
    shown: String,
}

/// How a vertical axis is drawn.
struct Vertical {
    name: &'static str,
    lower_is_better: bool,
    tick: fn(f64) -> String,
}

/// Sr over TCr, with intervals and the Pareto front of each family.
pub(crate) fn retention(results: &SweepResults) -> String {
    let points: Vec<Point<'_>> = results
        .configurations
        .iter()
        .filter_map(|configuration| {
            let kept = configuration.retention.as_ref()?;
            Some(Point { configuration, value: kept.sr, interval: Some(kept.interval), shown: number(kept.sr, 3) })
        })
        .collect();
    let vertical = Vertical { name: "Sr", lower_is_better: false, tick: |value| number(value, 2) };
    scatter("figure-retention", "Semantic retention over compression", &vertical, &points)
}

/// KL over TCr, on a logarithmic axis: configurations lie orders of magnitude apart.
pub(crate) fn divergence(results: &SweepResults) -> String {
    let points: Vec<Point<'_>> = results
        .configurations
        .iter()
        .filter(|configuration| configuration.kl.is_finite())
        .map(|configuration| Point {
            configuration,
            value: configuration.kl.max(SMALLEST_KL).log10(),
            interval: None,
            shown: number(configuration.kl, 4),
        })
        .collect();
    let vertical = Vertical {
        name: "KL, nats a token (log)",
        lower_is_better: true,
        tick: |value| number(10_f64.powf(value), (0.5 - value).ceil().clamp(0.0, 6.0) as usize),
    };
    scatter("figure-divergence", "Divergence from the base over compression", &vertical, &points)
}

fn scatter(id: &str, title: &str, vertical: &Vertical, points: &[Point<'_>]) -> String {
    if points.is_empty() {
        return figure(id, 640, 60, title, "No configuration has this value.", &text(20.0, 35.0, "label", "no values"));
    }
    let fold =
        |pick: fn(f64, f64) -> f64, start: f64, of: &dyn Fn(&Point<'_>) -> f64| points.iter().map(of).fold(start, pick);
    let low = fold(f64::min, f64::INFINITY, &|p| p.interval.map_or(p.value, |i| i.low.min(p.value)));
    let high = fold(f64::max, f64::NEG_INFINITY, &|p| p.interval.map_or(p.value, |i| i.high.max(p.value)));
    let margin = 0.06 * (high - low).max(0.01);
    let x_low = fold(f64::min, f64::INFINITY, &|p| p.configuration.tcr) - 0.02;
    let x_high = fold(f64::max, f64::NEG_INFINITY, &|p| p.configuration.tcr) + 0.02;
    let x = Scale::new(x_low, x_high, 78.0, 620.0);
    let y = Scale::new(low - margin, high + margin, 300.0, 34.0);
    let rates: Vec<f64> = points.iter().map(|p| p.configuration.tcr).collect();
    let names = ("theoretical compression rate TCr", vertical.name);
    let whole = |v: f64| percent(v, if (100.0 * v).fract().abs() < 0.01 { 0 } else { 2 });
    let mut body = axes(&x, &rates, &y, names, whole, vertical.tick);
    let mut told = Vec::new();
    for family in FAMILIES {
        let members: Vec<&Point<'_>> = points.iter().filter(|p| p.configuration.family == family).collect();
        if members.is_empty() {
            continue;
        }
        let (shape, class) = style(family);
        let sign = if vertical.lower_is_better { -1.0 } else { 1.0 };
        let places: Vec<(f64, f64)> = members.iter().map(|p| (p.configuration.tcr, sign * p.value)).collect();
        let mut front: Vec<&&Point<'_>> = pareto_front(&places).into_iter().filter_map(|i| members.get(i)).collect();
        front.sort_by(|a, b| a.configuration.tcr.total_cmp(&b.configuration.tcr));
        let path: Vec<String> =
            front.iter().map(|p| format!("{:.1},{:.1}", x.at(p.configuration.tcr), y.at(p.value))).collect();
        let _ = write!(body, "<polyline points=\"{}\" class=\"front {class}\"/>", path.join(" "));
        for (index, point) in members.iter().enumerate() {
            // Points at one rate stand side by side.
            let shift = (shape as f64 - 1.0) * 7.0 + (index % 3) as f64 * 2.0 - 2.0;
            let at = x.at(point.configuration.tcr) + shift;
            if let Some(interval) = point.interval {
                body += &line(at, y.at(interval.low), at, y.at(interval.high), &format!("bar {class}"));
            }
            let hover = format!("{} ({family}): {}", point.configuration.recipe, point.shown);
            body += &marker(at, y.at(point.value), shape, class, &hover);
        }
        told.push(format!("{family}: {} configurations", members.len()));
    }
    body += &legend(points.iter().map(|p| p.configuration.family));
    let description = format!(
        "{title}, {}. Lines join the Pareto front of each family; bars are 95 percent intervals.",
        told.join(", ")
    );
    figure(id, 640, 350, title, &description, &body)
}

fn legend(present: impl Iterator<Item = Family>) -> String {
    let present: Vec<Family> = present.collect();
    let mut body = String::new();
    let mut at = 84.0;
    for family in FAMILIES.into_iter().filter(|family| present.contains(family)) {
        let (shape, class) = style(family);
        body += &marker(at, 16.0, shape, class, &family.to_string());
        body += &text(at + 11.0, 20.0, "tick", &family.to_string());
        at += 40.0 + 7.0 * family.to_string().len() as f64;
    }
    body
}

/// SrCr over the grid of sparsities and bits: measured cells show SrCr, the others what full retention would give.
pub(crate) fn srcr_grid(results: &SweepResults) -> String {
    let uniform = || results.configurations.iter().filter(|c| !c.allocated);
    let mut sparsities: Vec<f64> = uniform().map(|c| c.sparsity).collect();
    sparsities.sort_by(f64::total_cmp);
    sparsities.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    let mut bits: Vec<f64> = uniform().map(|c| c.bits).collect();
    bits.sort_by(f64::total_cmp);
    bits.dedup();
    let (width, height) = (92.0, 40.0);
    let (left, top) = (90.0, 30.0);
    let mut body = String::new();
    for (row, sparsity) in sparsities.iter().enumerate() {
        let y = top + row as f64 * height;
        body += &text(left - 8.0, y + 25.0, "tick end", &format!("s = {}", number(*sparsity, 2)));
        for (column, q) in bits.iter().enumerate() {
            let x = left + column as f64 * width;
            if row == 0 {
                body += &text(x + width / 2.0, top - 10.0, "tick middle", &format!("{q} bit"));
            }
            let measured = results
                .configurations
                .iter()
                .enumerate()
                .filter(|(_, c)| !c.allocated && c.bits == *q && (c.sparsity - sparsity).abs() < 1e-9)
                .filter_map(|(index, c)| c.srcr.map(|srcr| (index, srcr)))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            let limit = SrcrForm::SqrtLog.weight(*sparsity, *q).unwrap_or(0.0);
            let (class, opacity, shown, hover) = if let Some((index, srcr)) = measured {
                let is_best = Some(index) == results.best_srcr;
                let recipe = &results.configurations[index].recipe;
                let shown = format!("{}{}", number(srcr, 3), if is_best { " ★" } else { "" });
                // Never so dark that the number on it cannot be read.
                let opacity = 0.55 * srcr.clamp(0.0, 1.0);
                let class = if is_best { "cell best" } else { "cell" };
                (class, opacity, shown, format!("{recipe}: SrCr {}", number(srcr, 3)))
            } else {
                let hover = format!("not measured; at most {}", number(limit, 3));
                ("cell empty", 0.0, format!("≤ {}", number(limit, 2)), hover)
            };
            let _ = write!(
                body,
                "<g class=\"{class}\"><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 style=\"fill-opacity:{opacity:.3}\"><title>{}</title></rect>{}</g>",
                width - 3.0,
                height - 3.0,
                super::cells::escape(&hover),
                text(
                    x + width / 2.0,
                    y + 24.0,
                    if measured.is_some() { "value middle" } else { "tick middle" },
                    &shown
                )
            );
        }
    }
    let size = (left + bits.len() as f64 * width + 10.0, top + sparsities.len() as f64 * height + 10.0);
    let best = results.best_srcr.and_then(|best| results.configurations.get(best));
    let description = best.map_or_else(
        || "No SrCr was measured.".to_owned(),
        |best| format!("The largest SrCr, {}, is at {}.", number(best.srcr.unwrap_or(0.0), 3), best.recipe),
    );
    figure("figure-srcr", size.0 as u32, size.1 as u32, "SrCr over sparsity and bits", &description, &body)
}

/// Sr of every task, one small plot each.
pub(crate) fn tasks(results: &SweepResults) -> String {
    let mut out = String::new();
    for (index, base) in results.base.tasks.iter().enumerate() {
        let id = format!("figure-task-{index}");
        let points: Vec<(&ConfigurationResult, f64, Interval)> = results
            .configurations
            .iter()
            .filter_map(|configuration| {
                let kept = configuration.retention.as_ref()?;
                let task = kept.tasks.iter().find(|task| task.name == base.name)?;
                Some((configuration, task.sr, task.interval))
            })
            .collect();
        let title = format!("{}: base {}", base.name, percent(base.accuracy, 1));
        if points.is_empty() {
            let body = text(20.0, 35.0, "label", "left out: the base is not above chance");
            out += &figure(&id, 300, 60, &title, "This task is left out of Sr.", &body);
            continue;
        }
        let high = points.iter().map(|p| p.2.high.max(p.1)).fold(1.0, f64::max);
        let x = Scale::new(0.0, high * 1.02, 60.0, 290.0);
        let row = 18.0;
        let height = 34.0 + row * points.len() as f64;
        let mut body = text(4.0, 14.0, "label", &title);
        body += &line(x.at(1.0), 22.0, x.at(1.0), height - 6.0, "grid");
        for (place, (configuration, sr, interval)) in points.iter().enumerate() {
            let y = 32.0 + row * place as f64;
            let (shape, class) = style(configuration.family);
            let short = format!("{} · {}", number(configuration.sparsity, 2), bits(configuration.bits));
            body += &text(54.0, y + 4.0, "tick end", &short);
            body += &line(x.at(0.0), y, x.at(*sr), y, &format!("stem {class}"));
            body += &line(x.at(interval.low), y, x.at(interval.high), y, &format!("bar {class}"));
            let hover = format!(
                "{}: Sr {} [{}, {}]",
                configuration.recipe,
                number(*sr, 3),
                number(interval.low, 3),
                number(interval.high, 3)
            );
            body += &marker(x.at(*sr), y, shape, class, &hover);
        }
        let description = format!(
            "Sr on {} for {} configurations, labelled sparsity and bits; the line is the base.",
            base.name,
            points.len()
        );
        out += &figure(&id, 300, height as u32, &title, &description, &body);
    }
    out
}
