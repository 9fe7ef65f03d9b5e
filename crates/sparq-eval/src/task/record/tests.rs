use super::*;
use crate::{FieldNames, Task};
use proptest::prelude::*;

#[test]
fn fields_tell_the_kind() {
    for (line, kind, prompt, answer) in [
        (r#"{"question": "q", "choices": ["a", "b"], "answer": 1}"#, TaskKind::MultipleChoice, "Q: q A:", "b"),
        (r#"{"question": "q", "answer": "7"}"#, TaskKind::Generated, "Q: q A:", "7"),
        (r#"{"question": "q", "answer": 7}"#, TaskKind::Generated, "Q: q A:", "7"),
        (r#"{"query": "q", "choices": ["a", "b"], "gold": 0}"#, TaskKind::MultipleChoice, "q", "a"),
        (
            r#"{"context_options": ["so Ann", "so Bob"], "continuation": "won.", "gold": 1}"#,
            TaskKind::ContextChoice,
            "so Ann",
            "so Bob",
        ),
        (r#"{"context": "the last", "continuation": "word"}"#, TaskKind::GreedyMatch, "the last", "word"),
    ] {
        let task = Task::from_jsonl("t", line).unwrap();
        let item = &task.items()[0];
        assert_eq!((task.definition().kind, item.prompt(), item.answer(), item.id()), (kind, prompt, answer, "t:1"));
    }
    let pair = Task::from_jsonl("t", r#"{"sentence_good": "It is.", "sentence_bad": "It are."}"#).unwrap();
    assert_eq!((pair.items()[0].answer(), pair.items()[0].chance()), ("It is.", 0.5));
}

#[test]
fn malformed_lines_are_named() {
    let good = r#"{"question": "q", "choices": ["a", "b"], "answer": 1}"#;
    for (bad, expected) in [
        ("{", "not JSON"),
        ("[1]", "a JSON object"),
        (r#"{"question": "q", "choices": ["a", "b"]}"#, "`answer` is missing"),
        (r#"{"question": "q", "choices": ["a", "b"], "answer": 2}"#, "0 to 1, it is 2"),
        (r#"{"question": "q", "choices": ["a", "b"], "answer": -1}"#, "0 to 1"),
        (r#"{"question": "q", "choices": ["a", "b"], "answer": "b"}"#, "0 to 1"),
        (r#"{"question": "q", "choices": ["a"], "answer": 0}"#, "2 to 256"),
        (r#"{"question": "q", "choices": ["a", 3], "answer": 0}"#, "texts only"),
        (r#"{"question": "q", "choices": "ab", "answer": 0}"#, "a list of texts"),
        (r#"{"question": "q", "choices": ["a", " "], "answer": 0}"#, "a choice is empty"),
        (r#"{"question": 5, "choices": ["a", "b"], "answer": 0}"#, "`question` must be a text"),
        (r#"{"choices": ["a", "b"], "answer": 0}"#, "`question` is missing"),
        (r#"{"question": "q", "choices": ["a", "b"], "answer": 1, "hint": "h"}"#, "unknown field `hint`"),
    ] {
        let text = format!("{good}\n\n{bad}\n{good}\n");
        let definition = TaskDefinition::new("t", TaskKind::MultipleChoice);
        let error = Task::from_texts(definition, &[("folder/quiz.jsonl", &text)]).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Record { line: 3, .. }), "{message}");
        assert!(message.starts_with("folder/quiz.jsonl, line 3: ") && message.contains(expected), "{message}");
    }
    let no_answer = Task::from_jsonl("t", r#"{"question": "q", "answer": "."}"#).unwrap_err().to_string();
    assert!(no_answer.contains("holds no answer"), "{no_answer}");
    let strange = Task::from_jsonl("t", r#"{"frage": "q"}"#).unwrap_err().to_string();
    assert!(strange.contains("t, line 1") && strange.contains("frage"), "{strange}");
    for empty in ["", "\n \n"] {
        assert!(matches!(Task::from_jsonl("t", empty), Err(Error::EmptyTask { .. })));
    }
}

#[test]
fn templates_use_any_field() {
    let mut definition = TaskDefinition::new("t", TaskKind::MultipleChoice);
    definition.prompt = "{subject}: {question} {choice}?".to_owned();
    definition.fields =
        FieldNames { answer: Some("gold".to_owned()), ignored: vec!["id".to_owned()], ..FieldNames::default() };
    let line = r#"{"subject": "s", "question": "q", "choices": ["a", "b"], "gold": 1, "id": 9}"#;
    let task = Task::from_texts(definition.clone(), &[("t.jsonl", line)]).unwrap();
    assert_eq!(task.items()[0].prompt(), "s: q a?");
    definition.prompt = "{".to_owned();
    let error = Task::from_texts(definition, &[("t.jsonl", line)]).unwrap_err();
    assert!(matches!(error, Error::Definition { .. }), "{error}");
}

proptest! {
    #[test]
    fn hostile_text_never_panics(text in "[\\[\\]{}:,\"a-d0-9 \n\u{e4}]{0,80}") {
        let _ = Task::from_jsonl("t", &text);
        let _ = crate::TaskDefinition::from_toml("t", &text);
    }
}
