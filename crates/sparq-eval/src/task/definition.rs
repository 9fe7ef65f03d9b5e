use super::built_in;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How the items of a task are answered and judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TaskKind {
    /// One prompt, several continuations: the most likely one is the answer.
    MultipleChoice,
    /// Several contexts, one continuation: the context under which it is most likely is the answer (partial scoring).
    ContextChoice,
    /// Two whole texts: the first must be the more likely one.
    MinimalPair,
    /// One continuation: every one of its tokens must be the most likely one.
    GreedyMatch,
    /// The model writes, greedily; what it wrote must be the answer.
    Generated,
}

/// Which of an item's two scores counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Metric {
    /// The choice with the largest sum of log-likelihoods is the answer (`acc` of lm-evaluation-harness); for kinds
    /// without choices, the only score there is.
    #[default]
    Accuracy,
    /// The choice with the largest sum of log-likelihoods per byte of UTF-8 is the answer. lm-evaluation-harness's
    /// `acc_norm` divides by characters; the two are the same for ASCII.
    AccuracyNormalised,
}

/// Names of the fields of a record that have a role. Fields that a template names need not be listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FieldNames {
    /// The list of choices (multiple choice) or contexts (context choice). Default `choices`, or `context_options`.
    pub choices: Option<String>,
    /// The index of the right choice, from 0, or the text that must be generated. Default `answer`.
    pub answer: Option<String>,
    /// Fields that may be present and are not used. A field that is neither used nor listed here is an error.
    pub ignored: Vec<String>,
}

/// How a generated answer is compared with the right one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerRule {
    /// In both texts, what follows the last occurrence of this marker is the answer, if it occurs.
    pub after: Option<String>,
    /// Only the first word counts, of both.
    pub first_word: bool,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Strings that are taken out of both, such as thousands separators.
    pub remove: Vec<String>,
}

impl AnswerRule {
    /// The form in which two answers are compared: marker, removals and case as the rule says; white space at the ends
    /// and full stops at the end are dropped, other white space is one space.
    ///
    /// # Examples
    /// ```
    /// let rule = sparq_eval::AnswerRule { remove: vec![",".to_owned()], ..Default::default() };
    /// assert_eq!(rule.normalise("  1,024.\n"), "1024");
    /// ```
    pub fn normalise(&self, answer: &str) -> String {
        let mut text = match &self.after {
            Some(marker) if !marker.is_empty() => answer.rsplit(marker.as_str()).next().unwrap_or(answer).to_owned(),
            _ => answer.to_owned(),
        };
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

/// What a task is: where its data is, how a record becomes a prompt, how an answer is judged. Written as TOML.
///
/// ```
/// let definition = sparq_eval::TaskDefinition::from_toml("quiz.toml", r#"
///     name = "quiz"
///     kind = "multiple-choice"
///     data = ["quiz.jsonl"]             # relative to this file
///     prompt = "Q: {question} A:"       # any text field of a record; {{ and }} are braces
///     continuation = " {choice}"
///     metric = "accuracy"
///     source = "who made it"
///     licence = "CC0"
/// "#)?;
/// assert_eq!(definition.prompt, "Q: {question} A:");
/// # Ok::<(), sparq_eval::Error>(())
/// ```
///
/// The chance level is not part of it: it follows from the number of choices of each item, and is 0 without choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TaskDefinition {
    /// Name in reports.
    pub name: String,
    /// How items are answered and judged.
    pub kind: TaskKind,
    /// JSON-lines files, relative to the data directory (built-in definitions) or to the definition's file.
    #[serde(default)]
    pub data: Vec<String>,
    /// Template of what stands before the continuation; `{field}` is a text field of the record. For context choice,
    /// `{choice}` is the context.
    #[serde(default)]
    pub prompt: String,
    /// Template of what is scored: `{choice}` is the choice. Not used for generated answers.
    #[serde(default)]
    pub continuation: String,
    /// Fields with a role.
    #[serde(default)]
    pub fields: FieldNames,
    /// Which score counts.
    #[serde(default)]
    pub metric: Metric,
    /// Most tokens generated.
    #[serde(default = "default_max_new_tokens")]
    pub max_new_tokens: usize,
    /// Strings that end a generation and are not part of it.
    #[serde(default = "default_stop")]
    pub stop: Vec<String>,
    /// How generated answers are compared.
    #[serde(default)]
    pub answer: AnswerRule,
    /// The task of lm-evaluation-harness whose prompt this follows, if any.
    #[serde(default)]
    pub mirrors: String,
    /// Where the data comes from.
    #[serde(default)]
    pub source: String,
    /// Licence of the data.
    #[serde(default)]
    pub licence: String,
}

fn default_max_new_tokens() -> usize {
    16
}

fn default_stop() -> Vec<String> {
    vec!["\n".to_owned()]
}

impl TaskDefinition {
    /// A definition with the defaults of its kind: question and answer for multiple choice and generated answers
    /// (`Q: {question} A:` and ` {choice}`).
    pub fn new(name: impl Into<String>, kind: TaskKind) -> Self {
        let (prompt, continuation) = match kind {
            TaskKind::MultipleChoice => ("Q: {question} A:", " {choice}"),
            TaskKind::ContextChoice => ("{choice}", " {continuation}"),
            TaskKind::MinimalPair => ("", "{choice}"),
            TaskKind::GreedyMatch => ("{context}", " {continuation}"),
            TaskKind::Generated => ("Q: {question} A:", ""),
        };
        Self {
            name: name.into(),
            kind,
            data: Vec::new(),
            prompt: prompt.to_owned(),
            continuation: continuation.to_owned(),
            fields: FieldNames::default(),
            metric: Metric::Accuracy,
            max_new_tokens: default_max_new_tokens(),
            stop: default_stop(),
            answer: AnswerRule::default(),
            mirrors: String::new(),
            source: String::new(),
            licence: String::new(),
        }
    }

