use crate::cells::{number, percent, perplexity, sr_cell, srcr_cell, task_cell, task_names};
use sparq_sweep::SweepResults;

/// The rows of the table: a header, the base, every configuration.
pub(crate) fn rows(results: &SweepResults) -> Vec<Vec<String>> {
    let tasks = task_names(results);
    let fixed = ["configuration", "TCr", "zeros", "bits/w", "coded", "perplexity", "KL", "Sr", "SrCr"];
    let mut header: Vec<String> = fixed.iter().map(|&name| name.to_owned()).collect();
    header.extend(tasks.iter().map(|name| format!("Sr {name}")));
    header.push("seconds".to_owned());
    let mut base = vec!["base".to_owned(), percent(0.0, 2), String::new(), "16".to_owned(), "16".to_owned()];
    base.extend([perplexity(results.base.perplexity), number(0.0, 4), String::new(), String::new()]);
    base.extend(results.base.tasks.iter().map(|task| format!("accuracy {}", percent(task.accuracy, 1))));
    base.push(number(results.base.seconds, 0));
    let mut rows = vec![header, base];
    for configuration in &results.configurations {
        let mut row = vec![
            configuration.recipe.clone(),
            percent(configuration.tcr, 2),
            percent(configuration.measured_sparsity, 1),
            number(configuration.bits_per_weight, 2),
            number(configuration.coded_bits_per_weight, 2),
            perplexity(configuration.perplexity),
            number(configuration.kl, 4),
            sr_cell(configuration),
            srcr_cell(configuration),
        ];
        row.extend(tasks.iter().map(|name| task_cell(configuration, name)));
        row.push(number(configuration.compress_seconds + configuration.evaluate_seconds, 0));
        rows.push(row);
    }
    rows
}

/// The results as a plain-text table for a terminal: what was asked for, what was measured, what is kept.
///
/// Sr is given with its 95 % interval, for each task and overall.
pub fn table(results: &SweepResults) -> String {
    let rows = rows(results);
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
        if index == 0 {
            text.push_str(&"-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)));
            text.push('\n');
        }
    }
    text
}
