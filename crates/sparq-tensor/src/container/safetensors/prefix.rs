//! Names of tensors that wrappers have put something in front of.

use std::collections::BTreeSet;

use crate::entry::{Entry, Loaded};

/// What training wrappers and models of several parts put in front of a language model's names.
const WRAPPERS: [&str; 3] = ["module.", "base_model.model.", "language_model."];
/// What `torch.compile` puts anywhere.
const COMPILED: &str = "_orig_mod.";
/// The embedding, and what its family's names begin with.
const ANCHORS: [(&str, &str); 2] = [("embed_tokens.weight", "model."), ("wte.weight", "transformer.")];
/// The parts of a model saved without its head.
const PARTS: [&str; 3] = ["embed_tokens.", "layers.", "norm."];

/// Gives tensors the names that transformers saves them under, where it is clear from the only embedding what stands in
/// front of them. Returns what stood there; none if names stay as they are.
pub(crate) fn strip(loaded: &mut Loaded) -> Option<String> {
    let names: Vec<&str> = loaded.tensors.keys().map(String::as_str).collect();
    let (found, renamed) = renamed(&names)?;
    let tensors = std::mem::take(&mut loaded.tensors);
    let rename = |(mut entry, name): (Entry, String)| {
        entry.info.name.clone_from(&name);
        (name, entry)
    };
    loaded.tensors = tensors.into_values().zip(renamed).map(rename).collect();
    Some(found)
}

fn renamed(names: &[&str]) -> Option<(String, Vec<String>)> {
    let compiled = names.iter().any(|name| name.contains(COMPILED));
    let names: Vec<String> = names.iter().map(|name| name.replace(COMPILED, "")).collect();
    let mut anchors = names.iter().filter_map(|name| anchor(name));
    let (Some((front, family)), None) = (anchors.next(), anchors.next()) else { return None };
    let mut inner = front.as_str();
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| inner.strip_prefix(wrapper)) {
        inner = rest;
    }
    let wrapper = &front[..front.len() - inner.len()];
    if !(inner.is_empty() || inner == family || inner == "model.language_model.") {
        return None;
    }
    // The first checkpoints of GPT-2 have no prefix, and are read as they are.
    let family = if family == "transformer." && inner.is_empty() { "" } else { family };
    let rename = |name: &String| match name.strip_prefix(front.as_str()) {
        Some(rest) if !inner.is_empty() || PARTS.iter().any(|part| rest.starts_with(part)) => format!("{family}{rest}"),
        _ => name.strip_prefix(wrapper).unwrap_or(name).to_owned(),
    };
    let renamed: Vec<String> = names.iter().map(rename).collect();
    let unique: BTreeSet<&String> = renamed.iter().collect();
    if unique.len() < renamed.len() || (!compiled && renamed == names) {
        return None;
    }
    let compiled = if compiled { COMPILED } else { "" };
    Some((format!("{compiled}{front}"), renamed))
}

/// What stands in front of an embedding, and what its family's names begin with.
fn anchor(name: &str) -> Option<(String, &'static str)> {
    ANCHORS.iter().find_map(|(end, family)| Some((name.strip_suffix(end)?.to_owned(), *family)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(front: &str, head: &str) -> Option<Vec<String>> {
        let ends = ["embed_tokens.weight", "layers.0.mlp.up_proj.weight", "norm.weight"];
        let mut names: Vec<String> = ends.iter().map(|end| format!("{front}{end}")).collect();
        names.push(format!("{head}lm_head.weight"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        renamed(&names).map(|(_, names)| names)
    }

    #[test]
    fn known_wrappers_go() {
        let plain =
            ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"];
        for (front, head) in [
            ("", ""),
            ("module.model.", "module."),
            ("_orig_mod.model.", "_orig_mod."),
            ("model._orig_mod.", ""),
            ("module._orig_mod.model.", "module._orig_mod."),
            ("base_model.model.model.", "base_model.model."),
            ("language_model.model.", "language_model."),
            ("model.language_model.", ""),
            ("language_model.", ""),
        ] {
            assert_eq!(from(front, head).as_deref(), Some(plain.map(str::to_owned).as_slice()), "{front}");
        }
        assert_eq!(from("model.", ""), None);
        assert_eq!(from("encoder.", ""), None);
    }

    #[test]
    fn what_is_ambiguous_stays() {
        assert_eq!(renamed(&["a.embed_tokens.weight", "b.embed_tokens.weight"]), None);
        assert_eq!(renamed(&["module.model.embed_tokens.weight", "module.lm_head.weight", "lm_head.weight"]), None);
        assert_eq!(renamed(&["h.0.ln_1.weight", "wte.weight"]), None);
        let (front, names) = renamed(&["module.transformer.h.0.ln_1.weight", "module.transformer.wte.weight"]).unwrap();
        assert_eq!((front.as_str(), names[1].as_str()), ("module.transformer.", "transformer.wte.weight"));
        let (_, names) = renamed(&["model.language_model.embed_tokens.weight", "model.visual.x.weight"]).unwrap();
        assert_eq!(names, ["model.embed_tokens.weight", "model.visual.x.weight"]);
    }
}
