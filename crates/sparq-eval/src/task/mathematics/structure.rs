//! Tuples, sets, unions, matrices, equations: what is compared part by part.

use super::evaluate::values;
use super::tokens::Token;

/// Nesting of structures.
const MOST_NESTING: usize = 8;
/// Settings of the variables at which expressions are compared.
const POINTS: u32 = 3;

/// Whether two answers are the same.
pub(super) fn same(first: &[Token], second: &[Token], nesting: usize) -> bool {
    if first == second {
        return true;
    }
    if nesting > MOST_NESTING || first.is_empty() || second.is_empty() {
        return false;
    }
    let next = nesting + 1;
    if let (Some(first), Some(second)) = (words(first), words(second)) {
        return first == second;
    }
    let (first, second) = (right_side(first), right_side(second));
    for separator in [Token::Command("cup".to_owned()), Token::Symbol(',')] {
        let (a, b) = (split(first, &separator), split(second, &separator));
        if a.len() > 1 || b.len() > 1 {
            return same_in_any_order(&a, &b, next);
        }
    }
    match (bracketed(first), bracketed(second)) {
        (Some(a), Some(b)) => {
            let comma = Token::Symbol(',');
            let (parts, others) = (split(a.inner, &comma), split(b.inner, &comma));
            if a.is_set && b.is_set {
                return same_in_any_order(&parts, &others, next);
            }
            if parts.len() > 1 || others.len() > 1 {
                return a.open == b.open && a.close == b.close && same_in_order(&parts, &others, next);
            }
        }
        (Some(a), None) | (None, Some(a)) if a.is_set || split(a.inner, &Token::Symbol(',')).len() > 1 => return false,
        _ => {}
    }
    match (rows(first), rows(second)) {
        (Some(a), Some(b)) => {
            let is_equal = |(a, b): (&Vec<&[Token]>, &Vec<&[Token]>)| same_in_order(a, b, next);
            return a.len() == b.len() && a.iter().zip(&b).all(is_equal);
        }
        (Some(_), None) | (None, Some(_)) => return false,
        (None, None) => {}
    }
    match (both_signs(first), both_signs(second)) {
        (Some(a), Some(b)) => {
            return same_in_any_order(&a.each_ref().map(Vec::as_slice), &b.each_ref().map(Vec::as_slice), next);
        }
        (Some(_), None) | (None, Some(_)) => return false,
        (None, None) => {}
    }
    let equals = Token::Symbol('=');
    match (split(first, &equals).as_slice(), split(second, &equals).as_slice()) {
        ([a], [b]) => same_value(a, b),
        ([a, b], [c, d]) => same_equation([a, b], [c, d]),
        _ => false,
    }
}

/// The words of an answer that is nothing else: `\text{east}`, `east`, `(C)`, `\text{(C)}`.
fn words(tokens: &[Token]) -> Option<String> {
    let inner = if let [Token::Symbol('('), inner @ .., Token::Symbol(')')] = tokens { inner } else { tokens };
    let mut text = String::new();
    let mut has_word = false;
    for token in inner {
        match token {
            Token::Letter(letter) => text.push(*letter),
            Token::Text(words) => {
                has_word = true;
                text += words;
            }
            _ => return None,
        }
    }
    // A single letter in brackets is the name of a choice as much as a letter alone is.
    let is_choice = inner.len() == 1 && text.len() == 1;
    let text = text.trim_matches(['(', ')', ' ']).to_lowercase();
    (has_word || is_choice).then_some(text)
}

/// An answer without a leading `x =` or `x \in`.
fn right_side(tokens: &[Token]) -> &[Token] {
    match tokens {
        [Token::Letter(_), Token::Symbol('='), rest @ ..] if !rest.contains(&Token::Symbol('=')) => rest,
        [Token::Letter(_), Token::Command(name), rest @ ..] if name == "in" => rest,
        tokens => tokens,
    }
}

