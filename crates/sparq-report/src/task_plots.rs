//! Sr of every task, one small plot each.

use crate::cells::{bits, number, percent};
use crate::family::{class, marker};
use crate::figure::{Figure, Scale, line, text};
use sparq_metric::Interval;
use sparq_sweep::{ConfigurationResult, SweepResults, TaskAccuracy};

/// Height of a configuration's row, in pixels.
const ROW: f64 = 18.0;

/// One plot for each task of the base.
pub(crate) fn task_plots(results: &SweepResults) -> Vec<Figure> {
    let plot = |(index, base)| task_plot(format!("figure-task-{index}"), base, &results.configurations);
    results.base.tasks.iter().enumerate().map(plot).collect()
}

fn task_plot(id: String, base: &TaskAccuracy, configurations: &[ConfigurationResult]) -> Figure {
    let point = |configuration| -> Option<(&ConfigurationResult, f64, Interval)> {
        let configuration: &ConfigurationResult = configuration;
        let kept = configuration.retention.as_ref()?;
        let task = kept.tasks.iter().find(|task| task.name == base.name)?;
        Some((configuration, task.sr, task.interval))
    };
    let points: Vec<_> = configurations.iter().filter_map(point).collect();
    let title = format!("{}: base {}", base.name, percent(base.accuracy, 1));
    if points.is_empty() {
        let marks = vec![text(20.0, 35.0, "label", "left out: the base is not above chance")];
        let description = "This task is left out of Sr.".to_owned();
        return Figure { id, width: 300, height: 60, title, description, marks };
    }
    let high = points.iter().map(|p| p.2.high.max(p.1)).fold(1.0, f64::max);
    let x = Scale::new(0.0, high * 1.02, 60.0, 290.0);
    let height = 34.0 + ROW * points.len() as f64;
    let mut marks = vec![text(4.0, 14.0, "label", &*title), line((x.at(1.0), 22.0), (x.at(1.0), height - 6.0), "grid")];
    for (place, (configuration, sr, interval)) in points.iter().enumerate() {
        let y = 32.0 + ROW * place as f64;
        let class = class(configuration.family);
        let short = format!("{} · {}", number(configuration.sparsity, 2), bits(configuration.bits));
        marks.push(text(54.0, y + 4.0, "tick end", short));
        marks.push(line((x.at(0.0), y), (x.at(*sr), y), format!("stem {class}")));
        marks.push(line((x.at(interval.low), y), (x.at(interval.high), y), format!("bar {class}")));
        let [sr_shown, low, high] = [*sr, interval.low, interval.high].map(|value| number(value, 3));
        let hover = format!("{}: Sr {sr_shown} [{low}, {high}]", configuration.recipe);
        marks.push(marker(x.at(*sr), y, configuration.family, hover));
    }
    let description = format!(
        "Sr on {} for {} configurations, labelled sparsity and bits; the line is the base.",
        base.name,
        points.len()
    );
    Figure { id, width: 300, height: height as u32, title, description, marks }
}
