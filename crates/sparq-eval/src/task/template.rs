/// A text with places for fields: `{name}`. Doubled braces stand for themselves.
#[derive(Debug, Clone)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Field(String),
}

impl Template {
    /// Parses a template. The error is the reason why it is malformed.
    pub(super) fn parse(template: &str) -> Result<Self, String> {
        let (mut parts, mut text) = (Vec::new(), String::new());
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                text.push_str(brace);
                rest = after;
                continue;
            }
            let unmatched = || format!("unmatched `{brace}` in template {template:?}; write it twice for itself");
            if brace == "}" {
                return Err(unmatched());
            }
            let end = rest.find('}').ok_or_else(unmatched)?;
            let name = &rest[..end];
            if name.is_empty() || name.contains('{') {
                return Err(format!("`{{{name}}}` in template {template:?} names no field"));
            }
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(Part::Field(name.to_owned()));
            rest = &rest[end + 1..];
        }
        text.push_str(rest);
        parts.push(Part::Text(text));
        Ok(Self { parts })
    }

    /// Names of the fields, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Fills in values. It is an error if a field has no value or the text has more than `most` bytes.
    pub(super) fn fill<'a>(
        &'a self,
        value: impl Fn(&'a str) -> Result<String, String>,
        most: usize,
    ) -> Result<String, String> {
        self.parts.iter().try_fold(String::new(), |mut text, part| {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field(name) => text.push_str(&value(name)?),
            }
            if text.len() > most { Err(format!("the filled template has more than {most} bytes")) } else { Ok(text) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fills_fields_and_keeps_doubled_braces() {
        let template = Template::parse("Q: {question} {{A}}: {choice}").unwrap();
        assert_eq!(template.fields().collect::<Vec<_>>(), ["question", "choice"]);
        assert_eq!(template.fill(|name| Ok(name.to_uppercase()), 100).unwrap(), "Q: QUESTION {A}: CHOICE");
        assert_eq!(template.fill(|name| Err(format!("no {name}")), 100).unwrap_err(), "no question");
        assert!(template.fill(|name| Ok(name.repeat(10)), 60).unwrap_err().contains("60 bytes"));
    }

    #[test]
    fn malformed_templates_are_explained() {
        for bad in ["{", "}", "{a", "a}", "{}", "{a{b}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[{}a\u{e4} ]{0,12}") {
            if let Ok(template) = Template::parse(&text) {
                template.fill(|name| Ok(name.to_owned()), 100).unwrap();
            }
        }
    }
}
