//! An answer as tokens, without what makes no difference.

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// An unsigned decimal number without separators.
    Number(String),
    /// A variable.
    Letter(char),
    /// `\name`; `begin` and `end` stand for those of matrices, `row` for `\\`, `lbrace` and `rbrace` for those of sets.
    Command(String),
    /// Any other character.
    Symbol(char),
    /// Words: of `\text{…}`, or a unit.
    Text(String),
}

/// Words that are not products of variables.
const UNITS: [&str; 34] = [
    "degrees", "degree", "dollars", "dollar", "cents", "cent", "inches", "inch", "feet", "foot", "ft", "cm", "mm",
    "km", "meters", "meter", "miles", "mile", "mph", "hours", "hour", "minutes", "minute", "seconds", "second", "days",
    "day", "units", "unit", "square", "cubic", "percent", "pounds", "points",
];

/// Words that mean a command.
const NAMES: [(&str, &str); 10] = [
    ("sqrt", "sqrt"),
    ("pi", "pi"),
    ("infinity", "infty"),
    ("inf", "infty"),
    ("sin", "sin"),
    ("cos", "cos"),
    ("tan", "tan"),
    ("cot", "cot"),
    ("ln", "ln"),
    ("log", "log"),
];

/// The tokens of an answer; `None` if there are more than `most`.
pub(super) fn tokenize(text: &str, most: usize) -> Option<Vec<Token>> {
    let mut reader = Reader { rest: text.trim(), tokens: Vec::new(), depth: 0, single_digits: 0 };
    while !reader.rest.is_empty() {
        reader.step();
        if reader.tokens.len() > most {
            return None;
        }
    }
    let mut tokens = unwrap_scripts(reader.tokens);
    strip_units(&mut tokens);
    Some(tokens)
}

struct Reader<'a> {
    rest: &'a str,
    tokens: Vec<Token>,
    /// Open brackets.
    depth: usize,
    /// How many of the next digits stand alone: `\frac43` is 4/3.
    single_digits: usize,
}

