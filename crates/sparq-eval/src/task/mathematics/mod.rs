//! Compares two answers to a problem of mathematics by value, however they are written.

mod complex;
mod evaluate;
mod structure;
mod tokens;

use structure::same;
use tokens::tokenize;

/// Tokens of one answer; longer ones are compared as texts. A generated text may hold anything.
const MOST_TOKENS: usize = 512;

/// Whether two answers in LaTeX or plain text are the same. Needs the feature `math`.
///
/// They are if they are the same text but for spaces, delimiters and styles (`\dfrac12`, `$\frac{1}{2}$`), if they have the
/// same structure and equal parts (tuples and intervals in order and with the same brackets; sets, lists, unions and both
/// values of a `\pm` in any order; matrices; equations up to a factor), or if they are expressions with equal values:
/// numbers, fractions, roots, powers, complex numbers, `\pi`, and variables, for which several values are put in. Values
/// are equal within 10⁻⁹ of the larger one, so that a rounded decimal is not the fraction it came from. Signs of money,
/// degree and per cent, units at the end, separators of thousands and a leading `x =` make no difference; a number in
/// another base (`52_8`) is equal to the same digits with the same base only.
///
/// # Examples
/// ```
/// use sparq_eval::equivalent;
/// assert!(equivalent(r"\frac{\sqrt{3}}{3}", r"1/\sqrt{3}"));
/// assert!(equivalent(r"(a+5)(b+2)", "ab + 2a + 5b + 10"));
/// assert!(equivalent(r"90^\circ", "90 degrees"));
/// assert!(!equivalent("[2, 5)", "(2, 5)"));
/// ```
pub fn equivalent(first: &str, second: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    if plain(first) == plain(second) {
        return !plain(first).is_empty();
    }
    let (first, second) = (tokenize(first, MOST_TOKENS), tokenize(second, MOST_TOKENS));
    match (first, second) {
        (Some(first), Some(second)) if !first.is_empty() && !second.is_empty() => same(&first, &second, 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
