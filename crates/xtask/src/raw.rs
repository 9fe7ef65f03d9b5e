//! Raw results under docs/results.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What no table shows: most of a sweep's bytes.
const LEFT_OUT: [&str; 9] =
    ["layers", "samples", "profile", "verdicts", "comparisons", "best_srcr", "reused", "evaluate_seconds", "schema"];

/// All raw results, by the name of their file.
#[derive(Debug)]
pub struct Raw {
    files: BTreeMap<String, Value>,
}

impl Raw {
    /// Reads the raw results of the project at `root`.
    ///
    /// # Errors
    /// If a file cannot be read or is no JSON.
    pub fn open(root: &Path) -> Result<Self> {
        let directory = directory(root);
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                files.insert(stem(&path), read(&path)?);
            }
        }
        Ok(Self { files })
    }

    /// Takes the results of a sweep into docs/results as `NAME.json`, without what no table shows.
    ///
    /// # Errors
    /// If `file` is no result of a sweep, or a measurement does not name the commit that made it or names one with changes
    /// that nobody can look up.
    pub fn keep(root: &Path, name: &str, file: &Path) -> Result<()> {
        let mut value = read(file)?;
        for configuration in value["configurations"].as_array().context("these are no results of a sweep")? {
            let commit = configuration["commit"].as_str().unwrap_or_default();
            ensure!(
                !commit.is_empty() && !commit.ends_with("-dirty"),
                "{} was measured by commit {commit:?}: measure from a clean checkout",
                configuration["recipe"]
            );
        }
        shorten(&mut value);
        let path = directory(root).join(format!("{name}.json"));
        std::fs::write(&path, lines(&value)?).with_context(|| path.display().to_string())
    }

    /// Files by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.files.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The file of this name.
    fn file(&self, name: &str) -> Result<&Value> {
        self.files.get(name).with_context(|| format!("there is no docs/results/{name}.json"))
    }

    /// What `file` says of a configuration.
    pub(crate) fn configuration(&self, file: &str, recipe: &str) -> Result<&Value> {
        Ok(&self.file(file)?["configurations"][self.index(file, recipe)?])
    }

    fn index(&self, file: &str, recipe: &str) -> Result<usize> {
        let configurations = self.file(file)?["configurations"].as_array();
        let found = configurations.and_then(|all| all.iter().position(|one| one["recipe"] == recipe));
        found.with_context(|| format!("docs/results/{file}.json has no configuration {recipe}"))
    }

    /// The difference of two configurations in `file`: value, and low and high end of its interval.
    pub(crate) fn difference(&self, file: &str, [one, other]: [&str; 2], metric: &str) -> Result<[f64; 3]> {
        let places = [self.index(file, one)?, self.index(file, other)?];
        let differences = self.file(file)?["differences"].as_array().map_or(&[][..], Vec::as_slice);
        for difference in differences {
            let pair = [&difference["first"], &difference["second"]].map(|index| index.as_u64().unwrap_or(0) as usize);
            let number = |pointer: &str| {
                let found = number(difference, &format!("/{metric}/{pointer}"));
                found.with_context(|| format!("docs/results/{file}.json: {one} less {other}"))
            };
            if pair == places {
                return Ok([number("value")?, number("interval/low")?, number("interval/high")?]);
            }
            if [pair[1], pair[0]] == places {
                return Ok([-number("value")?, -number("interval/high")?, -number("interval/low")?]);
            }
        }
        bail!("docs/results/{file}.json does not compare {one} with {other}")
    }
}

/// The number at a pointer.
pub(crate) fn number(value: &Value, pointer: &str) -> Result<f64> {
    let found = value.pointer(pointer).and_then(Value::as_f64);
    let found = found.with_context(|| format!("there is no number at {pointer}"))?;
    ensure!(found.is_finite(), "{pointer} is not finite");
    Ok(found)
}

fn directory(root: &Path) -> PathBuf {
    root.join("docs/results")
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn shorten(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(fields) => {
            fields.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
            fields.values_mut().for_each(shorten);
        }
        _ => {}
    }
}

/// JSON with one line for each field, and for each entry of its lists: changes show where they are.
fn lines(value: &Value) -> Result<String> {
    let Some(fields) = value.as_object() else { bail!("results are an object") };
    let mut parts = Vec::new();
    for (name, value) in fields {
        let shown = match value.as_array() {
            Some(entries) if !entries.is_empty() => {
                let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
                format!("[\n    {}\n  ]", entries.join(",\n    "))
            }
            _ => value.to_string(),
        };
        parts.push(format!("  {}: {shown}", Value::from(name.as_str())));
    }
    Ok(format!("{{\n{}\n}}\n", parts.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn results(commit: &str) -> Value {
        json!({
            "configurations": [
                {"recipe": "a", "commit": commit, "kl": 0.5, "layers": [1, 2]},
                {"recipe": "b", "commit": commit, "kl": 0.25},
            ],
            "differences": [{"first": 0, "second": 1, "kl": {"value": 0.25, "interval": {"low": 0.125, "high": 0.5}}}],
        })
    }

    fn project() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("docs/results")).expect("made");
        root
    }

    fn kept(commit: &str) -> Result<(tempfile::TempDir, Raw)> {
        let root = project();
        let file = root.path().join("results.json");
        std::fs::write(&file, results(commit).to_string()).expect("written");
        Raw::keep(root.path(), "model", &file)?;
        let raw = Raw::open(root.path())?;
        Ok((root, raw))
    }

    #[test]
    fn what_is_kept_reads_back_without_layers() {
        let (_root, raw) = kept("0123").expect("kept");
        let a = raw.configuration("model", "a").expect("there");
        assert_eq!(a, &json!({"recipe": "a", "commit": "0123", "kl": 0.5}));
        assert!(raw.configuration("model", "c").is_err() && raw.configuration("other", "a").is_err());
    }

    #[test]
    fn a_difference_turned_round_has_its_interval_turned_round() {
        let (_root, raw) = kept("0123").expect("kept");
        assert_eq!(raw.difference("model", ["a", "b"], "kl").expect("there"), [0.25, 0.125, 0.5]);
        assert_eq!(raw.difference("model", ["b", "a"], "kl").expect("there"), [-0.25, -0.5, -0.125]);
        assert!(raw.difference("model", ["a", "a"], "kl").is_err());
        assert!(raw.difference("model", ["a", "b"], "sr").is_err());
    }

    #[test]
    fn measurements_of_nobody_knows_what_are_not_kept() {
        assert!(kept("0123-dirty").is_err() && kept("").is_err());
    }
}