impl Reader<'_> {
    fn step(&mut self) {
        let Some(first) = self.rest.chars().next() else { return };
        match first {
            '\\' => self.command(),
            '0'..='9' => self.number(),
            '.' if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            'a'..='z' | 'A'..='Z' => self.word(),
            _ => {
                self.rest = &self.rest[first.len_utf8()..];
                self.symbol(first);
            }
        }
    }

    fn symbol(&mut self, symbol: char) {
        match symbol {
            '$' | '%' | '°' | '"' | '~' => return,
            symbol if symbol.is_whitespace() => return,
            '(' | '[' => self.depth += 1,
            ')' | ']' => self.depth = self.depth.saturating_sub(1),
            '{' => self.single_digits = 0,
            _ => {}
        }
        let token = match symbol {
            '−' | '–' => Token::Symbol('-'),
            '·' | '×' => Token::Symbol('*'),
            'π' => Token::Command("pi".to_owned()),
            '∞' => Token::Command("infty".to_owned()),
            '√' => Token::Command("sqrt".to_owned()),
            other => Token::Symbol(other),
        };
        self.tokens.push(token);
    }

    fn number(&mut self) {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        if self.single_digits > 0 {
            self.single_digits -= 1;
            self.tokens.push(Token::Number(self.rest[..1].to_owned()));
            self.rest = &self.rest[1..];
            return;
        }
        let length = digits(self.rest);
        let mut number = self.rest[..length].to_owned();
        let mut rest = &self.rest[length..];
        // Thousands: `10,\!080` and `10{,}080` anywhere; `58,500` where it cannot be two coordinates.
        while (1..=3).contains(&length) {
            let after = if let Some(after) = rest.strip_prefix(",\\!").or_else(|| rest.strip_prefix("{,}")) {
                after.trim_start()
            } else if let Some(after) = rest.strip_prefix(',').filter(|_| self.depth == 0) {
                after
            } else {
                break;
            };
            if digits(after) != 3 {
                break;
            }
            number += &after[..3];
            rest = &after[3..];
        }
        if let Some(fraction) = rest.strip_prefix('.') {
            let length = digits(fraction);
            if length > 0 {
                number = format!("{number}.{}", &fraction[..length]);
                rest = &fraction[length..];
            }
        }
        self.rest = rest;
        self.tokens.push(Token::Number(number));
    }

    fn word(&mut self) {
        let length = self.rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        let lower = word.to_ascii_lowercase();
        if lower == "and" || lower == "or" {
            self.joined();
        } else if let Some((_, name)) = NAMES.iter().find(|(written, _)| *written == lower) {
            self.tokens.push(Token::Command((*name).to_owned()));
        } else if length > 1 && (UNITS.contains(&lower.as_str()) || length > 3) {
            self.tokens.push(Token::Text(lower));
        } else {
            self.tokens.extend(word.chars().map(Token::Letter));
        }
    }

    fn command(&mut self) {
        let after = &self.rest[1..];
        let length = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        if length == 0 {
            let Some(symbol) = after.chars().next() else {
                self.rest = "";
                return;
            };
            self.rest = &after[symbol.len_utf8()..];
            match symbol {
                '\\' => self.tokens.push(Token::Command("row".to_owned())),
                '{' => self.tokens.push(Token::Command("lbrace".to_owned())),
                '}' => self.tokens.push(Token::Command("rbrace".to_owned())),
                '|' => self.tokens.push(Token::Symbol('|')),
                _ => {} // spaces, `\$`, `\%`, `\(`, `\[`
            }
            return;
        }
        let name = &after[..length];
        self.rest = &after[length..];
        let name = match name {
            "left" | "right" | "big" | "Big" | "bigl" | "bigr" | "displaystyle" | "limits" | "quad" | "qquad" => {
                // `\left.` is a bracket that is not there.
                if matches!(name, "left" | "right") && self.rest.starts_with('.') {
                    self.rest = &self.rest[1..];
                }
                return;
            }
            "circ" | "degree" => {
                // The degree sign: `^\circ` and `^{\circ}`.
                if self.tokens.last() == Some(&Token::Symbol('{')) && self.rest.trim_start().starts_with('}') {
                    self.tokens.pop();
                    self.rest = &self.rest.trim_start()[1..];
                }
                if self.tokens.last() == Some(&Token::Symbol('^')) {
                    self.tokens.pop();
                }
                return;
            }
            "text" | "mbox" | "textbf" | "textit" | "textrm" | "mathrm" | "operatorname" | "hbox" => {
                return self.text();
            }
            "begin" | "end" => {
                let rest = self.rest.trim_start();
                if let Some((_, rest)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
                    self.rest = rest;
                }
                name
            }
            "dfrac" | "tfrac" | "cfrac" => "frac",
            "cdot" | "times" | "ast" => return self.tokens.push(Token::Symbol('*')),
            "div" => return self.tokens.push(Token::Symbol('/')),
            "lbrack" => return self.tokens.push(Token::Symbol('[')),
            "rbrack" => return self.tokens.push(Token::Symbol(']')),
            name => name,
        };
        if name == "frac" {
            self.single_digits = 2;
        }
        self.tokens.push(Token::Command(name.to_owned()));
    }

    /// `and` joins as a comma does; after one it says nothing new.
    fn joined(&mut self) {
        if self.tokens.last() != Some(&Token::Symbol(',')) {
            self.tokens.push(Token::Symbol(','));
        }
    }

    /// The words of `\text{…}`.
    fn text(&mut self) {
        let rest = self.rest.trim_start();
        let Some((words, rest)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { return };
        self.rest = rest;
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        match words.trim_matches('.') {
            "" => {}
            "and" | "or" => self.joined(),
            words => self.tokens.push(Token::Text(words.to_owned())),
        }
    }
}

/// `^{2}` as `^2`, `_{5}` as `_5`.
fn unwrap_scripts(tokens: Vec<Token>) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let after_script = matches!(out.last(), Some(Token::Symbol('^' | '_')));
        if after_script
            && tokens[at] == Token::Symbol('{')
            && tokens.get(at + 2) == Some(&Token::Symbol('}'))
            && tokens[at + 1] != Token::Symbol('{')
        {
            out.push(tokens[at + 1].clone());
            at += 3;
        } else {
            out.push(tokens[at].clone());
            at += 1;
        }
    }
    out
}

/// Takes units off the end, with their powers, if anything else is left.
fn strip_units(tokens: &mut Vec<Token>) {
    loop {
        let has_power = matches!(tokens.as_slice(), [.., Token::Text(_), Token::Symbol('^'), Token::Number(_)]);
        let end = tokens.len() - if has_power { 2 } else { 0 };
        let is_unit = end >= 2 && matches!(tokens[end - 1], Token::Text(_));
        if !is_unit || tokens[..end - 1].iter().all(|token| matches!(token, Token::Text(_))) {
            return;
        }
        tokens.truncate(end - 1);
    }
}
