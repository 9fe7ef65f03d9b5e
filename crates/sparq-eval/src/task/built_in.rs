use super::TaskDefinition;
use crate::{Error, Result};
use std::path::Path;

/// Files of the definitions that come with the crate.
const FILES: [(&str, &str); 12] = [
    ("arc_challenge", include_str!("definitions/arc_challenge.toml")),
    ("arc_easy", include_str!("definitions/arc_easy.toml")),
    ("bbh", include_str!("definitions/bbh.toml")),
    ("blimp", include_str!("definitions/blimp.toml")),
    ("copa", include_str!("definitions/copa.toml")),
    ("gsm8k", include_str!("definitions/gsm8k.toml")),
    ("lambada_openai", include_str!("definitions/lambada_openai.toml")),
    ("math500", include_str!("definitions/math500.toml")),
    ("mmlu_pro", include_str!("definitions/mmlu_pro.toml")),
    ("openbook_qa", include_str!("definitions/openbook_qa.toml")),
    ("piqa", include_str!("definitions/piqa.toml")),
    ("winogrande", include_str!("definitions/winogrande.toml")),
];

/// All definitions, sorted by name.
pub(super) fn all() -> Vec<TaskDefinition> {
    // A test of this module checks that every file parses.
    FILES.iter().filter_map(|(file, text)| TaskDefinition::all_from_toml(file, text).ok()).flatten().collect()
}

/// The definitions that a name, an alias, a group or `all` stands for, at least one.
pub(super) fn find(name: &str) -> Result<Vec<TaskDefinition>> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let wanted = plain(name);
    let is_wanted = |definition: &TaskDefinition| {
        let names = definition.aliases.iter().chain([&definition.name]).chain(&definition.group);
        wanted == "all" || names.into_iter().any(|name| plain(name) == wanted)
    };
    let found: Vec<TaskDefinition> = all().into_iter().filter(is_wanted).collect();
    if found.is_empty() { Err(unknown(name)) } else { Ok(found) }
}

/// The error for a name that is not known, which lists those that are.
pub(super) fn unknown(name: &str) -> Error {
    // A group is listed by its name alone.
    let mut known: Vec<String> =
        all().into_iter().map(|definition| definition.group.unwrap_or(definition.name)).collect();
    known.dedup();
    Error::UnknownTask { name: name.to_owned(), known: known.join(", ") }
}

/// The definition one of whose data files `path` is: its last components are those of the file.
pub(super) fn of_data_file(path: &Path) -> Option<TaskDefinition> {
    all().into_iter().find(|definition| definition.data.iter().any(|file| path.ends_with(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parse_and_state_their_origin() {
        for (file, text) in FILES {
            TaskDefinition::all_from_toml(file, text).unwrap();
        }
        let definitions = all();
        assert!(definitions.is_sorted_by(|a, b| a.name < b.name));
        for definition in definitions {
            assert!(!definition.data.is_empty() && !definition.source.is_empty() && !definition.licence.is_empty());
            assert!(!definition.mirrors.is_empty(), "{}", definition.name);
            let name = definition.name.as_str();
            assert_eq!(of_data_file(&Path::new("/somewhere").join(&definition.data[0])).unwrap().name, name);
            assert!(find(name).unwrap().iter().any(|found| found.name == name));
        }
        let error = find("mmlu").unwrap_err().to_string();
        assert!(error.contains("`mmlu`") && error.contains("piqa") && !error.contains("bbh_"), "{error}");
        assert!(of_data_file(Path::new("other/test.jsonl")).is_none());
    }

    #[test]
    fn names_may_be_spelt_in_several_ways_and_groups_expand() {
        let names = |name: &str| find(name).unwrap().into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names("mmlu-pro"), ["mmlu_pro"]);
        assert_eq!(names("MMLU_Pro"), ["mmlu_pro"]);
        assert_eq!(names("math"), ["math500"]);
        assert_eq!((names("bbh").len(), names("BBH")[0].as_str()), (27, "bbh_boolean_expressions"));
        assert_eq!(names("bbh-navigate"), ["bbh_navigate"]);
        assert_eq!(names("all").len(), 11 + 27);
    }
}
