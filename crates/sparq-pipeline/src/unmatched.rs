//! Patterns that match no layer, and the layers that were probably meant.

use crate::{Error, Result, Targets};
use globset::Glob;
use sparq_model::Model;
use std::collections::BTreeSet;

/// Refuses patterns that match no linear layer of the blocks. A pattern of what is ignored may also name what is never
/// compressed: embeddings, norms, the output matrix.
pub(crate) fn check(model: &Model, targets: &Targets) -> Result<()> {
    let names: Vec<&str> = model.linear_names().collect();
    let mut stored = BTreeSet::new();
    for index in 0..model.block_count() {
        stored.extend(model.block_plan(index)?.linears().iter().map(|linear| linear.stored.tensor.as_str()));
    }
    let tensors = model.checkpoint().tensors().map(|tensor| tensor.name.as_str());
    let kept = tensors.filter(|name| !stored.contains(name)).filter_map(|name| name.strip_suffix(".weight"));
    let kept: Vec<&str> = kept.chain(["lm_head"]).collect();
    let include = targets.include.iter().map(|pattern| (pattern, false));
    for (pattern, is_ignored) in include.chain(targets.ignore.iter().map(|pattern| (pattern, true))) {
        let glob = Glob::new(pattern).map_err(|error| Error::bad_pattern(pattern, &error))?.compile_matcher();
        let matches = |names: &[&str]| names.iter().any(|name| glob.is_match(name));
        let is_meant = matches(&names) || is_ignored && matches(&kept);
        if !is_meant {
            return Err(Error::UnmatchedPattern { pattern: pattern.clone(), near: near(pattern, &names) });
        }
    }
    Ok(())
}

/// The two names whose ends resemble the pattern most.
fn near(pattern: &str, names: &[&str]) -> Vec<String> {
    let first = pattern.split(',').next().unwrap_or_default();
    let plain = first.trim_start_matches("re:").trim_end_matches(".weight");
    let plain: String = plain.chars().filter(|c| c.is_alphanumeric() || matches!(c, '_' | '.')).collect();
    let plain = plain.trim_matches('.');
    let parts = plain.split('.').count();
    let distance = |name: &str| {
        let end: Vec<&str> = name.rsplit('.').take(parts).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        edits(plain, &end.join("."))
    };
    let least = names.iter().map(|name| distance(name)).min();
    names.iter().filter(|name| Some(distance(name)) == least).take(2).map(|&name| name.to_owned()).collect()
}

/// Characters to insert, remove or replace to make `b` of `a`.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in [("", "abc", 3), ("down_prj", "down_proj", 1), ("kitten", "sitting", 3), ("a", "a", 0)] {
            assert_eq!((edits(a, b), edits(b, a)), (count, count), "{a} {b}");
        }
    }

    #[test]
    fn the_names_meant_are_found() {
        let names = ["h.0.mlp.up_proj", "h.0.mlp.down_proj", "h.1.mlp.up_proj", "h.1.mlp.down_proj"];
        for pattern in ["re:.*down_proj", "*.down_prj", "down_proj", "*.down_proj,*.up_proj"] {
            assert_eq!(near(pattern, &names), ["h.0.mlp.down_proj", "h.1.mlp.down_proj"], "{pattern}");
        }
        assert_eq!(near("h.1.mlp.up_proj.weight", &names), ["h.1.mlp.up_proj"]);
    }
}
