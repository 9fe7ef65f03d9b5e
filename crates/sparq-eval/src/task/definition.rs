use super::answer::AnswerRule;
use super::choices::ChoiceSource;
use super::shots::Shots;
use super::template::Template;
use super::{built_in, limits};
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
    /// The index of the right choice, from 0, or the text that must be generated. Default `answer`. Where the choices
    /// are fixed or listed in a text, the right choice itself.
    pub answer: Option<String>,
    /// Fields that may be present and are not used. A field that is neither used nor listed here is an error.
    pub ignored: Vec<String>,
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
///     shots = { count = 2 }             # the first two records are worked examples, and no items
///     source = "who made it"
///     licence = "CC0"
/// "#)?;
/// assert_eq!(definition.prompt, "Q: {question} A:");
/// # Ok::<(), sparq_eval::Error>(())
/// ```
///
/// Beside the record's own fields, templates of multiple choice know `{choice}` (the choice's text), `{letter}` (A for the
/// first, ...) and `{lettered}` (all choices, a line each, `A. text`).
///
/// The chance level is not part of it: it follows from the number of choices of each item, and is 0 without choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TaskDefinition {
    /// Name in reports.
    pub name: String,
    /// Tasks of one group are asked for by its name, and count as one task, with all their items, in Sr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Other names it can be asked for by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// How items are answered and judged.
    pub kind: TaskKind,
    /// Files of records, relative to the data directory (built-in definitions) or to the definition's file.
    #[serde(default)]
    pub data: Vec<String>,
    /// If set, each file is one JSON object that lists the records under this key; else it is lines of JSON.
    #[serde(default)]
    pub records: Option<String>,
    /// Template of what stands before the continuation; `{field}` is a text field of the record. For context choice,
    /// `{choice}` is the context.
    #[serde(default)]
    pub prompt: String,
    /// Template of what is scored: `{choice}` is the choice. Not used for generated answers.
    #[serde(default)]
    pub continuation: String,
    /// Where the choices come from, if not from a field that lists them.
    #[serde(default)]
    pub choices: ChoiceSource,
    /// Worked examples in front of every prompt.
    #[serde(default)]
    pub shots: Shots,
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
    /// How many records the data is known to hold that cannot be asked: fewer than two choices, or an answer that is none
    /// of them. Up to so many are left out, by name; one more is an error.
    #[serde(default)]
    pub unusable: usize,
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
            group: None,
            aliases: Vec::new(),
            kind,
            data: Vec::new(),
            records: None,
            prompt: prompt.to_owned(),
            continuation: continuation.to_owned(),
            choices: ChoiceSource::default(),
            shots: Shots::default(),
            fields: FieldNames::default(),
            metric: Metric::Accuracy,
            max_new_tokens: default_max_new_tokens(),
            stop: default_stop(),
            answer: AnswerRule::default(),
            unusable: 0,
            mirrors: String::new(),
            source: String::new(),
            licence: String::new(),
        }
    }

    /// Parses a definition; `file` is named in errors.
    ///
    /// # Errors
    /// [`Error::Definition`], with the line, for anything that is not TOML, an unknown or missing key, a value of the
    /// wrong type or out of range, a malformed template; if the file holds several variants.
    ///
    /// # Examples
    /// ```
    /// let error = sparq_eval::TaskDefinition::from_toml("quiz.toml", "name = 'quiz'\nkind = 'riddle'").unwrap_err();
    /// assert!(error.to_string().contains("quiz.toml") && error.to_string().contains("line 2"));
    /// ```
    pub fn from_toml(file: &str, text: &str) -> Result<Self> {
        let mut all = Self::all_from_toml(file, text)?;
        match all.len() {
            1 => Ok(all.remove(0)),
            count => Err(definition_error(file, format!("it holds {count} variants; load them as a group"))),
        }
    }

    /// Parses a file that holds a definition, or several: each table of `[[variants]]` is a definition whose keys stand
    /// in front of those of the file's top level.
    ///
    /// # Errors
    /// Those of [`from_toml`](Self::from_toml).
    ///
    /// # Examples
    /// ```
    /// let text = r#"
    ///     name = "sums"
    ///     group = "sums"
    ///     kind = "generated"
    ///     prompt = "{question} ="
    ///     [[variants]]
    ///     name = "sums_small"
    ///     data = ["small.jsonl"]
    ///     [[variants]]
    ///     name = "sums_large"
    ///     data = ["large.jsonl"]
    /// "#;
    /// let both = sparq_eval::TaskDefinition::all_from_toml("sums.toml", text)?;
    /// assert_eq!((both.len(), both[1].name.as_str()), (2, "sums_large"));
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn all_from_toml(file: &str, text: &str) -> Result<Vec<Self>> {
        if text.len() > limits::DEFINITION_BYTES {
            let reason = format!("it has {} bytes, at most {} are read", text.len(), limits::DEFINITION_BYTES);
            return Err(definition_error(file, reason));
        }
        let parse_error = |source: toml::de::Error| definition_error(file, source.to_string().trim_end().to_owned());
        let mut table: toml::Table = toml::from_str(text).map_err(parse_error)?;
        let Some(variants) = table.remove("variants") else {
            let definition: Self = toml::from_str(text).map_err(parse_error)?;
            definition.check().map_err(|(key, reason)| definition_error(file, at_key(text, key, &reason)))?;
            return Ok(vec![definition]);
        };
        let toml::Value::Array(variants) = variants else {
            return Err(definition_error(file, at_key(text, "variants", "a list of tables is needed: [[variants]]")));
        };
        let parse = |(index, variant): (usize, toml::Value)| {
            let place = |reason: String| match nth_variant(text, index) {
                Some(line) => definition_error(file, format!("variant at line {line}: {reason}")),
                None => definition_error(file, format!("variant {}: {reason}", index + 1)),
            };
            let toml::Value::Table(variant) = variant else { return Err(place("a table is needed".to_owned())) };
            let mut merged = table.clone();
            merged.extend(variant);
            let definition: Self =
                merged.try_into().map_err(|source| place(source.to_string().trim_end().replace('\n', " ")))?;
            definition.check().map_err(|(key, reason)| place(format!("`{key}`: {reason}")))?;
            Ok(definition)
        };
        if variants.is_empty() || variants.len() > limits::VARIANTS {
            let reason = format!("1 to {} variants are possible, it has {}", limits::VARIANTS, variants.len());
            return Err(definition_error(file, reason));
        }
        variants.into_iter().enumerate().map(parse).collect()
    }

    /// The built-in definition of that name or alias; `-` and `_`, upper and lower case are the same.
    ///
    /// # Errors
    /// [`Error::UnknownTask`], also for the name of a group.
    ///
    /// # Examples
    /// ```
    /// let piqa = sparq_eval::TaskDefinition::built_in("piqa")?;
    /// assert_eq!(piqa.mirrors, "piqa");
    /// assert_eq!(sparq_eval::TaskDefinition::built_in("mmlu-pro")?.name, "mmlu_pro");
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn built_in(name: &str) -> Result<Self> {
        let mut found = built_in::find(name)?;
        if found.len() == 1 { Ok(found.remove(0)) } else { Err(built_in::unknown(name)) }
    }

    /// What is out of range, and under which key.
    fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        if self.name.trim().is_empty() {
            return Err(("name", "the name is empty".to_owned()));
        }
        for (key, count, most) in [
            ("data", self.data.len(), limits::FILES),
            ("max_new_tokens", self.max_new_tokens, limits::NEW_TOKENS),
            ("stop", self.stop.len(), limits::STOPS),
            ("shots", self.shots.count, limits::SHOTS),
        ] {
            if count > most {
                return Err((key, format!("{count} is more than the {most} that are possible")));
            }
        }
        for (key, template) in
            [("prompt", &self.prompt), ("continuation", &self.continuation), ("shots", &self.shots.answer)]
        {
            Template::parse(template).map_err(|reason| (key, reason))?;
        }
        if !self.choices.is_default() && self.kind != TaskKind::MultipleChoice {
            return Err(("choices", "only multiple choice has fixed choices or lists them in a text".to_owned()));
        }
        self.choices.check().map_err(|reason| ("choices", reason))?;
        if self.shots.count > 0 && !matches!(self.kind, TaskKind::MultipleChoice | TaskKind::Generated) {
            return Err(("shots", "only multiple choice and generated answers can have worked examples".to_owned()));
        }
        Ok(())
    }
}

