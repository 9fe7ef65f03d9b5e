//! Lines of JSON to items.

use super::template::Template;
use super::{Content, Item, TaskDefinition, TaskKind};
use crate::{Error, Result};
use serde_json::{Map, Value};

type Record = Map<String, Value>;

/// A result whose error is what is wrong with a record; file and line are added by the caller.
type Checked<T> = std::result::Result<T, String>;

/// Most choices of one item; more is a mistake in the data.
const MOST_CHOICES: usize = 256;

/// Reads the records of one file as items of a task.
pub(super) fn items(definition: &TaskDefinition, file: &str, text: &str) -> Result<Vec<Item>> {
    let reader = Reader::new(definition)?;
    let stem = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    records(file, text)
        .map(|record| {
            let (line, record) = record?;
            let error = |reason| Error::Record { file: file.to_owned(), line, reason };
            reader.check_fields(&record).map_err(error)?;
            let content = reader.content(&record).map_err(error)?;
            Ok(Item { id: format!("{stem}:{line}"), content })
        })
        .collect()
}

/// The lines of `text` that are not blank, parsed, with their numbers from 1.
fn records<'a>(file: &'a str, text: &'a str) -> impl Iterator<Item = Result<(usize, Record)>> + 'a {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(move |(index, line)| {
        let line_number = index + 1;
        let error = |reason| Error::Record { file: file.to_owned(), line: line_number, reason };
        match serde_json::from_str(line) {
            Ok(Value::Object(record)) => Ok((line_number, record)),
            Ok(_) => Err(error("a JSON object is needed".to_owned())),
            Err(source) => Err(error(format!("not JSON: {source}"))),
        }
    })
}

/// The definition that fits the fields of the first record of `text`.
pub(super) fn detect(name: &str, file: &str, text: &str) -> Result<TaskDefinition> {
    let Some(first) = records(file, text).next() else { return Err(Error::EmptyTask { task: name.to_owned() }) };
    let (line, record) = first?;
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
        return Err(Error::Record { file: file.to_owned(), line, reason });
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
        let mut known: Vec<&str> = self.prompt.fields().chain(self.continuation.fields()).collect();
        if kind == TaskKind::MinimalPair {
            known.extend(["sentence_good", "sentence_bad"]);
        }
        known.extend(has_choices.then_some(self.choices));
        known.extend(has_answer.then_some(self.answer));
        known.extend(self.definition.fields.ignored.iter().map(String::as_str));
        match record.keys().find(|field| !known.contains(&field.as_str())) {
            None => Ok(()),
            Some(field) => {
                known.retain(|field| *field != "choice");
                known.sort_unstable();
                known.dedup();
                Err(format!(
                    "unknown field `{field}`; known are {}; list it under `ignored` if it is not needed",
                    known.join(", ")
                ))
            }
        }
    }

    fn content(&self, record: &Record) -> Checked<Content> {
        let fill = |template: &Template, choice: Option<&str>| {
            template.fill(|name| match (name, choice) {
                ("choice", Some(choice)) => Ok(choice.to_owned()),
                _ => text(record, name).map(str::to_owned),
            })
        };
        let pair =
            |choice: &str| Checked::Ok((fill(&self.prompt, Some(choice))?, fill(&self.continuation, Some(choice))?));
        match self.definition.kind {
            TaskKind::MultipleChoice | TaskKind::ContextChoice => {
                let texts = texts(record, self.choices)?;
                let answer = index(record, self.answer, texts.len())?;
                choices(&texts, pair, answer)
            }
            TaskKind::MinimalPair => choices(&[text(record, "sentence_good")?, text(record, "sentence_bad")?], pair, 0),
            TaskKind::GreedyMatch => {
                let (context, continuation) = (fill(&self.prompt, None)?, fill(&self.continuation, None)?);
                if continuation.trim().is_empty() {
                    return Err("the continuation is empty".to_owned());
                }
                Ok(Content::GreedyMatch { context, continuation })
            }
            TaskKind::Generated => {
                let answer = match record.get(self.answer) {
                    Some(Value::String(answer)) => answer.clone(),
                    Some(Value::Number(answer)) => answer.to_string(),
                    Some(_) => return Err(format!("field `{}` must be a text or a number", self.answer)),
                    None => return Err(format!("field `{}` is missing", self.answer)),
                };
                let prompt = fill(&self.prompt, None)?;
                if self.definition.answer.normalise(&answer).is_empty() {
                    return Err(format!("field `{}` holds no answer", self.answer));
                }
                Ok(Content::Generated { prompt, answer })
            }
        }
    }
}

/// Contexts and continuations of all choices, with the bytes that normalisation divides by.
fn choices(choices: &[&str], pair: impl Fn(&str) -> Checked<(String, String)>, answer: usize) -> Checked<Content> {
    let pairs = choices.iter().map(|choice| pair(choice)).collect::<Checked<Vec<_>>>()?;
    if pairs.iter().any(|(_, continuation)| continuation.trim().is_empty()) {
        return Err("a choice is empty".to_owned());
    }
    // The text that is scored, without the space that joins it to the context.
    let bytes = pairs.iter().map(|(_, continuation)| continuation.trim_start().len()).collect();
    Ok(Content::Choices { pairs, bytes, answer })
}

fn text<'a>(record: &'a Record, field: &str) -> Checked<&'a str> {
    match record.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("field `{field}` must be a text")),
        None => Err(format!("field `{field}` is missing")),
    }
}

fn texts<'a>(record: &'a Record, field: &str) -> Checked<Vec<&'a str>> {
    let Some(Value::Array(values)) = record.get(field) else {
        return Err(format!("field `{field}` must be a list of texts"));
    };
    if !(2..=MOST_CHOICES).contains(&values.len()) {
        return Err(format!("field `{field}` must list 2 to {MOST_CHOICES} texts, it has {}", values.len()));
    }
    values.iter().map(|value| value.as_str().ok_or_else(|| format!("field `{field}` must list texts only"))).collect()
}

fn index(record: &Record, field: &str, count: usize) -> Checked<usize> {
    let Some(value) = record.get(field) else { return Err(format!("field `{field}` is missing")) };
    let index = value.as_u64().and_then(|index| usize::try_from(index).ok()).filter(|index| *index < count);
    index.ok_or_else(|| format!("field `{field}` must be the index of a choice, 0 to {}, it is {value}", count - 1))
}

#[cfg(test)]
mod tests;
