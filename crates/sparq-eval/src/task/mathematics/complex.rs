//! Complex numbers, as far as answers need them.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// Two values are equal within this share of the larger one: far above rounding, far below a decimal's last digit.
const TOLERANCE: f64 = 1e-9;
/// Powers up to this one are products, which keeps whole numbers exact.
const WHOLE_POWER: f64 = 64.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Complex {
    pub(super) re: f64,
    pub(super) im: f64,
}

impl Complex {
    pub(super) const ONE: Self = Self::real(1.0);

    pub(super) const fn real(re: f64) -> Self {
        Self { re, im: 0.0 }
    }

    pub(super) fn norm(self) -> f64 {
        self.re.hypot(self.im)
    }

    pub(super) fn is_real(self) -> bool {
        self.im == 0.0
    }

    /// Whether two values are the same but for rounding; infinities are if their signs are.
    pub(super) fn is_close(self, other: Self) -> bool {
        if self.norm().is_infinite() || other.norm().is_infinite() {
            return self.re == other.re && self.im == other.im;
        }
        (self - other).norm() <= TOLERANCE * self.norm().max(other.norm()).max(1e-6)
    }

    /// `self` to the power of `exponent`, the principal value.
    pub(super) fn power(self, exponent: Self) -> Self {
        if exponent.is_real() && exponent.re.fract() == 0.0 && exponent.re.abs() <= WHOLE_POWER {
            let mut product = Self::ONE;
            for _ in 0..exponent.re.abs() as usize {
                product = product * self;
            }
            return if exponent.re < 0.0 { Self::ONE / product } else { product };
        }
        if self.norm() == 0.0 {
            return Self::real(if exponent.re > 0.0 { 0.0 } else { f64::NAN });
        }
        if self.is_real() && exponent.is_real() && self.re > 0.0 {
            return Self::real(self.re.powf(exponent.re));
        }
        let (log, angle) = (self.norm().ln(), self.im.atan2(self.re));
        let exponent = exponent * Self { re: log, im: angle };
        let size = exponent.re.exp();
        Self { re: size * exponent.im.cos(), im: size * exponent.im.sin() }
    }
}

impl Add for Complex {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Neg for Complex {
    type Output = Self;
    fn neg(self) -> Self {
        // Not 0 − 0i, so that an infinity keeps an imaginary part that compares equal.
        Self { re: -self.re, im: if self.im == 0.0 { 0.0 } else { -self.im } }
    }
}

impl Mul for Complex {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        if self.is_real() && other.is_real() {
            return Self::real(self.re * other.re);
        }
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }
}

impl Div for Complex {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        if self.is_real() && other.is_real() {
            return Self::real(self.re / other.re);
        }
        let size = other.re * other.re + other.im * other.im;
        Self {
            re: (self.re * other.re + self.im * other.im) / size,
            im: (self.im * other.re - self.re * other.im) / size,
        }
    }
}
