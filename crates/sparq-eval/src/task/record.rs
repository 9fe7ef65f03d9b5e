//! Records to items.

use super::choices::{letter, lettered, listed};
use super::limits;
use super::records::{Record, records};
use super::template::Template;
use super::{Content, Item, Skipped, TaskDefinition, TaskKind};
use crate::{Error, Result};
use serde_json::Value;

/// What is wrong with a record; file and line are added by the caller.
#[derive(Debug)]
struct Fault {
    reason: String,
    /// The record is well formed, but cannot be asked.
    unusable: bool,
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self { reason, unusable: false }
    }
}

/// A result whose error is what is wrong with a record.
type Checked<T> = std::result::Result<T, Fault>;

/// How many lines an error lists beside the first: enough to see a pattern.
const LINES_LISTED: usize = 20;

/// What a file holds: items, each with its worked example's text, and records that cannot be asked.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) items: Vec<Item>,
    pub(super) skipped: Vec<Skipped>,
}

/// Reads the records of one file as items of a task.
///
/// # Errors
/// [`Error::Record`] with the first malformed line, and the numbers of the others.
pub(super) fn items(definition: &TaskDefinition, file: &str, text: &str) -> Result<Contents> {
    let reader = Reader::new(definition)?;
    let stem = stem(file);
    let mut contents = Contents::default();
    let mut bytes = 0_usize;
    let mut faults: Vec<(usize, Fault)> = Vec::new();
    for placed in records(file, text, definition.records.as_deref())? {
        let id = format!("{stem}:{}", placed.number);
        let read = placed.record.map_err(Fault::from).and_then(|record| {
            reader.check_fields(&record)?;
            reader.content(&record)
        });
        // A document may be a single long line.
        let in_document =
            |fault: Fault| Fault { reason: format!("record {}: {}", placed.number, fault.reason), ..fault };
        let read = read.map_err(|fault| if definition.records.is_some() { in_document(fault) } else { fault });
        match read {
            Ok(content) => {
                bytes = bytes.saturating_add(content.bytes());
                if bytes > limits::TASK_BYTES {
                    faults.push((placed.line, format!("the prompts exceed {} bytes", limits::TASK_BYTES).into()));
                    break;
                }
                contents.items.push(Item { id, content });
            }
            Err(fault) if fault.unusable && contents.skipped.len() < definition.unusable => {
                contents.skipped.push(Skipped { id, reason: fault.reason });
            }
            Err(fault) => faults.push((placed.line, fault)),
        }
    }
    let others = faults.iter().skip(1).take(LINES_LISTED).map(|(line, _)| *line).collect();
    match faults.into_iter().next() {
        None => Ok(contents),
        Some((line, fault)) => Err(Error::Record { file: file.to_owned(), line, reason: fault.reason, others }),
    }
}

/// The texts of `count` worked examples, each followed by what joins them.
///
/// # Errors
/// [`Error::Definition`] if there are fewer records, [`Error::Record`].
pub(super) fn worked(definition: &TaskDefinition, file: &str, text: &str, count: usize) -> Result<String> {
    let reader = Reader::new(definition)?;
    let mut shots = String::new();
    let mut found = 0;
    for placed in records(file, text, definition.records.as_deref())? {
        if found == count {
            break;
        }
        let error = |fault: Fault| Error::Record {
            file: file.to_owned(),
            line: placed.line,
            reason: fault.reason,
            others: Vec::new(),
        };
        match placed.record.map_err(Fault::from).and_then(|record| reader.shot(&record)) {
            Ok(shot) => {
                shots += &shot;
                shots += &definition.shots.join;
                found += 1;
            }
            Err(fault) if fault.unusable && definition.unusable > 0 => {}
            Err(fault) => return Err(error(fault)),
        }
    }
    if found < count {
        let reason = format!("{file} has {found} records, {count} are needed as worked examples");
        return Err(Error::Definition { file: definition.name.clone(), reason });
    }
    if shots.len() > limits::PROMPT_BYTES {
        let reason = format!("the worked examples have more than {} bytes", limits::PROMPT_BYTES);
        return Err(Error::Definition { file: definition.name.clone(), reason });
    }
    Ok(shots)
}

