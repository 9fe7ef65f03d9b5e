//! The arrows between the crates, as docs/architecture.md draws them.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Crate name (without `sparq-`) to those of ours that it depends on, tests and build scripts aside.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let short = |name: &str| name.strip_prefix("sparq-").unwrap_or(name).to_owned();
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
            let ours = dependencies
                .filter(|dependency| dependency["kind"].is_null())
                .filter_map(|dependency| dependency["name"].as_str())
                .filter(|name| name.starts_with("sparq"));
            (short(package["name"].as_str().expect("a name")), ours.map(short).collect())
        })
        .collect()
}

#[test]
fn arrows_point_down_only() {
    let allowed: [(&str, &[&str]); 16] = [
        ("coding", &[]),
        ("linalg", &[]),
        ("xtask", &[]),
        ("core", &["coding", "linalg"]),
        ("tensor", &["coding"]),
        ("metric", &[]),
        ("mpi", &["core"]),
        ("export", &["core", "tensor"]),
        ("prune", &["core"]),
        ("quant", &["coding", "core"]),
        ("model", &["linalg", "tensor"]),
        ("eval", &["core", "metric", "model", "tensor"]),
        ("pipeline", &["core", "export", "metric", "model", "prune", "quant", "tensor"]),
        ("sweep", &["core", "eval", "export", "metric", "model", "pipeline", "quant", "tensor"]),
        ("report", &["metric", "pipeline", "sweep", "tensor"]),
        (
            "sparq",
            &[
                "core", "eval", "export", "linalg", "metric", "model", "mpi", "pipeline", "prune", "quant", "report",
                "sweep", "tensor",
            ],
        ),
    ];
    let arrows = arrows();
    let names: BTreeSet<&str> = arrows.keys().map(String::as_str).collect();
    assert_eq!(names, allowed.iter().map(|(name, _)| *name).collect(), "a new crate needs its place in the picture");
    for (name, allowed) in allowed {
        let allowed: BTreeSet<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        let extra: Vec<&String> = arrows[name].difference(&allowed).collect();
        assert!(extra.is_empty(), "sparq-{name} must not depend on {extra:?}");
    }
}

#[test]
fn every_crate_states_its_toolchain_and_licence() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = &package["name"];
        assert_eq!(package["rust_version"], "1.89", "{name}");
        assert_eq!(package["license"], "MIT OR Apache-2.0", "{name}");
        assert!(package["description"].is_string(), "{name}");
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().expect("a path")).expect("readable");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} inherits the workspace's lints");
    }
}
