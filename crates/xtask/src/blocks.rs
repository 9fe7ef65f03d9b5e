//! What a page gets from raw results: tables of configurations, claims about two of them, and sentences with figures.

use crate::Raw;
use crate::raw::number;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use std::fmt::Write;

/// One declared block.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Block {
    Table(Table),
    Claims(Claims),
    Sentences(Sentences),
}

/// A row for each configuration; figures of several files are those of several seeds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    files: Vec<String>,
    columns: Vec<String>,
    /// What a row is called, and its recipe.
    rows: Vec<(String, String)>,
}

/// Whether one configuration is better than another, for every file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    files: Vec<String>,
    /// `kl` or `sr`.
    metric: String,
    #[serde(rename = "claims")]
    all: Vec<Claim>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    /// What is compared with what.
    says: String,
    recipe: String,
    /// Recipes; the best of them is the one compared with.
    against: Vec<String>,
}

/// Lines in which `{FILE|RECIPE|/pointer|DIGITS}` stands for a figure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sentences {
    lines: Vec<String>,
}

/// How the figures of several files become one cell.
#[derive(Clone, Copy)]
enum Over {
    Mean,
    Each,
    /// The first file's, with the interval at this pointer.
    First(&'static str),
}

#[derive(Clone, Copy)]
struct Column<'a> {
    name: &'a str,
    header: &'a str,
    pointer: &'a str,
    factor: f64,
    digits: usize,
    over: Over,
}

const fn column<'a>(name: &'a str, header: &'a str, pointer: &'a str, digits: usize) -> Column<'a> {
    Column { name, header, pointer, factor: 1.0, digits, over: Over::Mean }
}

const COLUMNS: [Column<'_>; 8] = [
    Column { factor: 100.0, ..column("tcr", "TCr, %", "/tcr", 2) },
    Column { factor: 100.0, ..column("zeros", "zeros, %", "/measured_sparsity", 1) },
    column("stored", "stored bits", "/bits_per_weight", 2),
    column("coded", "coded bits", "/coded_bits_per_weight", 2),
    column("perplexity", "perplexity", "/perplexity", 2),
    column("kl", "KL", "/kl", 4),
    Column { over: Over::Each, ..column("kl-each", "KL, each seed", "/kl", 4) },
    Column { over: Over::First("/kl_interval"), ..column("kl-interval", "KL, 95 % interval", "/kl", 4) },
];

impl Block {
    /// Its lines.
    pub(crate) fn render(&self, raw: &Raw) -> Result<Vec<String>> {
        match self {
            Self::Table(table) => table.render(raw),
            Self::Claims(claims) => claims.render(raw),
            Self::Sentences(sentences) => sentences.lines.iter().map(|line| filled(line, raw)).collect(),
        }
    }
}

impl Table {
    fn render(&self, raw: &Raw) -> Result<Vec<String>> {
        let columns: Vec<Column<'_>> = self.columns.iter().map(|name| Column::named(name)).collect::<Result<_>>()?;
        let headers: Vec<String> = columns.iter().map(|column| column.header.to_owned()).collect();
        let mut lines = vec![line("configuration", &headers), format!("|---|{}", "---:|".repeat(columns.len()))];
        for (label, recipe) in &self.rows {
            let of_file = |file: &String| raw.configuration(file, recipe);
            let measured: Vec<&Value> = self.files.iter().map(of_file).collect::<Result<_>>()?;
            let cell =
                |column: &Column<'_>| column.cell(&measured).with_context(|| format!("{recipe}, {}", column.name));
            lines.push(line(&named_row(label, recipe), &columns.iter().map(cell).collect::<Result<Vec<_>>>()?));
        }
        Ok(lines)
    }
}

/// The first cell of a row. Where a measurement is of no recipe, its label says it all.
fn named_row(label: &str, recipe: &str) -> String {
    let is_recipe = recipe.split(',').all(|setting| setting.contains('='));
    match (label, is_recipe) {
        ("", _) => format!("`{recipe}`"),
        (label, true) => format!("{label}: `{recipe}`"),
        (label, false) => label.to_owned(),
    }
}

impl<'a> Column<'a> {
    /// One of [`COLUMNS`], or `HEADER|/pointer|DIGITS`.
    fn named(name: &'a str) -> Result<Self> {
        if let [header, pointer, digits] = name.split('|').collect::<Vec<_>>()[..] {
            return Ok(column(name, header, pointer, digits.parse().with_context(|| name.to_owned())?));
        }
        let known = COLUMNS.iter().find(|column| column.name == name);
        known.copied().with_context(|| format!("there is no column {name:?}"))
    }

    fn cell(&self, measured: &[&Value]) -> Result<String> {
        let figures: Vec<f64> =
            measured.iter().map(|one| Ok(number(one, self.pointer)? * self.factor)).collect::<Result<_>>()?;
        let digits = self.digits;
        Ok(match self.over {
            Over::Mean => format!("{:.digits$}", mean(&figures)),
            Over::Each => figures.iter().map(|figure| format!("{figure:.digits$}")).collect::<Vec<_>>().join(", "),
            Over::First(pointer) => {
                let end = |end: &str| number(measured[0], &format!("{pointer}/{end}"));
                format!("{:.digits$} [{:.digits$}, {:.digits$}]", figures[0], end("low")?, end("high")?)
            }
        })
    }
}