    /// Parses a definition; `file` is named in errors.
    ///
    /// # Errors
    /// [`Error::Definition`] for anything that is not TOML, an unknown or missing key, a value of the wrong type.
    ///
    /// # Examples
    /// ```
    /// let error = sparq_eval::TaskDefinition::from_toml("quiz.toml", "name = 'quiz'\nkind = 'riddle'").unwrap_err();
    /// assert!(error.to_string().contains("quiz.toml"));
    /// ```
    pub fn from_toml(file: &str, text: &str) -> Result<Self> {
        let error = |reason: String| Error::Definition { file: file.to_owned(), reason };
        let definition: Self =
            toml::from_str(text).map_err(|source| error(source.to_string().trim_end().to_owned()))?;
        if definition.name.is_empty() {
            return Err(error("the name is empty".to_owned()));
        }
        Ok(definition)
    }

    /// Names of the built-in definitions, sorted.
    pub fn built_in_names() -> Vec<&'static str> {
        built_in::names()
    }

    /// The built-in definition of that name.
    ///
    /// # Errors
    /// [`Error::UnknownTask`].
    ///
    /// # Examples
    /// ```
    /// let piqa = sparq_eval::TaskDefinition::built_in("piqa")?;
    /// assert_eq!(piqa.mirrors, "piqa");
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn built_in(name: &str) -> Result<Self> {
        built_in::find(name)
    }
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
            first_word: false,
        };
        assert_eq!(rule.normalise("it is 5 + 5 = 10\n#### $1,010 "), "1010");
        assert_eq!(rule.normalise(" Paris,   France.. "), "paris france");
        let first = AnswerRule { first_word: true, ..AnswerRule::default() };
        assert_eq!(first.normalise(" 11. That is all"), "11");
        assert_eq!(first.normalise("  "), "");
        assert_eq!(AnswerRule { after: Some(String::new()), ..AnswerRule::default() }.normalise("a"), "a");
    }

    #[test]
    fn malformed_definitions_name_file_and_cause() {
        for (text, expected) in [
            ("name = ", "quiz.toml"),
            ("name = 'a'", "kind"),
            ("name = 'a'\nkind = 'generated'\nprompts = 'x'", "prompts"),
            ("name = ''\nkind = 'generated'", "empty"),
            ("name = 'a'\nkind = 'generated'\nmax_new_tokens = -1", "quiz.toml"),
        ] {
            let message = TaskDefinition::from_toml("quiz.toml", text).unwrap_err().to_string();
            assert!(message.contains("quiz.toml") && message.contains(expected), "{message}");
        }
    }
}
