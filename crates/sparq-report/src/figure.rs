//! The shapes that figures are made of, and the scales that place them. The template turns them into SVG.

use serde::{Serialize, Serializer};

/// A position or length in pixels. It is written with one decimal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Px(pub(crate) f64);

impl Serialize for Px {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.1}", self.0))
    }
}

/// An opacity, 0 to 1. It is written with three decimals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Opacity(pub(crate) f64);

impl Serialize for Opacity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

/// A figure. Title and description are for readers who cannot see it.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) id: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) marks: Vec<Mark>,
}

/// One element of a figure. Classes name the rules of `style.css` that give colour and size.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Mark {
    Text { x: Px, y: Px, class: &'static str, text: String },
    Rotated { x: Px, y: Px, text: &'static str },
    Line { x1: Px, y1: Px, x2: Px, y2: Px, class: String },
    Polyline { points: Vec<(Px, Px)>, class: String },
    Circle { x: Px, y: Px, class: &'static str, hover: String },
    Square { x: Px, y: Px, class: &'static str, hover: String },
    Triangle { x: Px, y: Px, class: &'static str, hover: String },
    Shade { area: Area, hover: Option<String> },
    Cell { class: &'static str, area: Area, hover: String, label: Box<Mark> },
}

/// A rectangle that is filled with this opacity.
#[derive(Debug, Serialize)]
pub(crate) struct Area {
    pub(crate) x: Px,
    pub(crate) y: Px,
    pub(crate) width: Px,
    pub(crate) height: Px,
    pub(crate) opacity: Opacity,
}

/// Text whose baseline starts at a position; `class` sets size and anchor.
pub(crate) fn text(x: f64, y: f64, class: &'static str, text: impl Into<String>) -> Mark {
    Mark::Text { x: Px(x), y: Px(y), class, text: text.into() }
}

pub(crate) fn line(from: (f64, f64), to: (f64, f64), class: impl Into<String>) -> Mark {
    Mark::Line { x1: Px(from.0), y1: Px(from.1), x2: Px(to.0), y2: Px(to.1), class: class.into() }
}

/// A linear scale from values to pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    /// Maps `low..=high` to `start..=end`. An empty range is widened.
    pub(crate) fn new(low: f64, high: f64, start: f64, end: f64) -> Self {
        let (low, high) = if high - low > 1e-9 { (low, high) } else { (low - 0.5, high + 0.5) };
        Self { from: (low, high), to: (start, end) }
    }

    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = (value - self.from.0) / (self.from.1 - self.from.0);
        self.to.0 + share * (self.to.1 - self.to.0)
    }

    /// The values themselves if there is room to write each of them, otherwise round numbers.
    fn ticks_at(&self, values: &[f64]) -> Vec<f64> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|a, b| (self.at(*a) - self.at(*b)).abs() < 1.0);
        let crowded = values.windows(2).any(|two| (self.at(two[1]) - self.at(two[0])).abs() < 50.0);
        if crowded || values.is_empty() { self.ticks(6) } else { values }
    }

    /// Round numbers inside the range, about `count` of them.
    fn ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.from.1 - self.from.0) / count.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.from.0 / step).ceil() as i64;
        (first..).map(|index| index as f64 * step).take_while(|value| *value <= self.from.1 + 1e-9).take(50).collect()
    }
}

/// One axis: its scale, its name, and how its ticks are written.
pub(crate) struct Axis<'a> {
    pub(crate) scale: Scale,
    pub(crate) name: &'static str,
    pub(crate) tick: &'a dyn Fn(f64) -> String,
}

/// Two axes with ticks and names. The horizontal one has its ticks at `marked` if there is room.
pub(crate) fn axes(x: &Axis<'_>, marked: &[f64], y: &Axis<'_>) -> Vec<Mark> {
    let ((left, right), (bottom, top)) = (x.scale.to, y.scale.to);
    let mut marks = Vec::new();
    for tick in x.scale.ticks_at(marked) {
        let at = x.scale.at(tick);
        marks.push(line((at, bottom), (at, top), "grid"));
        marks.push(text(at, bottom + 16.0, "tick middle", (x.tick)(tick)));
    }
    for tick in y.scale.ticks(5) {
        let at = y.scale.at(tick);
        marks.push(line((left, at), (right, at), "grid"));
        marks.push(text(left - 6.0, at + 4.0, "tick end", (y.tick)(tick)));
    }
    marks.push(line((left, bottom), (right, bottom), "axis"));
    marks.push(line((left, bottom), (left, top), "axis"));
    marks.push(text(f64::midpoint(left, right), bottom + 34.0, "label middle", x.name));
    marks.push(Mark::Rotated { x: Px(left - 58.0), y: Px(f64::midpoint(bottom, top)), text: y.name });
    marks
}
