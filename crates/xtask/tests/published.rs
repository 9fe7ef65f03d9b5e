//! What README and docs say of measurements is what the raw results say.

use serde_json::Value;
use std::path::{Path, PathBuf};
use xtask::{Pages, Raw};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_table_says_what_the_raw_results_say() {
    let stale = Pages::open(&root()).expect("readable").stale().expect("complete");
    let lines: Vec<String> = stale.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{}\nwrite them with: cargo run -p xtask -- tables", lines.join("\n"));
}

#[test]
fn raw_results_are_small() {
    let directory = root().join("docs/results");
    let sizes = std::fs::read_dir(directory).expect("listable").map(|entry| entry.expect("an entry").metadata());
    let bytes: u64 = sizes.map(|metadata| metadata.expect("known").len()).sum();
    assert!(bytes <= 1 << 20, "docs/results holds {bytes} bytes");
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

#[test]
fn commands_in_raw_results_name_no_directory_of_one_machine() {
    for (name, value) in Raw::open(&root()).expect("readable").files() {
        let mut commands = Vec::new();
        within(value, &mut |value| commands.extend(value.get("command").and_then(Value::as_str)));
        for command in commands {
            let absolute = command.split_whitespace().find(|argument| argument.starts_with('/'));
            assert_eq!(absolute, None, "{name}: {command}");
        }
    }
}

#[test]
fn a_changed_figure_and_a_missing_one_are_found() {
    let root = tempfile::tempdir().expect("a directory");
    let (docs, results) = (root.path().join("docs"), root.path().join("docs/results"));
    std::fs::create_dir_all(&results).expect("made");
    let write = |path: PathBuf, text: &str| std::fs::write(path, text).expect("written");
    write(results.join("m.json"), r#"{"configurations": [{"recipe": "s=0,q=4", "kl": 0.125}]}"#);
    let tables = "[t]\nfiles = ['m']\ncolumns = ['kl']\nrows = [['4 bits', 's=0,q=4']]\n";
    write(results.join("tables.toml"), tables);
    write(root.path().join("README.md"), "# A\n");
    write(docs.join("results.md"), "before\n\n<!-- table t -->\n<!-- end -->\nbehind\n");
    let pages = || Pages::open(root.path()).expect("readable");
    assert_eq!(pages().stale().expect("complete").len(), 1);
    assert_eq!(pages().write().expect("written").len(), 1);
    assert_eq!(pages().stale().expect("complete"), []);
    let page = std::fs::read_to_string(docs.join("results.md")).expect("there");
    assert!(page.contains("| 4 bits: `s=0,q=4` | 0.1250 |\n<!-- end -->\nbehind\n"), "{page}");
    write(docs.join("results.md"), &page.replace("0.1250", "0.1251"));
    let stale = pages().stale().expect("complete");
    assert_eq!(stale[0].expected, "| 4 bits: `s=0,q=4` | 0.1250 |");
    write(docs.join("results.md"), "<!-- table t -->\n<!-- table t -->\n<!-- end -->\n");
    assert!(pages().stale().is_err(), "a block without an end");
    write(docs.join("results.md"), &page);
    write(results.join("tables.toml"), &tables.replace("q=4'", "q=5'"));
    assert!(pages().stale().is_err());
}
