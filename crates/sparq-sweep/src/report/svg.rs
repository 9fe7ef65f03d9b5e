//! The few SVG parts the figures are made of. Colours are CSS variables, so figures follow the page's scheme.

use super::cells::escape;
use std::fmt::Write;

/// A linear scale from values to pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    /// Maps `low..=high` to `start..=end`; an empty range is widened.
    pub(crate) fn new(low: f64, high: f64, start: f64, end: f64) -> Self {
        let (low, high) = if high - low > 1e-9 { (low, high) } else { (low - 0.5, high + 0.5) };
        Self { from: (low, high), to: (start, end) }
    }

    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = (value - self.from.0) / (self.from.1 - self.from.0);
        self.to.0 + share * (self.to.1 - self.to.0)
    }

    /// The values themselves where they are few and far enough apart to be written, else round numbers.
    pub(crate) fn ticks_at(&self, values: &[f64]) -> Vec<f64> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|a, b| (self.at(*a) - self.at(*b)).abs() < 1.0);
        let crowded = values.windows(2).any(|two| (self.at(two[1]) - self.at(two[0])).abs() < 50.0);
        if crowded || values.is_empty() { self.ticks(6) } else { values }
    }

    /// Round numbers inside the range, about `count` of them.
    pub(crate) fn ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.from.1 - self.from.0) / count.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.from.0 / step).ceil() as i64;
        (first..).map(|index| index as f64 * step).take_while(|value| *value <= self.from.1 + 1e-9).take(50).collect()
    }
}

/// A figure with title and description for those who cannot see it.
pub(crate) fn figure(id: &str, width: u32, height: u32, title: &str, description: &str, body: &str) -> String {
    format!(
        "<svg id=\"{id}\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\
         <title id=\"{id}-title\">{}</title><desc id=\"{id}-desc\">{}</desc>{body}</svg>",
        escape(title),
        escape(description)
    )
}

/// Text at a place; `class` sets size and anchor.
pub(crate) fn text(x: f64, y: f64, class: &str, content: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(content))
}

pub(crate) fn line(x1: f64, y1: f64, x2: f64, y2: f64, class: &str) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>")
}

/// Axes with ticks and labels: `x` and `y` map values to pixels, `format` writes them, `marked` are the values of `x` that
/// matter.
pub(crate) fn axes(
    x: &Scale,
    marked: &[f64],
    y: &Scale,
    names: (&str, &str),
    format_x: impl Fn(f64) -> String,
    format_y: impl Fn(f64) -> String,
) -> String {
    let mut out = String::new();
    let (left, right, bottom, top) = (x.to.0, x.to.1, y.to.0, y.to.1);
    for tick in x.ticks_at(marked) {
        let at = x.at(tick);
        out += &line(at, bottom, at, top, "grid");
        out += &text(at, bottom + 16.0, "tick middle", &format_x(tick));
    }
    for tick in y.ticks(5) {
        let at = y.at(tick);
        out += &line(left, at, right, at, "grid");
        out += &text(left - 6.0, at + 4.0, "tick end", &format_y(tick));
    }
    out += &line(left, bottom, right, bottom, "axis");
    out += &line(left, bottom, left, top, "axis");
    out += &text(f64::midpoint(left, right), bottom + 34.0, "label middle", names.0);
    let middle = f64::midpoint(bottom, top);
    let _ = write!(
        out,
        "<text x=\"{0:.1}\" y=\"{middle:.1}\" class=\"label middle\" transform=\"rotate(-90 {0:.1} {middle:.1})\">{1}</text>",
        left - 58.0,
        escape(names.1)
    );
    out
}

/// A marker of a family: circle, square or triangle, so that colour is not needed to tell them apart.
pub(crate) fn marker(x: f64, y: f64, shape: usize, class: &str, hover: &str) -> String {
    let hover = escape(hover);
    match shape {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" class=\"{class}\"><title>{hover}</title></circle>"),
        1 => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" class=\"{class}\"><title>{hover}</title></rect>",
            x - 5.0,
            y - 5.0
        ),
        _ => format!("<path d=\"M{:.1} {:.1}l6 11h-12z\" class=\"{class}\"><title>{hover}</title></path>", x, y - 7.0),
    }
}