/// Name of a file without folders and extension.
fn stem(file: &str) -> &str {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The definition that fits the fields of the first record of `text`, which is lines of JSON.
pub(super) fn detect(name: &str, file: &str, text: &str) -> Result<TaskDefinition> {
    let Some(first) = records(file, text, None)?.next() else {
        return Err(Error::EmptyTask { task: name.to_owned() });
    };
    let error = |reason| Error::Record { file: file.to_owned(), line: first.line, reason, others: Vec::new() };
    let record = first.record.map_err(error)?;
    let has = |fields: &[&str]| fields.iter().all(|field| record.contains_key(*field));
    let mut definition = if has(&["question", "choices", "answer"]) {
        TaskDefinition::new(name, TaskKind::MultipleChoice)
    } else if has(&["question", "answer"]) {
        TaskDefinition::new(name, TaskKind::Generated)
    } else if has(&["query", "choices", "gold"]) {
        TaskDefinition::new(name, TaskKind::MultipleChoice)
    } else if has(&["context_options", "continuation", "gold"]) {
        TaskDefinition::new(name, TaskKind::ContextChoice)
    } else if has(&["context", "continuation"]) {
        TaskDefinition::new(name, TaskKind::GreedyMatch)
    } else if has(&["sentence_good", "sentence_bad"]) {
        TaskDefinition::new(name, TaskKind::MinimalPair)
    } else {
        let fields = record.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let reason = format!(
            "no kind of task has the fields {fields}; known are question + choices + answer, question + answer, query + \
             choices + gold, context_options + continuation + gold, context + continuation, sentence_good + \
             sentence_bad; for others write a task definition"
        );
        return Err(error(reason));
    };
    if has(&["gold"]) {
        definition.fields.answer = Some("gold".to_owned());
    }
    if has(&["query"]) {
        "{query}".clone_into(&mut definition.prompt);
    }
    Ok(definition)
}

/// A definition with its templates parsed.
struct Reader<'a> {
    definition: &'a TaskDefinition,
    prompt: Template,
    continuation: Template,
    shot_answer: Template,
    choices: &'a str,
    answer: &'a str,
}

impl<'a> Reader<'a> {
    fn new(definition: &'a TaskDefinition) -> Result<Self> {
        let parse = |template: &str| {
            Template::parse(template).map_err(|reason| Error::Definition { file: definition.name.clone(), reason })
        };
        let choices = match definition.kind {
            TaskKind::ContextChoice => "context_options",
            _ => "choices",
        };
        Ok(Self {
            definition,
            prompt: parse(&definition.prompt)?,
            continuation: parse(&definition.continuation)?,
            shot_answer: parse(&definition.shots.answer)?,
            choices: definition.fields.choices.as_deref().unwrap_or(choices),
            answer: definition.fields.answer.as_deref().unwrap_or(match definition.kind {
                TaskKind::ContextChoice => "gold",
                _ => "answer",
            }),
        })
    }

    fn check_fields(&self, record: &Record) -> Checked<()> {
        let kind = self.definition.kind;
        let has_choices = matches!(kind, TaskKind::MultipleChoice | TaskKind::ContextChoice);
        let has_answer = has_choices || kind == TaskKind::Generated;
        let templates = [&self.prompt, &self.continuation, &self.shot_answer];
        let mut known: Vec<&str> = templates.into_iter().flat_map(Template::fields).collect();
        if kind == TaskKind::MinimalPair {
            known.extend(["sentence_good", "sentence_bad"]);
        }
        match &self.definition.choices.listed_in {
            Some(field) => known.push(field),
            None if has_choices && self.definition.choices.fixed.is_empty() => known.push(self.choices),
            None => {}
        }
        known.extend(has_answer.then_some(self.answer));
        known.extend(self.definition.fields.ignored.iter().map(String::as_str));
        match record.keys().find(|field| !known.contains(&field.as_str())) {
            None => Ok(()),
            Some(field) => {
                known.retain(|field| !["choice", "letter", "lettered"].contains(field));
                known.sort_unstable();
                known.dedup();
                let known = known.join(", ");
                Err(format!("unknown field `{field}`; known are {known}; list it under `ignored` if it is not needed")
                    .into())
            }
        }
    }

    fn content(&self, record: &Record) -> Checked<Content> {
        match self.definition.kind {
            TaskKind::MultipleChoice => {
                let (choices, answer) = self.choices(record)?;
                self.pairs(record, &choices, answer)
            }
            TaskKind::ContextChoice => {
                let contexts = texts(record, self.choices)?;
                let answer = index(record, self.answer, contexts.len())?;
                self.pairs(record, &contexts, answer)
            }
            TaskKind::MinimalPair => {
                self.pairs(record, &[text(record, "sentence_good")?, text(record, "sentence_bad")?], 0)
            }
            TaskKind::GreedyMatch => {
                let context = fill(&self.prompt, record, &[], None)?;
                let continuation = fill(&self.continuation, record, &[], None)?;
                if continuation.trim().is_empty() {
                    return Err("the continuation is empty".to_owned().into());
                }
                Ok(Content::GreedyMatch { context, continuation })
            }
            TaskKind::Generated => {
                let answer = text_or_number(record, self.answer)?;
                let prompt = fill(&self.prompt, record, &[], None)?;
                if self.definition.answer.normalise(&answer).is_empty() {
                    return Err(format!("field `{}` holds no answer", self.answer).into());
                }
                Ok(Content::Generated { prompt, answer })
            }
        }
    }

