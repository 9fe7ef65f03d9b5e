//! Every row of a table of configurations in docs/results.md is in the raw results beside it.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// One measured configuration, from anywhere in a file of results.
struct Measured {
    recipe: String,
    perplexity: f64,
    kl: f64,
    sr: Option<f64>,
}

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/results")
}

fn files() -> Vec<(PathBuf, Value)> {
    let entries = std::fs::read_dir(results()).expect("listable").map(|entry| entry.expect("an entry").path());
    let json = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("readable");
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, value)
    };
    json.map(read).collect()
}

/// A recipe without the group size, which a table names once for all rows, and without the preset that older rows of the
/// published methods do not name.
fn shortened(recipe: &str) -> String {
    recipe.replace(",group=64", "").replace(",preset=reference", "")
}

/// Visits a value and every value within it.
fn within<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    visit(value);
    match value {
        Value::Array(values) => values.iter().for_each(|value| within(value, visit)),
        Value::Object(fields) => fields.values().for_each(|value| within(value, visit)),
        _ => {}
    }
}

fn measured(value: &Value) -> Option<Measured> {
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_f64);
    Some(Measured {
        recipe: shortened(value.get("recipe")?.as_str()?),
        perplexity: number("/perplexity")?,
        kl: number("/kl")?,
        sr: number("/retention/sr"),
    })
}

fn cells(line: &str) -> Option<Vec<&str>> {
    Some(line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect())
}

/// The recipe between backquotes in a cell.
fn recipe(cell: &str) -> Option<String> {
    let (_, rest) = cell.split_once('`')?;
    let (recipe, _) = rest.split_once('`')?;
    recipe.starts_with("s=").then(|| shortened(recipe))
}

/// Whether a printed number is this one, to the digits that are printed.
fn prints_as(printed: &str, value: f64) -> bool {
    let digits = printed.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    format!("{value:.digits$}") == printed
}

#[test]
fn rows_of_configurations_are_those_of_the_raw_results() {
    let mut all = Vec::new();
    for (_, value) in files() {
        within(&value, &mut |value| all.extend(measured(value)));
    }
    let text = std::fs::read_to_string(results().with_extension("md")).expect("readable");
    let mut columns: Vec<&str> = Vec::new();
    let (mut checked, mut missing) = (0, Vec::new());
    for line in text.lines() {
        let Some(cells) = cells(line) else {
            columns.clear();
            continue;
        };
        if columns.is_empty() {
            columns = cells;
            continue;
        }
        let column = |name: &str| columns.iter().position(|column| *column == name).and_then(|index| cells.get(index));
        let (Some(recipe), Some(perplexity), Some(kl)) = (recipe(cells[0]), column("perplexity"), column("KL")) else {
            continue;
        };
        checked += 1;
        // The interval behind it is drawn, not measured.
        let sr = column("Sr").and_then(|cell| cell.split(' ').next()).unwrap_or_default();
        let found = all.iter().any(|row| {
            let same_sr = sr.is_empty() || row.sr.is_some_and(|value| prints_as(sr, value));
            row.recipe == recipe && prints_as(perplexity, row.perplexity) && prints_as(kl, row.kl) && same_sr
        });
        if !found {
            missing.push(line);
        }
    }
    assert!(missing.is_empty(), "not in docs/results/*.json:\n{}", missing.join("\n"));
    assert!(checked > 60, "only {checked} rows were found");
}

#[test]
fn commands_in_raw_results_name_no_directory_of_one_machine() {
    for (path, value) in files() {
        let mut commands = Vec::new();
        within(&value, &mut |value| commands.extend(value.get("command").and_then(Value::as_str)));
        for command in commands {
            let absolute = command.split_whitespace().find(|argument| argument.starts_with('/'));
            assert_eq!(absolute, None, "{}: {command}", path.display());
        }
    }
}