/// The parts between separators outside of brackets.
fn split<'a>(tokens: &'a [Token], separator: &Token) -> Vec<&'a [Token]> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, token) in tokens.iter().enumerate() {
        match opens(token) {
            Some(true) => depth += 1,
            Some(false) => depth = depth.saturating_sub(1),
            None if depth == 0 && token == separator => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            None => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

/// Whether a token opens or closes a bracket.
fn opens(token: &Token) -> Option<bool> {
    match token {
        Token::Symbol('(' | '[' | '{') => Some(true),
        Token::Symbol(')' | ']' | '}') => Some(false),
        Token::Command(name) => match name.as_str() {
            "lbrace" | "begin" => Some(true),
            "rbrace" | "end" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

struct Bracketed<'a> {
    open: &'a Token,
    close: &'a Token,
    inner: &'a [Token],
    is_set: bool,
}

/// An answer in one pair of brackets, of any two kinds: intervals may be half open.
fn bracketed(tokens: &[Token]) -> Option<Bracketed<'_>> {
    let [open, inner @ .., close] = tokens else { return None };
    let is_set = matches!(open, Token::Command(name) if name == "lbrace");
    if !is_set && !matches!(open, Token::Symbol('(' | '[')) || opens(close) != Some(false) {
        return None;
    }
    let mut depth = 1_usize;
    for token in inner {
        match opens(token) {
            Some(true) => depth += 1,
            Some(false) => depth -= 1,
            None => {}
        }
        if depth == 0 {
            return None; // (a)(b)
        }
    }
    (depth == 1).then_some(Bracketed { open, close, inner, is_set })
}

/// The entries of a matrix, row by row.
fn rows(tokens: &[Token]) -> Option<Vec<Vec<&[Token]>>> {
    let command = |name: &str| Token::Command(name.to_owned());
    let [first, inner @ .., last] = tokens else { return None };
    if *first != command("begin") || *last != command("end") {
        return None;
    }
    let rows = split(inner, &command("row"));
    let filled = rows.into_iter().filter(|row| !row.is_empty());
    Some(filled.map(|row| split(row, &Token::Symbol('&'))).collect())
}

/// Both answers that one with a single `\pm` stands for.
fn both_signs(tokens: &[Token]) -> Option<[Vec<Token>; 2]> {
    let is_sign = |token: &Token| matches!(token, Token::Command(name) if name == "pm" || name == "mp");
    if tokens.iter().filter(|token| is_sign(token)).count() != 1 {
        return None;
    }
    let with = |sign: char| {
        let replace = |token: &Token| if is_sign(token) { Token::Symbol(sign) } else { token.clone() };
        tokens.iter().map(replace).collect()
    };
    Some([with('+'), with('-')])
}

fn same_in_order(first: &[&[Token]], second: &[&[Token]], nesting: usize) -> bool {
    first.len() == second.len() && first.iter().zip(second).all(|(a, b)| same(a, b, nesting))
}

fn same_in_any_order(first: &[&[Token]], second: &[&[Token]], nesting: usize) -> bool {
    // `\pm` in a list stands for two of its members.
    let spread = |parts: &[&[Token]]| -> Vec<Vec<Token>> {
        parts
            .iter()
            .flat_map(|part| both_signs(part).map_or_else(|| vec![part.to_vec()], |both| both.to_vec()))
            .collect()
    };
    let (first, mut second) = (spread(first), spread(second));
    first.len() == second.len()
        && first.iter().all(|a| {
            let found = second.iter().position(|b| same(a, b, nesting));
            found.map(|index| second.swap_remove(index)).is_some()
        })
}

fn same_value(first: &[Token], second: &[Token]) -> bool {
    match (values(first, POINTS), values(second, POINTS)) {
        (Some(first), Some(second)) => first.iter().zip(&second).all(|(a, b)| a.is_close(*b)),
        _ => false,
    }
}

/// Whether two equations are the same up to a factor.
fn same_equation(first: [&[Token]; 2], second: [&[Token]; 2]) -> bool {
    let differences = |[left, right]: [&[Token]; 2]| {
        let (left, right) = (values(left, POINTS)?, values(right, POINTS)?);
        Some(left.into_iter().zip(right).map(|(left, right)| left - right).collect::<Vec<_>>())
    };
    let (Some(first), Some(second)) = (differences(first), differences(second)) else { return false };
    let ratios: Vec<_> = first.iter().zip(&second).map(|(a, b)| *a / *b).collect();
    let usable = |ratio: &super::complex::Complex| ratio.norm().is_finite() && ratio.norm() > 0.0;
    ratios.iter().all(usable) && ratios.windows(2).all(|two| two[0].is_close(two[1]))
}
