//! The value of an expression, with numbers put in for variables.

use super::complex::Complex;
use super::tokens::Token;

/// Nesting of brackets, fractions and powers.
const MOST_NESTING: usize = 48;

/// The values of an expression at each of `points` settings of its variables; `None` if it is no expression.
pub(super) fn values(tokens: &[Token], points: u32) -> Option<Vec<Complex>> {
    (0..points).map(|point| value(tokens, point)).collect()
}

fn value(tokens: &[Token], point: u32) -> Option<Complex> {
    let mut parser = Parser { tokens, at: 0, point, nesting: 0 };
    let value = parser.sum()?;
    // Infinite only where infinity is written: 1/0 is no value.
    let is_value = value.norm().is_finite() || tokens.contains(&Token::Command("infty".to_owned()));
    (parser.at == tokens.len() && is_value && !value.norm().is_nan()).then_some(value)
}

/// What a variable stands for: some number between 0.6 and 1.9 that no simple relation ties to the others.
fn variable(letter: char, point: u32) -> Complex {
    let mixed = f64::from(u32::from(letter)) * 0.754_877_666_246_692_8 + f64::from(point) * 0.569_840_290_998_053_3;
    Complex::real(0.6 + 1.3 * mixed.fract())
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    point: u32,
    nesting: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, symbol: char) -> bool {
        let found = self.peek() == Some(&Token::Symbol(symbol));
        self.at += usize::from(found);
        found
    }

    fn sum(&mut self) -> Option<Complex> {
        self.nesting += 1;
        if self.nesting > MOST_NESTING {
            return None;
        }
        let mut sum = self.product()?;
        loop {
            if self.take('+') {
                sum = sum + self.product()?;
            } else if self.take('-') {
                sum = sum - self.product()?;
            } else {
                self.nesting -= 1;
                return Some(sum);
            }
        }
    }

    fn product(&mut self) -> Option<Complex> {
        let mut product = self.signed()?;
        loop {
            if self.take('*') {
                product = product * self.signed()?;
            } else if self.take('/') {
                product = product / self.signed()?;
            } else if self.starts_factor() {
                product = product * self.power()?;
            } else {
                return Some(product);
            }
        }
    }

    fn signed(&mut self) -> Option<Complex> {
        let mut negative = false;
        loop {
            if self.take('-') {
                negative = !negative;
            } else if !self.take('+') {
                break;
            }
        }
        let value = self.power()?;
        Some(if negative { -value } else { value })
    }

    /// Whether a factor can start here without a sign of multiplication.
    fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Token::Number(_) | Token::Letter(_) | Token::Symbol('(' | '{')) => true,
            Some(Token::Command(name)) => {
                matches!(name.as_str(), "frac" | "sqrt" | "pi" | "infty" | "binom") || function(name).is_some()
            }
            _ => false,
        }
    }

    fn power(&mut self) -> Option<Complex> {
        let mut base = self.atom()?;
        while self.take('!') {
            base = factorial(base)?;
        }
        if !self.take('^') {
            return Some(base);
        }
        self.nesting += 1;
        if self.nesting > MOST_NESTING {
            return None;
        }
        let exponent = if self.peek() == Some(&Token::Symbol('{')) { self.group()? } else { self.signed()? };
        self.nesting -= 1;
        Some(base.power(exponent))
    }

    /// `{…}`, or a single atom where braces may be left out.
    fn group(&mut self) -> Option<Complex> {
        if self.take('{') {
            let value = self.sum()?;
            return self.take('}').then_some(value);
        }
        self.atom()
    }

    fn atom(&mut self) -> Option<Complex> {
        let token = self.peek()?.clone();
        self.at += 1;
        match token {
            Token::Number(digits) => {
                if self.peek() == Some(&Token::Symbol('_')) {
                    return None; // a number in another base
                }
                let number: f64 = digits.parse().ok()?;
                Some(Complex::real(number + self.mixed_part(&digits).unwrap_or(0.0)))
            }
            Token::Letter('i') => Some(Complex { re: 0.0, im: 1.0 }),
            Token::Letter('e') => Some(Complex::real(std::f64::consts::E)),
            Token::Letter(letter) => (self.peek() != Some(&Token::Symbol('_'))).then(|| variable(letter, self.point)),
            Token::Symbol('(') => {
                let value = self.sum()?;
                self.take(')').then_some(value)
            }
            Token::Symbol('{') => {
                let value = self.sum()?;
                self.take('}').then_some(value)
            }
            Token::Symbol('|') => {
                let value = self.sum()?;
                self.take('|').then_some(Complex::real(value.norm()))
            }
            Token::Command(name) => self.command(&name),
            _ => None,
        }
    }

    /// The fraction of a mixed number such as `1\frac{4}{5}`: whole numbers all three.
    fn mixed_part(&mut self, digits: &str) -> Option<f64> {
        let whole = |token: &Token| match token {
            Token::Number(digits) if !digits.contains('.') => digits.parse::<f64>().ok(),
            _ => None,
        };
        if digits.contains('.') || self.peek() != Some(&Token::Command("frac".to_owned())) {
            return None;
        }
        let brace = |symbol| Token::Symbol(symbol);
        let (above, below, length) = match &self.tokens[self.at + 1..] {
            [a, n, b, c, d, e, ..] if *a == brace('{') && *b == brace('}') && *c == brace('{') && *e == brace('}') => {
                (whole(n)?, whole(d)?, 7)
            }
            [n, d, ..] => (whole(n)?, whole(d)?, 3),
            _ => return None,
        };
        self.at += length;
        Some(above / below)
    }

    fn command(&mut self, name: &str) -> Option<Complex> {
        self.nesting += 1;
        if self.nesting > MOST_NESTING {
            return None;
        }
        let value = match name {
            "pi" => Complex::real(std::f64::consts::PI),
            "infty" => Complex::real(f64::INFINITY),
            "frac" => {
                let above = self.group()?;
                above / self.group()?
            }
            "sqrt" => {
                let root = if self.take('[') {
                    let root = self.sum()?;
                    if !self.take(']') {
                        return None;
                    }
                    root
                } else {
                    Complex::real(2.0)
                };
                self.group()?.power(Complex::ONE / root)
            }
            "binom" => {
                let (n, k) = (self.group()?, self.group()?);
                factorial(n)? / (factorial(k)? * factorial(n - k)?)
            }
            name => {
                let function = function(name)?;
                let argument = self.power()?;
                if !argument.is_real() {
                    return None;
                }
                Complex::real(function(argument.re))
            }
        };
        self.nesting -= 1;
        Some(value)
    }
}

/// A function of one real number.
fn function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "cot" => |x| 1.0 / x.tan(),
        "sec" => |x| 1.0 / x.cos(),
        "csc" => |x| 1.0 / x.sin(),
        "arcsin" => f64::asin,
        "arccos" => f64::acos,
        "arctan" => f64::atan,
        "ln" => f64::ln,
        "log" => f64::log10,
        _ => return None,
    })
}

/// Of a whole number up to 170, the largest whose factorial is finite.
fn factorial(value: Complex) -> Option<Complex> {
    let is_whole = value.is_real() && value.re.fract() == 0.0 && (0.0..=170.0).contains(&value.re);
    is_whole.then(|| Complex::real((1..=value.re as u32).map(f64::from).product()))
}
