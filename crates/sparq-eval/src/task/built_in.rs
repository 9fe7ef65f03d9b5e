use super::TaskDefinition;
use crate::{Error, Result};
use std::path::Path;

/// Names and texts of the definitions that come with the crate, sorted by name.
const DEFINITIONS: [(&str, &str); 9] = [
    ("arc_challenge", include_str!("definitions/arc_challenge.toml")),
    ("arc_easy", include_str!("definitions/arc_easy.toml")),
    ("blimp", include_str!("definitions/blimp.toml")),
    ("copa", include_str!("definitions/copa.toml")),
    ("gsm8k", include_str!("definitions/gsm8k.toml")),
    ("lambada_openai", include_str!("definitions/lambada_openai.toml")),
    ("openbook_qa", include_str!("definitions/openbook_qa.toml")),
    ("piqa", include_str!("definitions/piqa.toml")),
    ("winogrande", include_str!("definitions/winogrande.toml")),
];

pub(super) fn names() -> Vec<&'static str> {
    DEFINITIONS.iter().map(|(name, _)| *name).collect()
}

pub(super) fn find(name: &str) -> Result<TaskDefinition> {
    match DEFINITIONS.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => TaskDefinition::from_toml(name, text),
        None => Err(Error::UnknownTask { name: name.to_owned(), known: names().join(", ") }),
    }
}

/// The definition one of whose data files `path` is: its last components are those of the file.
pub(super) fn of_data_file(path: &Path) -> Option<TaskDefinition> {
    let definitions = DEFINITIONS.iter().filter_map(|(name, _)| find(name).ok());
    let mut fitting = definitions.filter(|definition| definition.data.iter().any(|file| path.ends_with(file)));
    fitting.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parse_and_state_their_origin() {
        assert!(DEFINITIONS.is_sorted());
        for name in names() {
            let definition = find(name).unwrap();
            assert_eq!(definition.name, name);
            assert!(!definition.data.is_empty() && !definition.source.is_empty() && !definition.licence.is_empty());
            assert_eq!(of_data_file(&Path::new("/somewhere").join(&definition.data[0])).unwrap().name, name);
        }
        let error = find("mmlu").unwrap_err().to_string();
        assert!(error.contains("`mmlu`") && error.contains("piqa"), "{error}");
        assert!(of_data_file(Path::new("other/test.jsonl")).is_none());
    }
}
