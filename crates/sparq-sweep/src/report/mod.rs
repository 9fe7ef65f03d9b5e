//! What people look at: `report.html` and `results.csv`.
use crate::SweepResults;

/// The report.
pub fn html(results: &SweepResults) -> String {
    let _ = results;
    String::new()
}
/// The table.
pub fn csv(results: &SweepResults) -> String {
    let _ = results;
    String::new()
}
/// The table for a terminal.
pub fn table(results: &SweepResults) -> String {
    let _ = results;
    String::new()
}
/// The table in Markdown.
pub fn markdown(results: &SweepResults) -> String {
    let _ = results;
    String::new()
}