    /// A record with its answer.
    fn shot(&self, record: &Record) -> Checked<String> {
        self.check_fields(record)?;
        let choices_and_answer = match self.definition.kind {
            TaskKind::MultipleChoice => Some(self.choices(record)?),
            _ => None,
        };
        let (choices, choice) = match &choices_and_answer {
            Some((choices, answer)) => (choices.as_slice(), Some(*answer)),
            None => (&[][..], None),
        };
        let prompt = fill(&self.prompt, record, choices, choice)?;
        let answer = if !self.definition.shots.answer.is_empty() {
            fill(&self.shot_answer, record, choices, choice)?
        } else if choice.is_some() {
            fill(&self.continuation, record, choices, choice)?
        } else {
            format!(" {}", text_or_number(record, self.answer)?)
        };
        Ok(prompt + &answer)
    }

    /// The choices of a multiple-choice record and the index of the right one.
    fn choices<'r>(&'r self, record: &'r Record) -> Checked<(Vec<&'r str>, usize)> {
        let source = &self.definition.choices;
        let choices: Vec<&str> = match &source.listed_in {
            Some(field) => listed(text(record, field)?),
            None if source.fixed.is_empty() => {
                let choices = texts(record, self.choices)?;
                let answer = index(record, self.answer, choices.len())?;
                return Ok((choices, answer));
            }
            None => source.fixed.iter().map(String::as_str).collect(),
        };
        let unusable = |reason| Fault { reason, unusable: true };
        if choices.len() < 2 {
            return Err(unusable(format!("{} choices are listed, at least 2 are needed", choices.len())));
        }
        let answer = text(record, self.answer)?.trim();
        match choices.iter().position(|choice| *choice == answer) {
            Some(index) => Ok((choices, index)),
            None => Err(unusable(format!(
                "field `{}` must be one of the choices {}, it is {answer:?}",
                self.answer,
                choices.join(", ")
            ))),
        }
    }

    /// Contexts and continuations of all choices, with the bytes that normalisation divides by.
    fn pairs(&self, record: &Record, choices: &[&str], answer: usize) -> Checked<Content> {
        let pair = |choice: usize| -> Checked<(String, String)> {
            let prompt = fill(&self.prompt, record, choices, Some(choice))?;
            Ok((prompt, fill(&self.continuation, record, choices, Some(choice))?))
        };
        let pairs = (0..choices.len()).map(pair).collect::<Checked<Vec<_>>>()?;
        if choices.iter().any(|choice| choice.trim().is_empty())
            || pairs.iter().any(|(_, continuation)| continuation.trim().is_empty())
        {
            return Err("a choice is empty".to_owned().into());
        }
        // The text that is scored, without the space that joins it to the context.
        let bytes = pairs.iter().map(|(_, continuation)| continuation.trim_start().len()).collect();
        Ok(Content::Choices { pairs, bytes, answer })
    }
}

/// A template filled with the fields of a record and the values of choice `choice`.
fn fill(template: &Template, record: &Record, choices: &[&str], choice: Option<usize>) -> Checked<String> {
    let named = |name: &str| {
        let Some(index) = choice else { return text(record, name).map(str::to_owned) };
        let too_many = || format!("`{{{name}}}` needs a letter for each choice, and there are {}", choices.len());
        match name {
            "choice" => Ok(choices[index].to_owned()),
            "letter" => letter(index).map(String::from).ok_or_else(too_many),
            "lettered" => lettered(choices).ok_or_else(too_many),
            _ => text(record, name).map(str::to_owned),
        }
    };
    Ok(template.fill(named, limits::PROMPT_BYTES)?)
}

fn text<'a>(record: &'a Record, field: &str) -> std::result::Result<&'a str, String> {
    match record.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("field `{field}` must be a text")),
        None => Err(format!("field `{field}` is missing")),
    }
}

fn text_or_number(record: &Record, field: &str) -> std::result::Result<String, String> {
    match record.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(format!("field `{field}` must be a text or a number")),
        None => Err(format!("field `{field}` is missing")),
    }
}

fn texts<'a>(record: &'a Record, field: &str) -> Checked<Vec<&'a str>> {
    let Some(Value::Array(values)) = record.get(field) else {
        return Err(format!("field `{field}` must be a list of texts").into());
    };
    if !(2..=limits::CHOICES).contains(&values.len()) {
        let reason = format!("field `{field}` must list 2 to {} texts, it has {}", limits::CHOICES, values.len());
        return Err(Fault { reason, unusable: values.len() < 2 });
    }
    let text = |value: &'a Value| value.as_str().ok_or_else(|| format!("field `{field}` must list texts only"));
    Ok(values.iter().map(text).collect::<std::result::Result<_, _>>()?)
}

fn index(record: &Record, field: &str, count: usize) -> Checked<usize> {
    let Some(value) = record.get(field) else { return Err(format!("field `{field}` is missing").into()) };
    let index = value.as_u64().and_then(|index| usize::try_from(index).ok()).filter(|index| *index < count);
    let wrong = || format!("field `{field}` must be the index of a choice, 0 to {}, it is {value}", count - 1);
    Ok(index.ok_or_else(wrong)?)
}

#[cfg(test)]
mod tests;
