//! How sure the report is: what was compared, and what each comparison says.

use super::cells::{escape, number, percent, with_interval};
use crate::{Difference, SweepResults};
use std::fmt::Write;

/// How many comparisons were made and what each single test says.
pub(super) fn section(results: &SweepResults) -> String {
    let mut body = format!("<h2>How sure</h2><p id=\"comparisons\">{}</p>", escape(&results.comparisons));
    let name = |index: usize| results.configurations.get(index).map_or("", |other| other.recipe.as_str());
    body += &pairs(results, name);
    let mut rows = String::new();
    for verdict in &results.verdicts {
        for test in &verdict.tests {
            let _ = write!(
                rows,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(name(verdict.winner)),
                escape(verdict.runner_up.map_or("", name)),
                escape(&test.task),
                test.only_winner,
                test.only_other,
                number(test.p_value, 4),
                number(test.adjusted_p_value, 4)
            );
        }
    }
    if !rows.is_empty() {
        let _ = write!(
            body,
            "<details><summary>Task by task: McNemar's exact test of the two that are compared at each rate</summary><div class=\"scroll\"><table class=\"sortable\"><thead><tr><th>winner</th><th>other</th>\
             <th>task</th><th>only the winner right</th><th>only the other right</th><th>p</th><th>p, Holm</th></tr>\
             </thead><tbody>{rows}</tbody></table></div></details>"
        );
    }
    body
}

/// Every two configurations at one rate.
fn pairs<'a>(results: &SweepResults, name: impl Fn(usize) -> &'a str) -> String {
    let difference = |difference: Option<Difference>, digits: usize| {
        difference.map(|it| with_interval(it.value, it.interval, digits)).unwrap_or_default()
    };
    let mut rows = String::new();
    for pair in &results.differences {
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            percent(pair.tcr, 2),
            escape(name(pair.first)),
            escape(name(pair.second)),
            difference(pair.kl, 4),
            difference(pair.sr, 3),
            pair.sr_p_value.map_or_else(String::new, |p| number(p, 4))
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<details><summary>Two by two: what configurations at one rate differ by, paired by window and by item, 95 % \
         intervals, not adjusted for the number of pairs</summary><div class=\"scroll\"><table class=\"sortable\" \
         id=\"pairs\"><thead><tr><th>TCr</th><th>first</th><th>second</th><th>KL, first - second</th><th>Sr, first - \
         second</th><th>p of Sr</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
}