/// Differences of KL within this share count as a tie: another draw of the last bits makes as much.
const TIE: f64 = 0.03;
/// Seeds that a claim takes.
const SEEDS: usize = 3;

impl Claims {
    fn render(&self, raw: &Raw) -> Result<Vec<String>> {
        // Less KL and more Sr are better.
        let (pointer, digits, sign, tie) = match self.metric.as_str() {
            "kl" => ("/kl", 4, -1.0, TIE),
            "sr" => ("/retention/sr", 3, 1.0, 0.0),
            other => bail!("there is no metric {other:?}"),
        };
        let headers = ["with", "against", "better by, %", "difference for each seed, 95 % interval", "shown"];
        let mut lines =
            vec![line("comparison", &headers.map(str::to_owned)), "|---|---:|---:|---:|---|---|".to_owned()];
        for claim in &self.all {
            let of = |recipe: &str| -> Result<f64> {
                let each = |file: &String| number(raw.configuration(file, recipe)?, pointer);
                Ok(mean(&self.files.iter().map(each).collect::<Result<Vec<_>>>()?))
            };
            let mut strongest: Option<(f64, &str)> = None;
            for recipe in &claim.against {
                let figure = of(recipe)?;
                if strongest.is_none_or(|(best, _)| sign * figure > sign * best) {
                    strongest = Some((figure, recipe));
                }
            }
            let (theirs, against) = strongest.with_context(|| format!("{:?} is against nothing", claim.says))?;
            let ours = of(&claim.recipe)?;
            let share = sign * (ours - theirs) / theirs;
            let differences: Vec<[f64; 3]> = (self.files.iter())
                .map(|file| raw.difference(file, [&claim.recipe, against], &self.metric))
                .collect::<Result<_>>()?;
            let shown = |[value, low, high]: &[f64; 3]| format!("{value:.digits$} [{low:.digits$}, {high:.digits$}]");
            let cells = [
                format!("{ours:.digits$}"),
                format!("{theirs:.digits$}"),
                ((100.0 * share).round() as i64).to_string(),
                differences.iter().map(shown).collect::<Vec<_>>().join(", "),
                verdict(share.abs() <= tie, &differences, sign).to_owned(),
            ];
            let says =
                if claim.against.len() > 1 { format!("{} (`{against}`)", claim.says) } else { claim.says.clone() };
            lines.push(line(&says, &cells));
        }
        Ok(lines)
    }
}

/// Whether differences show what is claimed: by every one of three seeds, beyond its interval.
fn verdict(is_tie: bool, differences: &[[f64; 3]], sign: f64) -> &'static str {
    let beyond = |better: f64| differences.iter().all(|[_, low, high]| better * low > 0.0 && better * high > 0.0);
    if is_tie {
        "tie"
    } else if differences.len() < SEEDS {
        "too few seeds"
    } else if beyond(sign) {
        "yes"
    } else if beyond(-sign) {
        "no, worse"
    } else {
        "no"
    }
}

/// A line whose figures are filled in.
fn filled(line: &str, raw: &Raw) -> Result<String> {
    let (mut out, mut rest) = (String::new(), line);
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, behind) = after.split_once('}').with_context(|| format!("{line:?} has no end of a figure"))?;
        let parts: Vec<&str> = inside.split('|').collect();
        let [files, recipe, pointer, digits] = parts[..] else {
            bail!("{inside:?} is not FILES|RECIPE|/pointer|DIGITS")
        };
        let digits: usize = digits.parse().with_context(|| format!("{inside:?}"))?;
        let each = |file: &str| number(raw.configuration(file, recipe)?, pointer);
        let figures: Vec<f64> = files.split('+').map(each).collect::<Result<_>>()?;
        out.push_str(before);
        let figure = mean(&figures);
        let _ = write!(out, "{figure:.digits$}"); // into a String: nothing to fail
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}

fn line(first: &str, cells: &[String]) -> String {
    format!("| {first} | {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_takes_three_seeds_beyond_their_intervals_and_more_than_noise() {
        let less = [-0.2, -0.3, -0.1];
        assert_eq!(verdict(false, &[less; 3], -1.0), "yes");
        assert_eq!(verdict(false, &[less; 2], -1.0), "too few seeds");
        assert_eq!(verdict(true, &[less; 3], -1.0), "tie");
        assert_eq!(verdict(false, &[less, less, [-0.1, -0.3, 0.1]], -1.0), "no");
        assert_eq!(verdict(false, &[[0.2, 0.1, 0.3]; 3], -1.0), "no, worse");
        assert_eq!(verdict(false, &[[0.2, 0.1, 0.3]; 3], 1.0), "yes");
    }

    #[test]
    fn cells_are_means_lists_or_intervals() {
        let one = serde_json::json!({"kl": 0.5, "kl_interval": {"low": 0.25, "high": 0.75}});
        let other = serde_json::json!({"kl": 0.25});
        let cell = |name: &str| Column::named(name).and_then(|column| column.cell(&[&one, &other])).expect("a cell");
        assert_eq!(cell("kl"), "0.3750");
        assert_eq!(cell("kl-each"), "0.5000, 0.2500");
        assert_eq!(cell("kl-interval"), "0.5000 [0.2500, 0.7500]");
        assert_eq!(cell("KL, nats|/kl|1"), "0.4");
        assert!(COLUMNS[0].cell(&[&one]).is_err());
    }
}
