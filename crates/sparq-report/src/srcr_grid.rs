//! SrCr over the grid of sparsities and bits.

use crate::cells::number;
use crate::figure::{Area, Figure, Mark, Opacity, Px, text};
use sparq_metric::SrcrForm;
use sparq_sweep::{ConfigurationResult, SweepResults};

const WIDTH: f64 = 92.0;
const HEIGHT: f64 = 40.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 30.0;

/// Measured cells show SrCr. The others show the SrCr of full retention, which is the most they could reach.
pub(crate) fn srcr_grid(results: &SweepResults) -> Figure {
    let uniform: Vec<(usize, &ConfigurationResult)> =
        results.configurations.iter().enumerate().filter(|(_, c)| !c.allocated).collect();
    let mut sparsities: Vec<f64> = uniform.iter().map(|(_, c)| c.sparsity).collect();
    sparsities.sort_by(f64::total_cmp);
    sparsities.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    let mut bits: Vec<f64> = uniform.iter().map(|(_, c)| c.bits).collect();
    bits.sort_by(f64::total_cmp);
    bits.dedup();
    let mut marks = Vec::new();
    for (row, &sparsity) in sparsities.iter().enumerate() {
        let y = TOP + row as f64 * HEIGHT;
        marks.push(text(LEFT - 8.0, y + 25.0, "tick end", format!("s = {}", number(sparsity, 2))));
        for (column, &q) in bits.iter().enumerate() {
            let x = LEFT + column as f64 * WIDTH;
            if row == 0 {
                marks.push(text(x + WIDTH / 2.0, TOP - 10.0, "tick middle", format!("{q} bit")));
            }
            let of_cell = uniform.iter().filter(|(_, c)| c.bits == q && (c.sparsity - sparsity).abs() < 1e-9);
            let measured = of_cell.filter_map(|(index, c)| Some((*index, c.srcr?))).max_by(|a, b| a.1.total_cmp(&b.1));
            marks.push(match measured {
                Some((index, srcr)) => measured_cell((x, y), results, index, srcr),
                None => empty_cell((x, y), SrcrForm::SqrtLog.weight(sparsity, q).unwrap_or(0.0)),
            });
        }
    }
    let best = results.best_srcr.and_then(|best| results.configurations.get(best));
    let description = best.map_or_else(
        || "No SrCr was measured.".to_owned(),
        |best| format!("The largest SrCr, {}, is at {}.", number(best.srcr.unwrap_or(0.0), 3), best.recipe),
    );
    Figure {
        id: "figure-srcr".to_owned(),
        width: (LEFT + bits.len() as f64 * WIDTH + 10.0) as u32,
        height: (TOP + sparsities.len() as f64 * HEIGHT + 10.0) as u32,
        title: "SrCr over sparsity and bits".to_owned(),
        description,
        marks,
    }
}

fn measured_cell(corner: (f64, f64), results: &SweepResults, index: usize, srcr: f64) -> Mark {
    let is_best = Some(index) == results.best_srcr;
    let shown = format!("{}{}", number(srcr, 3), if is_best { " ★" } else { "" });
    let hover = format!("{}: SrCr {}", results.configurations[index].recipe, number(srcr, 3));
    // Never so dark that the number on it cannot be read.
    let opacity = 0.55 * srcr.clamp(0.0, 1.0);
    cell(corner, if is_best { "cell best" } else { "cell" }, opacity, hover, ("value middle", shown))
}

fn empty_cell(corner: (f64, f64), limit: f64) -> Mark {
    let hover = format!("not measured; at most {}", number(limit, 3));
    cell(corner, "cell empty", 0.0, hover, ("tick middle", format!("≤ {}", number(limit, 2))))
}

fn cell(
    (x, y): (f64, f64),
    class: &'static str,
    opacity: f64,
    hover: String,
    (label_class, shown): (&'static str, String),
) -> Mark {
    let label = Box::new(text(x + WIDTH / 2.0, y + 24.0, label_class, shown));
    let area = Area { x: Px(x), y: Px(y), width: Px(WIDTH - 3.0), height: Px(HEIGHT - 3.0), opacity: Opacity(opacity) };
    Mark::Cell { class, area, hover, label }
}
