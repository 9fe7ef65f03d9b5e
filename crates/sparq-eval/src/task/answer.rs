#[cfg(feature = "math")]
use super::mathematics::equivalent;
use serde::{Deserialize, Serialize};

/// When two answers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Comparison {
    /// When their texts are.
    #[default]
    Text,
    /// When their values are: `\frac12`, `0.5` and `\dfrac{1}{2}` are equal, `[2, 5)` and `(2, 5)` are not. Tasks that
    /// ask for it need the feature `math`, see `equivalent`.
    Mathematics,
}

/// How a generated answer is compared with the right one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own in a definition")]
pub struct AnswerRule {
    /// In both texts, what follows the first occurrence of this marker is the answer, if it occurs.
    pub after: Option<String>,
    /// In both texts, what the last `\boxed{…}` holds is the answer, if there is one.
    pub boxed: bool,
    /// A generated text without the marker, or without a box where one is asked for, holds no answer and is wrong. If
    /// not set, the whole text is its answer.
    pub strict: bool,
    /// Only the first word counts, of both.
    pub first_word: bool,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Strings that are taken out of both, such as thousands separators.
    pub remove: Vec<String>,
    /// When two answers are the same.
    pub compare: Comparison,
}

impl AnswerRule {
    /// The form in which two answers are compared. The rule's marker or box, removals and case are applied. White space
    /// at the ends and full stops at the end are dropped; other white space becomes one space.
    ///
    /// # Examples
    /// ```
    /// let rule = sparq_eval::AnswerRule { remove: vec![",".to_owned()], ..Default::default() };
    /// assert_eq!(rule.normalise("  1,024.\n"), "1024");
    /// ```
    pub fn normalise(&self, answer: &str) -> String {
        self.tidy(self.extract(answer).unwrap_or(answer))
    }

    /// Whether what a model wrote is the right answer.
    pub(crate) fn is_right(&self, written: &str, answer: &str) -> bool {
        let found = match self.extract(written) {
            Some(found) => found,
            None if self.strict => return false,
            None => written,
        };
        let (written, answer) = (self.tidy(found), self.normalise(answer));
        #[cfg(feature = "math")]
        if self.compare == Comparison::Mathematics {
            return equivalent(&written, &answer);
        }
        // Without the feature, no task with another comparison is made.
        written == answer
    }

    /// The text after the marker or in the box, or the whole text if the rule has neither.
    fn extract<'a>(&self, text: &'a str) -> Option<&'a str> {
        if self.boxed {
            return last_boxed(text);
        }
        match self.after.as_deref().filter(|marker| !marker.is_empty()) {
            Some(marker) => text.split_once(marker).map(|(_, after)| after),
            None => Some(text),
        }
    }

    fn tidy(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for removed in self.remove.iter().filter(|removed| !removed.is_empty()) {
            text = text.replace(removed.as_str(), "");
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        let mut words = text.split_whitespace();
        let text = if self.first_word {
            words.next().unwrap_or_default().to_owned()
        } else {
            words.collect::<Vec<_>>().join(" ")
        };
        text.trim_end_matches('.').trim_end().to_owned()
    }
}

/// The content of the last `\boxed{…}` or `\fbox{…}` of a text, with balanced braces.
fn last_boxed(text: &str) -> Option<&str> {
    let start = ["\\boxed", "\\fbox"].into_iter().filter_map(|name| Some((text.rfind(name)?, name.len()))).max()?;
    let rest = text[start.0 + start.1..].trim_start();
    let Some(inner) = rest.strip_prefix('{') else {
        // `\boxed 5`
        let end = rest.find(|c: char| c.is_whitespace() || c == '$').unwrap_or(rest.len());
        return Some(&rest[..end]).filter(|inner| !inner.is_empty());
    };
    let mut open = 1_usize;
    for (at, character) in inner.char_indices() {
        match character {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(&inner[..at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_in_one_form() {
        let rule = AnswerRule {
            after: Some("####".to_owned()),
            remove: vec![",".to_owned(), "$".to_owned()],
            ignore_case: true,
            ..AnswerRule::default()
        };
        assert_eq!(rule.normalise("it is 5 + 5 = 10\n#### $1,010 "), "1010");
        assert_eq!(rule.normalise(" Paris,   France.. "), "paris france");
        let first = AnswerRule { first_word: true, ..AnswerRule::default() };
        assert_eq!(first.normalise(" 11. That is all"), "11");
        assert_eq!(first.normalise("  "), "");
        assert_eq!(AnswerRule { after: Some(String::new()), ..AnswerRule::default() }.normalise("a"), "a");
    }

    #[test]
    fn strict_rules_want_the_marker_or_the_box() {
        let rule = AnswerRule { after: Some("####".to_owned()), first_word: true, ..AnswerRule::default() };
        assert!(rule.is_right("5", "so\n#### 5") && rule.is_right("#### 5 apples\n#### 7", "5"));
        let rule = AnswerRule { strict: true, ..rule };
        assert!(!rule.is_right("5", "#### 5") && rule.is_right("so #### 5", "#### 5"));
        let rule = AnswerRule { boxed: true, strict: true, ..AnswerRule::default() };
        assert!(rule.is_right(r"first \boxed{3}, no: \boxed{4}.", "4") && !rule.is_right("4", "4"));
    }

    #[test]
    #[cfg(feature = "math")]
    fn mathematics_is_compared_by_value() {
        let boxed = AnswerRule { boxed: true, strict: true, compare: Comparison::Mathematics, ..AnswerRule::default() };
        assert!(boxed.is_right(r"first \boxed{3}, no: \boxed{\frac{1}{2}}.", r"0.5"));
        assert!(!boxed.is_right("0.5", "0.5") && !boxed.is_right(r"\boxed{0.5", "0.5"));
    }

    #[test]
    fn boxes_are_found() {
        assert_eq!(last_boxed(r"so \boxed{\frac{1}{2}}."), Some(r"\frac{1}{2}"));
        assert_eq!(last_boxed(r"\boxed{1} then \fbox{2}"), Some("2"));
        assert_eq!(last_boxed(r"$\boxed 7$"), Some("7"));
        assert_eq!(last_boxed(r"\boxed{1"), None);
        assert_eq!(last_boxed("7"), None);
    }
}
