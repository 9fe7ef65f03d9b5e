//! Where the choices of an item come from.

use serde::{Deserialize, Serialize};

/// Where the choices of a multiple-choice item come from, if not from a field that lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChoiceSource {
    /// The same choices for all items, such as `Yes` and `No`.
    pub fixed: Vec<String>,
    /// A text field that lists them in its lines after `Options:`. Of `(A) a text` the choice is `(A)`, of `- a text` it
    /// is `a text` (as BIG-Bench-Hard has them).
    pub listed_in: Option<String>,
}

impl ChoiceSource {
    /// Whether a field lists the choices.
    pub(super) fn is_default(&self) -> bool {
        self.fixed.is_empty() && self.listed_in.is_none()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if !self.fixed.is_empty() && self.listed_in.is_some() {
            return Err("either `fixed` or `listed_in` is possible".to_owned());
        }
        if self.fixed.len() == 1 || self.fixed.len() > super::limits::CHOICES {
            return Err(format!("2 to {} fixed choices are possible", super::limits::CHOICES));
        }
        Ok(())
    }
}

/// The choices that `text` lists after a line `Options:`; none if it does not. Lines in between are parts of the options
/// before them.
pub(super) fn listed(text: &str) -> Vec<&str> {
    let mut choices: Vec<&str> = Vec::new();
    let mut labelled = None;
    for line in text.lines().map(str::trim).skip_while(|line| *line != "Options:").skip(1) {
        // Labels follow the alphabet, so a bracket within an option's text is not taken for one.
        let label = letter(choices.len()).map(|letter| format!("({letter})"));
        let choice = match label.filter(|label| line.starts_with(label.as_str())) {
            Some(label) if labelled != Some(false) => (true, &line[..label.len()]),
            _ => match line.strip_prefix("- ") {
                Some(text) if labelled != Some(true) && !text.trim().is_empty() => (false, text.trim()),
                _ => continue,
            },
        };
        labelled = Some(choice.0);
        choices.push(choice.1);
    }
    choices
}

/// The letter of choice `index`, from `A`; none beyond `Z`.
pub(super) fn letter(index: usize) -> Option<char> {
    u8::try_from(index).ok().filter(|index| *index < 26).map(|index| char::from(b'A' + index))
}

/// All choices, a line each, with their letters; none if there are more than letters.
pub(super) fn lettered(choices: &[&str]) -> Option<String> {
    let line = |(index, choice): (usize, &&str)| Some(format!("{}. {choice}", letter(index)?));
    let lines: Option<Vec<String>> = choices.iter().enumerate().map(line).collect();
    lines.map(|lines| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_choices_are_labels_or_texts() {
        assert_eq!(listed("Which?\nOptions:\n(A) one\n(B) two"), ["(A)", "(B)"]);
        assert_eq!(listed("Is it?\nOptions:\n- valid \n- invalid"), ["valid", "invalid"]);
        assert_eq!(listed("Options: none\n(A) one"), [""; 0]);
        assert_eq!(listed("Options:\n(A) one\n- and more\n(C) or\n(B) two"), ["(A)", "(B)"]);
        assert_eq!(listed("Options:\n(ä) one\n(AB) two\n-"), [""; 0]);
    }

    #[test]
    fn letters_end_at_z() {
        assert_eq!((letter(0), letter(25), letter(26)), (Some('A'), Some('Z'), None));
        assert_eq!(lettered(&["one", "two"]).unwrap(), "A. one\nB. two");
        assert!(lettered(&["x"; 27]).is_none());
    }
}