fn definition_error(file: &str, reason: String) -> Error {
    Error::Definition { file: file.to_owned(), reason }
}

/// `reason` with the line on which `key` is set.
fn at_key(text: &str, key: &str, reason: &str) -> String {
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    };
    match text.lines().position(sets) {
        Some(index) => format!("line {}, `{key}`: {reason}", index + 1),
        None => format!("`{key}`: {reason}"),
    }
}

/// Line of the header of variant `index`.
fn nth_variant(text: &str, index: usize) -> Option<usize> {
    let headers = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("[[variants]]"));
    headers.map(|(line, _)| line + 1).nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_definitions_name_file_line_and_cause() {
        let kind = "name = 'a'\nkind = 'generated'\n";
        for (text, expected) in [
            ("name = ".to_owned(), "line 1"),
            ("name = 'a'".to_owned(), "kind"),
            (format!("{kind}prompts = 'x'"), "line 3"),
            ("kind = 'generated'\nname = ''".to_owned(), "line 2, `name`"),
            (format!("{kind}max_new_tokens = -1"), "line 3"),
            (format!("{kind}max_new_tokens = 1000000"), "line 3, `max_new_tokens`"),
            (format!("{kind}prompt = 'a {{question'"), "line 3, `prompt`: unmatched"),
            (format!("{kind}[shots]\ncount = 1000"), "line 3, `shots`"),
            (format!("{kind}choices = {{ fixed = ['a', 'b'] }}"), "line 3, `choices`"),
            (format!("{kind}variants = 3"), "line 3"),
            (format!("{kind}[[variants]]\nname = 'b'\n[[variants]]\nkind = 'riddle'"), "variant at line 5"),
            (format!("{kind}[[variants]]\nname = 'b'\nprompt = '}}'"), "variant at line 3: `prompt`"),
            (format!("{kind}variants = []"), "1 to"),
            (format!("{kind}data = {}1{}", "[".repeat(5_000), "]".repeat(5_000)), "quiz.toml"),
            (" ".repeat(limits::DEFINITION_BYTES + 1), "at most"),
        ] {
            let message = TaskDefinition::all_from_toml("quiz.toml", &text).unwrap_err().to_string();
            let shown: String = text.chars().take(80).collect();
            assert!(message.contains("quiz.toml") && message.contains(expected), "{shown}: {message}");
        }
        let two = format!("{kind}[[variants]]\nname = 'b'\n[[variants]]\nname = 'c'");
        assert!(TaskDefinition::from_toml("quiz.toml", &two).unwrap_err().to_string().contains("2 variants"));
    }

    #[test]
    fn shots_and_choices_belong_to_some_kinds_only() {
        for text in [
            "name = 'a'\nkind = 'minimal-pair'\nshots = { count = 1 }",
            "name = 'a'\nkind = 'multiple-choice'\nchoices = { fixed = ['a'] }",
            "name = 'a'\nkind = 'multiple-choice'\nchoices = { fixed = ['a', 'b'], listed_in = 'c' }",
        ] {
            assert!(TaskDefinition::from_toml("t", text).is_err(), "{text}");
        }
    }
}
